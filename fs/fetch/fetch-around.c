/*
 * What lies around a miss. On a long way who waits for a chunk waits for the round trip, not for the bytes, and the link could carry
 * many more of them meanwhile. What stands together in a tar is often used together, so that is asked for: it costs nobody time, and each miss that it
 * saves would have cost a round trip.
 */
#include "fs/fetch/fetch-private.h"

#define PATIENCE 60000

/* Is one of these chunks waited for, and not on its way yet? */
static bool is_missed(const FetchBlob *blob, uint32_t first, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		const FetchWant *want = blob->wants[first + i];
		if (want && want->class == FETCH_DEMAND && !want->range)
			return true;
	}
	return false;
}

/* The chunks that begin in the same stretch of the blob as this one does. Stretches are fixed, so that misses in one ask for it once. */
static uint32_t stretch_of(const ChunkTable *table, uint32_t chunk, uint64_t size, uint32_t *ret_count)
{
	Chunk one;
	chunk_table_get(table, chunk, &one);
	uint64_t from = one.blob_offset / size * size, to = from + size;
	uint32_t first = chunk_table_find_blob(table, from);
	uint32_t last = to < table->blob_size ? chunk_table_find_blob(table, to - 1) : table->count - 1;
	*ret_count = last - first + 1;
	return first;
}

void fetch_around(FetchBlob *blob, uint32_t first, uint32_t count)
{
	Fetcher *fetcher = blob->fetcher;
	uint64_t size = fetcher->pace.around;
	/* Only where the link would have nothing to do: several who miss at once, and a start-up profile, are not to wait for each other's neighbours. */
	if (size == 0 || !blob->url || count == 0 || fetcher->queues[FETCH_PROFILE].oldest ||
	    fetch_pace_under_way(fetcher) >= size || !is_missed(blob, first, count))
		return;
	uint32_t around, around_count;
	around = stretch_of(cache_blob_table(blob->cache), first, size, &around_count);
	FetchWait what = { .class = FETCH_PROFILE, .deadline = fetch_now() + PATIENCE };
	fetch_admit(blob, around, around_count, &what);
}
