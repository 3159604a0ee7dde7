/*
 * Decoded copies of layers: the tar of a layer as it stands, so that reads need no decoding, with a sum of each page, so that what the
 * disk does not give back as it was given is found at every read. A copy is a convenience: who finds it wanting uses the frames. The file
 * `decoded/<diffID hex>` of a cache, little-endian:
 *
 *   pages    the tar, zeros up to a multiple of 4096 bytes
 *   sums     8 bytes a page: XXH3 (64 bits) of its 4096 bytes
 *   footer   96 bytes: "imgfsdec"; version 1 (4); 4096 (4); length of the tar (8); 8 zeros; diffID (32); SHA-256 of the sums and of the
 *            footer before it (32)
 *
 * It appears whole, by a rename without fsync: what a power cut leaves torn fails its sums. These find what disks do, not what somebody
 * does on purpose who may write to the cache; for that, diffIDs were compared when the copy was made, and its directory is its owner's alone.
 *
 * A server, which has descriptors but no directory, makes a copy in a place that was made for it: a file of that name that is empty, or, once it has
 * begun, has "imgfsnew" for the footer's first bytes. Such a file is no copy yet. Who writes has a lock on it (F_OFD_SETLK) by a descriptor that
 * all servers of a mount share: the next one goes on where one has died.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/cache/cache-store.h"

#define CACHE_DECODED_PAGE   4096u
#define CACHE_DECODED_FOOTER 96u

/* A copy that can be read. Immutable: any thread may. Holds 8 bytes of memory for each page. */
typedef struct CacheDecoded CacheDecoded;

/*
 * Opens the copy in `fd`, which becomes the copy's, also on failure. The sums are read and checked here, the pages when they are
 * read. Errors: -EBADMSG (not the whole copy of that layer, or rotten), -ENOMEM, read's.
 */
int cache_decoded_open(int fd, const Digest *diff_id, uint64_t tar_size, CacheDecoded **ret_copy) _must_check_;
CacheDecoded *cache_decoded_free(CacheDecoded *copy);
DEFINE_CLEANUP(CacheDecoded, cache_decoded_free);

/*
 * Reads bytes of the tar, which must be inside it, and checks each page they are on. Blocks on the disk. Errors: -EBADMSG (a page is
 * not as it was written), read's; `buffer` then holds anything.
 */
int cache_decoded_read(const CacheDecoded *copy, uint64_t tar_offset, size_t size, void *buffer) _must_check_;

/* Reads all of it. Errors: as above, -ENOMEM. */
int cache_decoded_check(const CacheDecoded *copy) _must_check_;

/* Is this file the place of a copy that is not there yet? A damaged copy is none. Any thread. */
bool cache_decoded_is_place(int fd);

/*
 * Opens the copy of a layer to be read, or, where there is none, makes a place for it and opens that to be read and written: cache_decoded_is_place() tells.
 * Errors: openat's (-EROFS: there is none, and none can be made).
 */
int cache_decoded_reserve(CacheStore *store, const Digest *diff_id, int *ret_fd) _must_check_;

/* A copy in the making; nobody sees it before its end. One owner. */
typedef struct CacheDecodedWriter CacheDecodedWriter;

/* Takes the room on the disk at once, where the file system can. Errors, with a sentence: -ENOSPC, -ENOMEM, open's. */
int cache_decoded_writer_new(CacheStore *store, const Digest *diff_id, uint64_t tar_size,
			     CacheDecodedWriter **ret_writer, Error *error) _must_check_;

/*
 * The same in a place, whose descriptor stays the caller's and has to outlive the writer. At least `spare` bytes of the disk are left free. Errors, with a
 * sentence: -EBUSY (somebody else is making it), -EEXIST (it was made meanwhile), -ESTALE (the place is gone: evicted, or another copy came there), as above.
 */
int cache_decoded_writer_in(int fd, const Digest *diff_id, uint64_t tar_size, uint64_t spare,
			    CacheDecodedWriter **ret_writer, Error *error) _must_check_;

/* Without the end before, nothing is left of the copy. */
CacheDecodedWriter *cache_decoded_writer_free(CacheDecodedWriter *writer);
DEFINE_CLEANUP(CacheDecodedWriter, cache_decoded_writer_free);

/* Appends bytes of the tar. Errors, with a sentence: -EINVAL (more than the tar has), write's. */
int cache_decoded_writer_add(CacheDecodedWriter *writer, const void *data, size_t size, Error *error) _must_check_;

/*
 * Puts the copy in place of one that is there. The caller has compared the diffID with what it has added. Errors, with a sentence: -EINVAL
 * (less than the tar has), -ENOMEM, -ESTALE (the place is gone), write's, rename's.
 */
int cache_decoded_writer_finish(CacheDecodedWriter *writer, Error *error) _must_check_;
