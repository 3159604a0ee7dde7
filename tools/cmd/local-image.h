/* Images of a local store, opened for a mount. */
#pragma once

#include "fs/fetch/fetch-image.h"

/*
 * Opens NAME[:TAG][@DIGEST] of the store at `path`. Errors, with a sentence: -EINVAL, -ENOENT (no such store or image), what else opening gives.
 */
int local_image_open(const char *path, const char *text, CacheStore *cache, Reference *ret_reference,
		     FetchImage *ret_image, Error *error) _must_check_;
