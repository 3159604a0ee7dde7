/* An image of the store, found by what a person calls it. */
#pragma once

#include "fs/format/manifest.h"
#include "fs/format/reference.h"
#include "tools/export/store.h"

typedef struct StoreImage {
	Reference reference; /* without a name when it was given as a digest alone */
	char *json;          /* the manifest, byte for byte */
	size_t json_size;
	Digest digest; /* of it */
	Manifest manifest;
} StoreImage;

void store_image_done(StoreImage *image); /* safe on a zeroed one and twice */

/*
 * A small object of blobs/ whole, its digest verified, a NUL behind it; malloc'ed.
 * Errors: -ENOENT, -EFBIG above `limit`, -EBADMSG, -ENOMEM, read's.
 */
int store_blob_read(Store *store, const Digest *digest, size_t limit, char **ret_data, size_t *ret_size) _must_check_;

/* NAME[:TAG][@DIGEST], or a digest alone (then name and tag are empty). Errors: -EINVAL. */
int store_image_parse(const char *text, Reference *ret_reference, Error *error) _must_check_;

/*
 * The image that `text` names. Errors carry a sentence: -EINVAL (no reference), -ENOENT (not in the store), -EBADMSG (a damaged manifest),
 * and manifest_parse()'s.
 */
int store_image_open(Store *store, const char *text, StoreImage *ret_image, Error *error) _must_check_;

/* The image's config, of the manifest's config_size bytes, its digest verified, a NUL behind it; malloc'ed. Errors carry a sentence: -ENOENT, -EBADMSG. */
int store_image_config(Store *store, const Manifest *manifest, char **ret_data, Error *error) _must_check_;
