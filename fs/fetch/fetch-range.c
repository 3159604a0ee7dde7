#include <errno.h>
#include <string.h>

#include "fs/fetch/fetch-private.h"

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
	if (r < 0 && r != -EBUSY) { /* busy: it is being evicted, which is no fault of the disk */
		fetch_count(&fetcher->metrics->disk_failures, 1);
		/* The fill says so by itself, once. */
		if (want->class != FETCH_BACKGROUND)
			fetch_report_disk(fetcher, r);
	}
	if ((r < 0 || bit_is_set(blob->rotten, range->cursor)) && want->links && want->class != FETCH_BACKGROUND)
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
		if (range->mirror == 0) {
			blob->back_off = (FetchBackOff){ 0 };
			blob->patience = (FetchBackOff){ 0 };
		}
		keep_frame(range, want);
		fetch_want_arrived(want);
		if (range->mirror == 0)
			fetch_report_success(fetcher, blob);
		return;
	}
	/* The rest of the range may well be right: only this chunk is asked for again, after a while. */
	fetch_count(&fetcher->metrics->verify_failures, r == 0);
	fetch_count(&fetcher->metrics->retries, 1);
	if (r == 0)
		fetch_mirror_lied(range);
	if (r == 0 && range->mirror > 0) { /* another is asked, at once */
		fetch_want_return(want);
		return;
	}
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
	fetch_pace_received(range, size);
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
		if (want && want->range == range) /* it is not where memory was out when the range was made */
			fetch_want_return(want);
	}
	range->blob = NULL;
	range->transfer = NULL;
	for (unsigned i = 0; i < range->fetcher->options.connections; i++)
		if (range->fetcher->ranges[i].blob)
			return;
	fetch_pace_idle(range->fetcher);
}

/* Is somebody reading what is still to come of a range? */
static bool is_demanded(const FetchRange *range)
{
	for (uint32_t chunk = range->cursor; chunk <= range->last; chunk++) {
		const FetchWant *want = range->blob->wants[chunk];
		if (want && want->links && want->class == FETCH_DEMAND)
			return true;
	}
	return false;
}

static void on_end(void *arg, int result, const char *sentence, int64_t retry_after)
{
	FetchRange *range = arg;
	FetchMetrics *metrics = range->fetcher->metrics;
	fetch_mirror_ended(range, result, sentence, retry_after);
	if (result < 0) {
		fetch_count(&metrics->failures[range->class], 1);
		fetch_count(&metrics->retries, 1);
	}
	if (result < 0 && range->mirror == 0) {
		fetch_back_off(&range->blob->patience, range->started, retry_after);
		if (range->class == FETCH_DEMAND || is_demanded(range) || retry_after > 0)
			fetch_back_off(&range->blob->back_off, range->started, retry_after);
		fetch_report_failure(range->fetcher, range->blob, result, sentence);
	} else if (result == 0) {
		histogram_add(&metrics->seconds[range->class], (uint64_t)(fetch_now() - range->started) * 1000);
	}
	release(range);
}

/*
 * Does a queued chunk belong in a range that would be `size` bytes long with it? Demand takes what will be wanted behind its own along, which
 * saves a request and makes nobody wait.
 */
static bool belongs(const FetchRange *range, const FetchWant *want, bool upward, uint64_t size)
{
	if (want->class <= range->class)
		return true;
	return upward && range->class == FETCH_DEMAND && want->class == FETCH_PROFILE &&
	       size <= fetch_pace_tail_max(range->fetcher);
}

/*
 * Takes chunks from `from` on, upward or downward, into the range while they are queued and as urgent as it, over gaps of others if
 * these are small. `size` is the length of the range so far.
 */
static uint32_t extend(FetchBlob *blob, FetchRange *range, uint32_t from, bool upward, uint64_t *size)
{
	const ChunkTable *table = cache_blob_table(blob->cache);
	uint64_t limit = fetch_pace_range_max(range->fetcher, range->class), gap = 0;
	uint32_t reached = from, next = from;
	while (upward ? next + 1 < table->count : next > 0) {
		next = upward ? next + 1 : next - 1;
		Chunk chunk;
		chunk_table_get(table, next, &chunk);
		FetchWant *want = blob->wants[next];
		if ((want && want->range) || *size + gap + chunk.blob_size > limit)
			break;
		gap += chunk.blob_size;
		if (want && belongs(range, want, upward, *size + gap)) {
			fetch_want_take(want, range);
			*size += gap;
			gap = 0;
			reached = next;
		} else if (gap > fetch_pace_gap_max(range->class)) {
			break;
		}
	}
	return reached;
}

