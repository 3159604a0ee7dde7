/* The index of an OCI layout: which image is meant (OCI image-spec 1.1, image-index.md). */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/base/digest.h"
#include "fs/base/error.h"
#include "fs/format/manifest-platform.h"

typedef struct ImageDescriptor {
	Digest digest;
	uint64_t size;
	const char *media_type; /* "" when there is none; the JSON's */
} ImageDescriptor;

/* A descriptor from its JSON. Errors: -EBADMSG (`what` is named). */
int image_descriptor_parse(const json_t *json, const char *what, ImageDescriptor *ret_descriptor, Error *error)
	_must_check_;

/* Does it name an index, rather than a manifest? OCI's media type or docker's; without one `json`, the thing itself, tells. */
bool image_descriptor_is_index(const ImageDescriptor *descriptor, const json_t *json);

/* May its bytes be a layer's tar, compressed or not? Errors: -EOPNOTSUPP (encrypted, or something else; the sentence says so). */
int image_descriptor_check_layer(const ImageDescriptor *descriptor, Error *error) _must_check_;

/* Is it a layer that its author allows to be left out (OCI: nondistributable; docker: foreign)? */
bool image_descriptor_is_foreign(const ImageDescriptor *descriptor);

/*
 * The descriptor in `index` that `wanted` means (NULL: any, if one only), and of several for platforms the one for `platform`.
 * `ret_name` is what the index calls it, or NULL; both are the JSON's. Errors: -ENOENT, -EEXIST (several; listed), -EBADMSG.
 */
int image_index_choose(const json_t *index, const char *wanted, const Platform *platform, const json_t **ret_descriptor,
		       const char **ret_name, Error *error) _must_check_;
