#include <errno.h>
#include <string.h>

#include "fs/fetch/fetch-private.h"

#define RANGE_MAX (4u << 20)
#define GAP_MAX   (64u << 10)

/* Bounds of the time without progress after which a transfer is cut; in between a third of what is left to the deadline. */
#define STALL_MIN 500
#define STALL_MAX 5000

static bool bit_is_set(const _Atomic uint8_t *bits, uint32_t number)
{
	return atomic_load_explicit(&bits[number / 8], memory_order_relaxed) >> (number % 8) & 1;
}

/* Stores a verified frame where its readers will find it. */
static void keep_frame(FetchRange *range, const FetchWant *want)
{
	FetchBlob *blob = range->blob;
	Fetcher *fetcher = range->fetcher;
	if (cache_blob_has(blob->cache, range->cursor))
		return;
	int r = cache_blob_write(blob->cache, range->cursor, range->frame, range->chunk.blob_size);
	if (r < 0) {
		fetch_count(&fetcher->metrics->disk_failures, 1);
		fetch_report_disk(fetcher, r);
	}
	if ((r < 0 || bit_is_set(blob->rotten, range->cursor)) && want->links)
		fetch_recent_put(&fetcher->recent, blob->id, range->cursor, range->frame, range->chunk.blob_size);
}

static void end_chunk(FetchRange *range)
{
	FetchBlob *blob = range->blob;
	Fetcher *fetcher = range->fetcher;
	FetchWant *want = blob->wants[range->cursor];
	Digest digest;
	int r = digest_of(range->frame, range->chunk.blob_size, &digest);
	if (r == 0 && digest_equal(&digest, &range->chunk.digest)) {
		fetch_count(&fetcher->metrics->chunks, 1);
		blob->back_off = (FetchBackOff){ 0 };
		keep_frame(range, want);
		fetch_want_arrived(want);
		fetch_report_success(fetcher, blob);
		return;
	}
	/* The rest of the range may well be right: only this chunk is asked for again, after a while. */
	fetch_count(&fetcher->metrics->verify_failures, r == 0);
	fetch_count(&fetcher->metrics->retries, 1);
	fetch_report_failure(fetcher, blob, r < 0 ? r : -EBADMSG,
			     r < 0 ? error_text(NULL, r)
				   : "what came is not what the index says; the server's copy is corrupt");
	fetch_back_off(&want->back_off, range->started, 0);
	fetch_want_return(want);
}

static void set_cursor(FetchRange *range, uint32_t cursor)
{
	range->cursor = cursor;
	range->filled = 0;
	if (cursor <= range->last)
		chunk_table_get(cache_blob_table(range->blob->cache), cursor, &range->chunk);
}

static void on_data(void *arg, const uint8_t *data, size_t size)
{
	FetchRange *range = arg;
	fetch_count(&range->fetcher->metrics->bytes, size);
	while (size > 0 && range->cursor <= range->last) {
		size_t part = range->chunk.blob_size - range->filled;
		if (part > size)
			part = size;
		memcpy(range->frame + range->filled, data, part);
		range->filled += (uint32_t)part;
		data += part;
		size -= part;
		if (range->filled == range->chunk.blob_size) {
			end_chunk(range);
			set_cursor(range, range->cursor + 1);
		}
	}
}

/* Frees the slot; what has not come goes back to the queue, the lowest chunk first. */
static void release(FetchRange *range)
{
	for (uint32_t chunk = range->last + 1; chunk > range->cursor; chunk--) {
		FetchWant *want = range->blob->wants[chunk - 1];
		if (want) /* there is none where memory was out when the range was made */
			fetch_want_return(want);
	}
	range->blob = NULL;
	range->transfer = NULL;
}

static void on_end(void *arg, int result, const char *sentence, int64_t retry_after)
{
	FetchRange *range = arg;
	FetchMetrics *metrics = range->fetcher->metrics;
	if (result < 0) {
		fetch_count(&metrics->failures, 1);
		fetch_count(&metrics->retries, 1);
		fetch_back_off(&range->blob->back_off, range->started, retry_after);
		fetch_report_failure(range->fetcher, range->blob, result, sentence);
	} else {
		histogram_add(&metrics->seconds, (uint64_t)(fetch_now() - range->started) * 1000);
	}
	release(range);
}

/*
 * Takes chunks from `from` on, upward or downward, into the range while they are queued, over gaps of unwanted ones if
 * these are small. `size` is the length of the range so far.
 */
