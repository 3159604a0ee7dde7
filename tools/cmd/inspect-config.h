/* The part of `imgfs inspect` that reads an image's config (OCI image-spec 1.1, config.md) and its names. */
#pragma once

#include <jansson.h>

#include "tools/export/store-image.h"

/* The config, parsed; a new reference. Errors: -ENOENT, -EBADMSG, -ENOMEM, read's, with a sentence. */
int inspect_config(Store *store, const Manifest *manifest, json_t **ret_config, Error *error) _must_check_;

/* The tags that mean the manifest `digest`, an array of strings; a new reference. Errors: -ENOMEM, the directory's. */
int inspect_names(Store *store, const Digest *digest, json_t **ret_names, Error *error) _must_check_;

/* Names, and what the config says of platform, age and process, on standard output. */
void inspect_print_config(const json_t *names, const json_t *config);

/* What made layer `number` (from 0), as the history tells; NULL: it tells nothing. Points into `config`. */
const char *inspect_created_by(const json_t *config, size_t number);
