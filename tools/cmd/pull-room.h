/* Room for what `imgfs pull` is about to put into the cache, within the cache's quota. */
#pragma once

#include "fs/fetch/fetch-pull.h"

/*
 * Evicts what was used longest ago until the image fits in beside the rest; nothing without a quota (0), but evictions that were killed are ended. `extra`: bytes it will take beside its blobs (decoded
 * copies). Blocks on the disk, and for another process that evicts. Nothing is evicted where that would not do. Errors, with a sentence: -ENOSPC (the image and what is
 * pinned or sealed are more than the quota), cache_evict()'s.
 */
int pull_make_room(CacheStore *cache, uint64_t quota, const FetchImage *image, const FetchPlan *plan, uint64_t extra,
		   const char *reference, Error *error) _must_check_;
