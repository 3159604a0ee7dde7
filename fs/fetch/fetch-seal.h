/*
 * Sealed images: those whose layers are all sealed (cache-seal.h). A server can but seal layers; the seal of the image, which keeps it from eviction
 * and which `imgfs status` shows, is a file of the cache (cache-pins.h, CACHE_SEAL), added by whoever comes by next and has the directory. All calls
 * block on the disk.
 */
#pragma once

#include "fs/fetch/fetch-image.h"

/*
 * Is every layer of an image whole in the cache, and proven to be? Then the image gets its seal unless it has one; `reference` is what people call
 * it. Also false for what cannot be read.
 */
bool fetch_seal_check(CacheStore *cache, const Digest *manifest, const char *reference);

/* The same for all images of the cache: before somebody looks at seals, or takes away what has none. */
void fetch_seals_adopt(CacheStore *cache);

/*
 * Seals layers and image: the caller has just proven that all is there and right. Errors, with a sentence: -EIO (it is not there any
 * more, and not sealed), -EROFS, what the disk gives, cache_pin_add()'s.
 */
int fetch_seal_image(CacheStore *cache, const FetchImage *image, const char *reference, Error *error) _must_check_;

/*
 * Takes seals back: that of the image, and those of its layers unless another sealed image has them too. It stays whole until somebody needs the room.
 * Errors, with a sentence: -ENOENT (it is not sealed), -EBADMSG (nobody knows what else is), unlink's.
 */
int fetch_seal_remove(CacheStore *cache, const Digest *manifest, Error *error) _must_check_;