/* Takes the less urgent chunks inside the range as well, and gives the unwanted ones a want, so that who comes to want one joins. */
static int fill_gaps(FetchBlob *blob, FetchRange *range, uint32_t first, uint32_t last)
{
	for (uint32_t chunk = first; chunk <= last; chunk++) {
		FetchWant *want = blob->wants[chunk];
		if (!want && !fetch_want_new(blob, chunk, range))
			return -ENOMEM;
		if (want && !want->range)
			fetch_want_take(want, range);
	}
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
	range->class = want->class;
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
	range->mirror = fetch_mirror_pick(blob, now);
	range->size = high.blob_offset + high.blob_size - low.blob_offset;
	_cleanup_free_ char *url =
		range->mirror > 0 ? net_mirror_url(&range->fetcher->access.mirrors[range->mirror - 1], blob->url)
				  : NULL;
	if (!url)
		range->mirror = 0;
	NetRange transfer = {
		.url = url ?: blob->url,
		.mirror = range->mirror,
		.offset = low.blob_offset,
		.size = range->size,
		.stall = stall,
		.fresh = range->mirror == 0 && (blob->back_off.failures > 0 || blob->patience.failures > 0),
		.data = on_data,
		.end = on_end,
		.arg = range,
	};
	int r = fill_gaps(blob, range, first, last);
	if (r == 0)
		r = range->frame ? net_loop_start(range->fetcher->loop, &transfer, &range->transfer) : -ENOMEM;
	if (r < 0)
		return r;
	fetch_count(&range->fetcher->metrics->requests[range->class], 1);
	fetch_pace_sent(range);
	return 0;
}

static void cut(FetchRange *range)
{
	net_loop_cut(range->fetcher->loop, range->transfer);
	fetch_count(&range->fetcher->metrics->abandoned[range->class], 1);
	release(range);
}

/* Is it in flight, with something still to come that nobody is reading? */
static bool is_idle(const FetchRange *range)
{
	return range->blob && range->cursor <= range->last && !is_demanded(range);
}

/* Demand has to have a slot: the least urgent range gives up its own. */
static FetchRange *make_room(Fetcher *fetcher)
{
	FetchRange *found = NULL;
	for (unsigned i = 0; i < fetcher->options.connections; i++) {
		FetchRange *range = &fetcher->ranges[i];
		if (is_idle(range) && (!found || range->class > found->class))
			found = range;
	}
	if (found)
		cut(found);
	return found;
}

static FetchRange *free_slot(Fetcher *fetcher, FetchClass class)
{
	unsigned used = 0;
	FetchRange *found = NULL;
	for (unsigned i = 0; i < fetcher->options.connections; i++) {
		if (fetcher->ranges[i].blob)
			used++;
		else if (!found)
			found = &fetcher->ranges[i];
	}
	if (found && used < fetch_pace_connections(fetcher))
		return found;
	return class == FETCH_DEMAND ? make_room(fetcher) : NULL;
}

/* Has the fill leave the link to demand, but for what will have come in a moment. */
static void cut_fill(Fetcher *fetcher)
{
	for (unsigned i = 0; i < fetcher->options.connections; i++) {
		FetchRange *range = &fetcher->ranges[i];
		if (range->class == FETCH_BACKGROUND && is_idle(range) && fetch_pace_hinders(range))
			cut(range);
	}
}

/* When a want may be tried. */
static int64_t start_time(const FetchWant *want, int64_t now)
{
	int64_t at = want->blob->back_off.not_before;
	if (fetch_mirror_pick(want->blob, now) > 0)
		return want->back_off.not_before;
	if (want->class != FETCH_DEMAND && want->blob->patience.not_before > at)
		at = want->blob->patience.not_before;
	return want->back_off.not_before > at ? want->back_off.not_before : at;
}

/* The oldest want that may be tried now. Otherwise says when one may. */
static FetchWant *pick(Fetcher *fetcher, FetchClass class, int64_t now, int64_t *retry)
{
	for (FetchWant *want = fetcher->queues[class].oldest; want; want = want->next) {
		int64_t at = start_time(want, now);
		if (at <= now)
			return want;
		if (at < *retry)
			*retry = at;
	}
	return NULL;
}

static void start_class(Fetcher *fetcher, FetchClass class, int64_t now, int64_t *retry)
{
	while (fetcher->queues[class].oldest && fetch_pace_allows(fetcher, class, now, retry)) {
		FetchWant *want = pick(fetcher, class, now, retry);
		FetchRange *range = want ? free_slot(fetcher, class) : NULL;
		if (!range)
			return;
		if (class == FETCH_DEMAND)
			cut_fill(fetcher);
		int r = start(range, want, now);
		if (r < 0)
			on_end(range, r, error_text(NULL, r), 0);
	}
}

int64_t fetch_range_start_all(Fetcher *fetcher, int64_t now)
{
	int64_t retry = INT64_MAX;
	for (unsigned class = FETCH_DEMAND; class < FETCH_CLASSES; class ++)
		start_class(fetcher, (FetchClass) class, now, &retry);
	return retry;
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
		cut(range);
	}
}
