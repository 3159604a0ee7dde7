/* JSON of a registry, read without trust: for manifest.c. */
#pragma once

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/base/digest.h"
#include "fs/base/error.h"

/*
 * Parses at most MANIFEST_SIZE_MAX bytes that must hold one object without duplicate keys; `what` names them in the
 * sentence. `ret_root` is a new reference. Errors: -EBADMSG, -ENOMEM.
 */
int manifest_json_load(const char *json, size_t size, const char *what, json_t **ret_root, Error *error) _must_check_;

/*
 * Reads an OCI descriptor (image-spec, descriptor.md) whose media type is one of `types`, ended by NULL; `what` names
 * it in the sentence. Errors: -EBADMSG.
 */
int manifest_json_descriptor(const json_t *descriptor, const char *what, const char *const *types, Digest *ret_digest,
			     uint64_t *ret_size, Error *error) _must_check_;