static uint32_t extend(FetchBlob *blob, FetchRange *range, uint32_t from, bool upward, uint64_t *size)
{
	const ChunkTable *table = cache_blob_table(blob->cache);
	uint32_t reached = from, next = from;
	uint64_t gap = 0;
	while (upward ? next + 1 < table->count : next > 0) {
		next = upward ? next + 1 : next - 1;
		Chunk chunk;
		chunk_table_get(table, next, &chunk);
		FetchWant *want = blob->wants[next];
		if ((want && want->range) || *size + gap + chunk.blob_size > RANGE_MAX)
			break;
		gap += chunk.blob_size;
		if (want) {
			fetch_want_take(want, range);
			*size += gap;
			gap = 0;
			reached = next;
		} else if (gap > GAP_MAX) {
			break;
		}
	}
	return reached;
}

/* Gives the unwanted chunks inside the range a want, so that who comes to want one joins. */
static int fill_gaps(FetchBlob *blob, FetchRange *range, uint32_t first, uint32_t last)
{
	for (uint32_t chunk = first; chunk <= last; chunk++)
		if (!blob->wants[chunk] && !fetch_want_new(blob, chunk, range))
			return -ENOMEM;
	return 0;
}

static int64_t stall_limit(const FetchWant *want, int64_t now)
{
	int64_t limit = STALL_MAX;
	for (const FetchLink *link = want->links; link; link = link->next)
		if ((link->wait->deadline - now) / 3 < limit)
			limit = (link->wait->deadline - now) / 3;
	return limit < STALL_MIN ? STALL_MIN : limit;
}

static int start(FetchRange *range, FetchWant *want, int64_t now)
{
	FetchBlob *blob = want->blob;
	int64_t stall = stall_limit(want, now);
	Chunk low, high;
	chunk_table_get(cache_blob_table(blob->cache), want->chunk, &low);
	uint64_t size = low.blob_size;
	fetch_want_take(want, range);
	uint32_t last = extend(blob, range, want->chunk, true, &size);
	uint32_t first = extend(blob, range, want->chunk, false, &size);
	chunk_table_get(cache_blob_table(blob->cache), first, &low);
	chunk_table_get(cache_blob_table(blob->cache), last, &high);

	range->blob = blob;
	range->started = now;
	range->last = last;
	set_cursor(range, first);
	if (!range->frame)
		range->frame = malloc(FORMAT_FRAME_MAX);
	NetRange transfer = {
		.url = blob->url,
		.offset = low.blob_offset,
		.size = high.blob_offset + high.blob_size - low.blob_offset,
		.stall = stall,
		.fresh = blob->back_off.failures > 0,
		.data = on_data,
		.end = on_end,
		.arg = range,
	};
	int r = fill_gaps(blob, range, first, last);
	if (r == 0)
		r = range->frame ? net_loop_start(range->fetcher->loop, &transfer, &range->transfer) : -ENOMEM;
	if (r == 0)
		fetch_count(&range->fetcher->metrics->requests, 1);
	return r;
}

static FetchRange *free_slot(Fetcher *fetcher)
{
	for (unsigned i = 0; i < fetcher->options.connections; i++)
		if (!fetcher->ranges[i].blob)
			return &fetcher->ranges[i];
	return NULL;
}

/* The oldest want that may be tried now. Otherwise says when one may. */
static FetchWant *pick(Fetcher *fetcher, int64_t now, int64_t *retry)
{
	for (FetchWant *want = fetcher->oldest; want; want = want->next) {
		int64_t at = want->blob->back_off.not_before;
		if (want->back_off.not_before > at)
			at = want->back_off.not_before;
		if (at <= now)
			return want;
		if (at < *retry)
			*retry = at;
	}
	return NULL;
}

int64_t fetch_range_start_all(Fetcher *fetcher, int64_t now)
{
	for (;;) {
		int64_t retry = INT64_MAX;
		FetchRange *range = free_slot(fetcher);
		FetchWant *want = range ? pick(fetcher, now, &retry) : NULL;
		if (!want)
			return retry;
		int r = start(range, want, now);
		if (r < 0)
			on_end(range, r, error_text(NULL, r), 0);
	}
}

static bool is_wanted(const FetchRange *range)
{
	for (uint32_t chunk = range->cursor; chunk <= range->last; chunk++)
		if (range->blob->wants[chunk]->links)
			return true;
	return false;
}

void fetch_range_cut_blob(Fetcher *fetcher, const FetchBlob *blob)
{
	for (unsigned i = 0; i < fetcher->options.connections; i++) {
		FetchRange *range = &fetcher->ranges[i];
		if (range->blob != blob)
			continue;
		net_loop_cut(fetcher->loop, range->transfer);
		release(range);
	}
}

void fetch_range_cut_unwanted(Fetcher *fetcher)
{
	if (!fetcher->loosened)
		return;
	fetcher->loosened = false;
	for (unsigned i = 0; i < fetcher->options.connections; i++) {
		FetchRange *range = &fetcher->ranges[i];
		if (!range->blob || range->cursor > range->last || is_wanted(range))
			continue;
		net_loop_cut(fetcher->loop, range->transfer);
		fetch_count(&fetcher->metrics->abandoned, 1);
		release(range);
	}
}
