/*
 * The seal of a blob in a cache: a file beside its data that says that all of the blob was there, that its tar has the diffID, and that all
 * of that was on the disk. It is written by whoever proved it, also by a server that has but the descriptor. What happens to the data later does
 * not show in it: a blob is sealed if it has a seal and all chunks are present.
 *
 *   blobs/<blob hex>/seal   "imgfs seal 1\n<diffID>\n", or empty
 */
#pragma once

#include <stdbool.h>

#include "fs/cache/cache-store.h"

/*
 * Opens the seal of a blob that cache_store_blob() has made, creating an empty one; read-only where the file system is. The caller owns
 * the descriptor. Errors: openat's.
 */
int cache_seal_open(CacheStore *store, const Digest *blob, int *ret_fd) _must_check_;

/* Opens the seal of a blob read-only, if it has one. Errors: openat's, -ENOENT. */
int cache_seal_get(CacheStore *store, const Digest *blob, int *ret_fd) _must_check_;

/* Has the blob a seal that somebody has written, of whatever layer? */
bool cache_seal_is_written(CacheStore *store, const Digest *blob);

/* Is it there, and of that layer? */
bool cache_seal_is_valid(int fd, const Digest *diff_id);

/*
 * Syncs the file system, so that all the seal speaks of is on the disk, then writes it, durably. Blocks for as long as the disk takes.
 * Errors: -EROFS, syncfs's, write's.
 */
int cache_seal_write(int fd, const Digest *diff_id) _must_check_;

/* Takes it back: it was found to be untrue. Errors: -EROFS, ftruncate's. */
int cache_seal_clear(int fd) _must_check_;
