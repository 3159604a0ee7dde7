/*
 * Making room in a cache, beside whoever reads and fills it: the chunks used longest ago go, by holes in their blobs' files, and decoded
 * copies used longest ago, whole, until the cache is within its quota. What is pinned or sealed never goes, nor what was used within the last seconds, which somebody may just be waiting
 * for. One process at a time evicts, the others go on meanwhile; how they find out is told in cache-present.h.
 */
#pragma once

#include <stdbool.h>

#include "fs/cache/cache-store.h"

typedef struct CacheEvict {
	uint64_t
		quota; /* bytes of all the cache on the disk; 0: any number. Once passed, a sixteenth below it is made free */
	uint64_t free; /* bytes to free whatever the quota, for a disk that is full */
	bool wait;     /* for another process that evicts; otherwise that is left to it */
} CacheEvict;

typedef struct CacheEvicted {
	uint64_t before, after; /* bytes on the disk */
	uint64_t chunks;        /* that went, a copy counted as one */
	uint64_t kept;          /* bytes of blobs that are pinned or sealed */
	bool busy;              /* another process evicts; nothing was done */
	bool enough;            /* as much went as was to go */
} CacheEvicted;

/*
 * Blocks on the disk. Killed at any moment it leaves nothing that is wrong; what it had begun is ended by the next eviction. Errors, with a sentence:
 * -EBADMSG (nobody knows what is pinned, cache_pins_list()), -EOPNOTSUPP (this file system has no holes), -ENOMEM, and what else the disk gives.
 */
int cache_evict(CacheStore *store, const CacheEvict *options, CacheEvicted *ret_evicted, Error *error) _must_check_;

/*
 * Keeps evictions away until the descriptor is closed. Errors: -EWOULDBLOCK (another process evicts, and this one does not want to wait), open's
 * (-EROFS...).
 */
int cache_evict_lock(CacheStore *store, bool wait, int *ret_fd) _must_check_;

/*
 * Was an eviction killed, or is one under way? What it had begun can be written by nobody, so that whoever looks after the cache evicts then even if
 * nothing is to be freed. Cheap: one stat().
 */
bool cache_evict_is_unfinished(CacheStore *store);
