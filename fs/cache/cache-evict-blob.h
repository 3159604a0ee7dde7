/* Private to the room: what is evicted from one blob, and a decoded copy. One process at a time, by cache_evict_lock(). */
#pragma once

#include "fs/cache/cache-store.h"

/* Says in the file of cache_evict_lock(), for cache_evict_is_unfinished(), that chunks are being evicted, or that all that was begun is ended. */
void cache_evict_mark(int lock_fd, bool unfinished);

/* A chunk that may go. */
typedef struct CacheVictim {
	uint32_t used;  /* seconds since 1970 */
	uint32_t chunk; /* CACHE_VICTIM_ALL: all of the blob */
	size_t blob;    /* the caller's number of it */
	uint64_t offset, size;
} CacheVictim;

#define CACHE_VICTIM_ALL UINT32_MAX

typedef struct CacheVictims {
	CacheVictim *victims;
	size_t count, room;
} CacheVictims;

/* Errors: -ENOMEM. */
int cache_victims_add(CacheVictims *victims, const CacheVictim *victim) _must_check_;

typedef struct CacheEvictBlob {
	CacheStore *store; /* not owned */
	Digest digest;
	int data_fd, present_fd;
	uint32_t count; /* chunks; UINT32_MAX: the file is as no server makes it */
	uint64_t size;
	uint64_t bytes; /* on the disk, both files */
} CacheEvictBlob;

/* Opens the files. Errors: -ENOENT (no blob, or it goes just now), open's. */
int cache_evict_blob_open(CacheStore *store, const Digest *digest, CacheEvictBlob *ret_blob) _must_check_;
void cache_evict_blob_close(CacheEvictBlob *blob);

/*
 * Adds to `victims` what may go of a blob, `number`: whatever was not used in the seconds before `now`, present or left behind; NULL: the
 * blob is protected. Ends what an eviction that was killed had begun. Errors: -ENOMEM, read's, punching's.
 */
int cache_evict_blob_list(CacheEvictBlob *blob, size_t number, uint32_t now, CacheVictims *victims) _must_check_;

/*
 * Evicts chunks of one blob, given in their order; what is left once the blob is found sealed stays. `ret_evicted`: how many victims went, also on failure.
 * Errors: -EOPNOTSUPP, -ENOMEM, and what else the disk gives.
 */
int cache_evict_blob_punch(CacheEvictBlob *blob, const CacheVictim *victims, size_t count, size_t *ret_evicted)
	_must_check_;

/*
 * When a decoded copy was used last, as far as the kernel notes that, in seconds since 1970; at most `now`. Has it note the next use, too. Errors: stat's.
 */
int cache_evict_copy_used(CacheStore *store, const Digest *diff_id, uint32_t now, uint32_t *ret_used) _must_check_;

/* Takes a decoded copy away, also from who has it open: he finds that at the next read (cache-decoded.h). Errors: -EOPNOTSUPP, unlink's. */
int cache_evict_copy(CacheStore *store, const Digest *diff_id) _must_check_;
