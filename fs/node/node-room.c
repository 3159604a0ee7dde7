/* Keeps the cache to its quota, and room on its disk: what the janitor of a private mount does, for all images of the node. */
#include <inttypes.h>
#include <sys/statvfs.h>
#include <time.h>

#include "fs/base/deadline.h"
#include "fs/base/log.h"
#include "fs/cache/cache-evict.h"
#include "fs/fetch/fetch-seal.h"
#include "fs/node/node-private.h"

#define INTERVAL      3   /* seconds between two looks */
#define PAUSE_MAX     60  /* and at most, while nothing more can go */
#define LOW_PART      64u /* of the disk: with less than that left it is full */
#define LOW_MAX       (64u << 20)
#define FREE_PART     16u /* of the disk: so much is made free then */
#define FREE_MAX      (256u << 20)
#define WARN_INTERVAL 60
#define STOP_SECONDS  5

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* How much has to be made free on the disk, whatever the quota. */
static uint64_t wanted_free(const Node *node)
{
	struct statvfs status;
	if (fstatvfs(cache_store_fd(node->cache), &status) < 0)
		return 0;
	uint64_t size = (uint64_t)status.f_blocks * status.f_frsize, left = (uint64_t)status.f_bavail * status.f_frsize;
	return left < least(size / LOW_PART, LOW_MAX) ? least(size / FREE_PART, FREE_MAX) : 0;
}

static void warn(struct timespec *again, const char *sentence)
{
	if (!deadline_is_over(again))
		return;
	*again = deadline_in((int64_t)WARN_INTERVAL * 1000);
	log_warning("%s", sentence);
}

/* Says whether nothing is left to do. `again`: when the next warning may come. */
static bool make_room(Node *node, uint64_t quota, struct timespec *again)
{
	CacheEvict options = { .quota = quota, .free = wanted_free(node) };
	CacheEvicted evicted = { 0 };
	Error error = { 0 };
	if (options.quota == 0 && options.free == 0 && !cache_evict_is_unfinished(node->cache))
		return true;
	fetch_seals_adopt(node->cache);
	if (cache_evict(node->cache, &options, &evicted, &error) < 0) {
		warn(again, error.message);
		return false;
	}
	if (evicted.chunks > 0)
		log_info("chunks were evicted chunks=%" PRIu64 " bytes=%" PRIu64 " full=%s", evicted.chunks,
			 evicted.before - evicted.after, options.free ? "yes" : "no");
	if (!evicted.busy && !evicted.enough)
		warn(again, "the cache stays larger than it may be: the rest is pinned, sealed or in use");
	return evicted.enough;
}

/* Until then, or until there is another quota, which `quota` is then. False: it is time to end. */
static bool pause_for(Node *node, unsigned seconds, uint64_t *quota)
{
	struct timespec until = deadline_in((int64_t)seconds * 1000);
	node_lock(node);
	while (!node->ending && node->defaults.settings.quota == *quota &&
	       pthread_cond_timedwait(&node->changed, &node->mutex, &until) == 0)
		;
	bool ending = node->ending;
	*quota = node->defaults.settings.quota;
	node_unlock(node);
	return !ending;
}

static void *keep_room(void *arg)
{
	Node *node = arg;
	struct timespec again = { 0 };
	unsigned pause = INTERVAL;
	uint64_t quota = 0;
	while (pause_for(node, pause, &quota)) {
		bool enough = make_room(node, quota, &again);
		pause = enough ? INTERVAL : (2 * pause < PAUSE_MAX ? 2 * pause : PAUSE_MAX);
	}
	return NULL;
}

int node_room_start(Node *node)
{
	int r = -pthread_create(&node->room, NULL, keep_room, node);
	node->is_keeping_room = r == 0;
	return r;
}

bool node_room_stop(Node *node)
{
	return node_thread_stop(node->room, &node->is_keeping_room, STOP_SECONDS);
}
