#include "tools/cmd/pull-room.h"

#include <errno.h>

#include "fs/cache/cache-evict.h"
#include "fs/cache/cache-pins.h"
#include "fs/fetch/fetch-seal.h"
#include "tools/cmd/output.h"

static int too_large(const char *reference, uint64_t image, uint64_t kept, uint64_t quota, Error *error)
{
	char sizes[3][OUTPUT_SIZE_TEXT];
	return error_set(
		error, -ENOSPC,
		"%s takes %s, and %s are of images that are pinned or sealed: that is more than the cache's "
		"quota of %s. Give it a larger one (--quota, or quota in section [cache] of imgfs.conf), or let "
		"images go: imgfs cache ls, imgfs cache unpin",
		reference, output_size(image, sizes[0]), output_size(kept, sizes[1]), output_size(quota, sizes[2]));
}

int pull_make_room(CacheStore *cache, uint64_t quota, const FetchImage *image, const FetchPlan *plan, uint64_t extra,
		   const char *reference, Error *error)
{
	CacheEvict look = { .wait = true };
	CacheEvicted now = { 0 };
	uint64_t need = plan->missing + plan->copied + extra;
	if (quota == 0 || need == 0) {
		/* Chunks that an eviction left half-way, or a flipped bit made look so, could not be kept. What is in its way is told by the pull. */
		(void)!cache_evict(cache, &look, &now, NULL);
		return 0;
	}
	fetch_seals_adopt(cache);
	/* What is here of one that stays is counted among what stays. */
	bool protected =
		cache_pin_has(cache, CACHE_PIN, &image->manifest) || cache_pin_has(cache, CACHE_SEAL, &image->manifest);
	int r = cache_evict(cache, &look, &now, error); /* frees nothing, and says what stays */
	if (r < 0)
		return r;
	if (now.kept + (protected ? need : plan->total + extra) > quota)
		return too_large(reference, plan->total + extra, now.kept - (protected ? plan->present : 0), quota,
				 error);
	if (now.after + need <= quota)
		return 0;
	CacheEvict options = { .free = now.after + need - quota, .wait = true };
	/* What was used within the last seconds stays for now; whoever looks after the cache goes on from there. */
	return cache_evict(cache, &options, &now, error);
}
