/*
 * Making room in a cache, beside whoever reads and fills it: the chunks used longest ago go, each by a hole in its blob's file, until the cache
 * is within its quota. What is pinned or sealed never goes, nor what was used within the last seconds, which somebody may just be waiting
 * for. One process at a time evicts, the others go on meanwhile; how they find out is told in cache-present.h.
 */
#pragma once

#include "fs/cache/cache-store.h"

typedef struct CacheEvict {
	uint64_t
		quota; /* bytes on the disk that all of the cache may take; 0: any number. A sixteenth below it is made free once it is passed */
	uint64_t free; /* bytes to free whatever the quota, for a disk that is full */
	bool wait;     /* for another process that evicts; otherwise that is left to it */
} CacheEvict;

typedef struct CacheEvicted {
	uint64_t before, after; /* bytes on the disk */
	uint64_t chunks;        /* that went */
	uint64_t kept;          /* bytes of blobs that are pinned or sealed */
	bool busy;              /* another process evicts; nothing was done */
	bool enough;            /* as much went as was to go */
} CacheEvicted;

/*
 * Blocks on the disk. Killed at any moment it leaves nothing that is wrong; what it had begun is ended by the next eviction. Errors, with a sentence:
 * -EBADMSG (nobody knows what is pinned, cache_pins_list()), -EOPNOTSUPP (this file system has no holes), -ENOMEM, and what else the disk gives.
 */
int cache_evict(CacheStore *store, const CacheEvict *options, CacheEvicted *ret_evicted, Error *error) _must_check_;
