#include "fs/base/bytes.h"
#include "fs/fetch/fetch-private.h"

#define WINDOW_FIRST (1u << 20)
#define NEARBY       (1u << 20) /* reads of one sequence arrive in any order within this */
#define PATIENCE     60000

/*
 * How a file is read, known by where it ends in the tar: nothing else ends there. A few of each blob, so that several readers in order do not
 * disturb each other; who shares a place with another loses his read-ahead and begins anew.
 */
static FetchAhead *place_of(FetchBlob *blob, uint64_t tar_end)
{
	return &blob->ahead[(tar_end * UINT64_C(0x9e3779b97f4a7c15)) >> 61];
}

/* Takes note of a read. Says what to ask for now; 0 bytes: nothing. Under the blob's lock. */
static uint64_t advance(FetchAhead *ahead, uint64_t offset, uint64_t size, uint64_t tar_end, uint64_t most,
			uint64_t *ret_from)
{
	bool in_order = ahead->tar_end == tar_end && offset + NEARBY >= ahead->next && offset <= ahead->next + NEARBY;
	if (!in_order)
		*ahead = (FetchAhead){ .tar_end = tar_end };
	uint64_t end = offset + size;
	ahead->next = end > ahead->next ? end : ahead->next;
	if (!in_order)
		return 0;
	if (ahead->window == 0)
		ahead->window = WINDOW_FIRST;
	uint64_t from = ahead->asked > ahead->next ? ahead->asked : ahead->next;
	/* Half of what was asked for is still to come: that is enough under way. */
	if (from >= tar_end || from - ahead->next > ahead->window / 2)
		return 0;
	uint64_t room = tar_end - from, length = ahead->window < room ? ahead->window : room;
	ahead->asked = from + length;
	ahead->window = 2 * ahead->window < most ? 2 * ahead->window : most;
	*ret_from = from;
	return length;
}

void fetch_read_ahead(FetchBlob *blob, uint64_t tar_offset, uint64_t size, uint64_t tar_end, bool missed)
{
	uint64_t most = atomic_load_explicit(&blob->fetcher->ahead_max, memory_order_relaxed), from = 0;
	FetchAhead *ahead = place_of(blob, tar_end);
	/* Whoever has all he reads is not followed, but for one who was a moment ago. While a start-up profile comes, that says what is read next. */
	if (most == 0 || atomic_load_explicit(&blob->fetcher->replays, memory_order_relaxed) > 0 || !blob->url ||
	    size == 0 || !range_within(tar_offset, size, tar_end) ||
	    (!missed && atomic_load_explicit(&ahead->follows, memory_order_relaxed) != tar_end))
		return;
	(void)pthread_mutex_lock(&blob->ahead_mutex);
	uint64_t length = advance(ahead, tar_offset, size, tar_end, most, &from);
	atomic_store_explicit(&ahead->follows, tar_end, memory_order_relaxed);
	(void)pthread_mutex_unlock(&blob->ahead_mutex);
	/* It is a help only: without memory the reads themselves ask. */
	if (length > 0 && fetch_prefetch_range(blob, FETCH_PROFILE, from, length, PATIENCE) < 0)
		return;
}
