/*
 * A node's cache directory:
 *
 *   imgfs-cache                      marker: "imgfs cache 1\n"
 *   blobs/<blob hex>/data            sparse copy of the blob, at the same offsets
 *   blobs/<blob hex>/seal            whether all of it was proven (cache-seal.h)
 *   blobs/<blob hex>/present         which chunks are there, a bit each, and when each was used (cache-present.h); hints, written without fsync
 *   indexes/<index digest hex>       decompressed index image
 *   views/<chain ID hex>             view
 *   manifests/<digest hex>           manifest, byte for byte
 *   configs/<digest hex>             config of an image, byte for byte: what a client that is none of imgfs wants of a mirror
 *   profiles/<manifest hex>          start-up profile of that image
 *   decoded/<diffID hex>             the layer's tar with sums of its pages (cache-decoded.h)
 *   tags/<host>/<name>/_tags/<tag>   digest a tag was last seen to mean, as text; a second line "hearsay" if only a mirror said so
 *   pins/, seals/                    what stays (cache-pins.h); durable
 *
 * Everything else but blobs is written to a temporary and renamed, without fsync: who reads a manifest or a config checks its digest, who opens
 * an index or a view checks its page sums, and what a power cut left torn or empty is got or built again. So a mount
 * never waits for the disk, and one cut of power costs a fetch at most. All calls may block on the disk.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/base/digest.h"
#include "fs/base/error.h"
#include "fs/format/reference.h"

typedef struct CacheStore CacheStore;

/* A blob is a directory: cache_store_blob(); the others are files. */
typedef enum CacheKind {
	CACHE_INDEX,
	CACHE_VIEW,
	CACHE_MANIFEST,
	CACHE_BLOB,
	CACHE_DECODED,
	CACHE_PROFILE,
	CACHE_CONFIG
} CacheKind;

/*
 * Opens the cache at `path`; with `create`, makes it where nothing or an empty directory is. Sweeps temporaries that a crash left long ago. Errors:
 * -EEXIST (a directory that is something else), -ENOENT (without `create`: nothing, or an empty one), or mkdir's and open's.
 */
int cache_store_open(const char *path, bool create, CacheStore **ret_store, Error *error) _must_check_;

/*
 * The same for a process that has but a descriptor of a cache's directory, from cache_store_fd() of another; it becomes the store's, also on
 * failure. Errors: -ENOMEM.
 */
int cache_store_adopt(int dirfd, CacheStore **ret_store) _must_check_;
int cache_store_fd(const CacheStore *store); /* stays the store's */
CacheStore *cache_store_free(CacheStore *store);
DEFINE_CLEANUP(CacheStore, cache_store_free);

/* Opens the file of an object read-only. Errors: -ENOENT. */
int cache_store_get(CacheStore *store, CacheKind kind, const Digest *digest, int *ret_fd) _must_check_;

/* All of an object that is a file of 1 to `max` bytes; malloc'ed, the caller's, and not checked. Errors: -ENOENT (not there, or of another size), -ENOMEM. */
int cache_store_read(CacheStore *store, CacheKind kind, const Digest *digest, size_t max, char **ret_data,
		     size_t *ret_size) _must_check_;

/* The same of one that is named by the digest of its bytes. Errors: as above, -ENOENT (rotten). */
int cache_store_read_checked(CacheStore *store, CacheKind kind, const Digest *digest, size_t max, char **ret_data,
			     size_t *ret_size) _must_check_;

/* Puts an object in place atomically, replacing one that is there. */
int cache_store_put(CacheStore *store, CacheKind kind, const Digest *digest, const void *data, size_t size,
		    Error *error) _must_check_;

/*
 * Opens, creating them when missing, the data and bitmap files of a blob, read-write, sized for `blob_size` bytes and
 * `chunk_count` chunks; read-only where the file system is, if they are there. The caller owns both descriptors; a server that got
 * them needs no access to the directory.
 */
int cache_store_blob(CacheStore *store, const Digest *blob, uint64_t blob_size, uint32_t chunk_count, int *ret_data_fd,
		     int *ret_present_fd, Error *error) _must_check_;

/* Opens the data and bitmap files of a blob read-only, if it has both. The caller owns the descriptors. Errors: -ENOENT, open's. */
int cache_store_blob_get(CacheStore *store, const Digest *blob, int *ret_data_fd, int *ret_present_fd) _must_check_;

/*
 * The digests of at most `max` objects of a kind, the one put last first. What is no object is passed over. Errors: opendir's, -ENOMEM.
 */
int cache_store_newest(CacheStore *store, CacheKind kind, size_t max, Digest *ret_digests, size_t *ret_count)
	_must_check_;

/* What a tag was last seen to mean. Errors: -ENOENT (never seen, or its file is rotten). */
int cache_store_tag_get(CacheStore *store, const Reference *reference, Digest *ret_manifest) _must_check_;
int cache_store_tag_put(CacheStore *store, const Reference *reference, const Digest *manifest, Error *error)
	_must_check_;

/* The same of what a mirror said while the host could not be asked: it counts until that can be, or a mirror says something else. */
int cache_store_tag_put_hearsay(CacheStore *store, const Reference *reference, const Digest *manifest, Error *error)
	_must_check_;
bool cache_store_tag_is_hearsay(CacheStore *store, const Reference *reference);
