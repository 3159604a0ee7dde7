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

static bool at_end(const FetchRange *range, FetchCursor at)
{
	return at.part >= range->part_count;
}

/* The range's next chunk. */
static FetchCursor next_of(const FetchRange *range, FetchCursor at)
{
	if (at.chunk < range->parts[at.part].last)
		return (FetchCursor){ .part = at.part, .chunk = at.chunk + 1 };
	at.part++;
	return (FetchCursor){ .part = at.part, .chunk = at_end(range, at) ? 0 : range->parts[at.part].first };
}

/* What is still to come of a range, the chunk that is arriving first. */
#define FOREACH_TO_COME(at, range) \
	for (FetchCursor at = (range)->cursor; !at_end((range), at); at = next_of((range), at))

/* Stores a verified frame where its readers will find it. */
static void keep_frame(FetchRange *range, const FetchWant *want)
{
	FetchBlob *blob = range->blob;
	Fetcher *fetcher = range->fetcher;
	uint32_t chunk = range->cursor.chunk;
	if (cache_blob_has(blob->cache, chunk))
		return;
	int r = cache_blob_write(blob->cache, chunk, range->frame, range->chunk.blob_size);
	if (r < 0 && r != -EBUSY) { /* busy: it is being evicted, which is no fault of the disk */
		fetch_count(&fetcher->metrics->disk_failures, 1);
		/* The fill says so by itself, once. */
		if (want->class != FETCH_BACKGROUND)
			fetch_report_disk(fetcher, r);
	}
	if ((r < 0 || bit_is_set(blob->rotten, chunk)) && want->links && want->class != FETCH_BACKGROUND)
		fetch_recent_put(&fetcher->recent, blob->id, chunk, range->frame, range->chunk.blob_size);
}

static void end_chunk(FetchRange *range)
{
	FetchBlob *blob = range->blob;
	Fetcher *fetcher = range->fetcher;
	FetchWant *want = blob->wants[range->cursor.chunk];
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

static void set_cursor(FetchRange *range, FetchCursor cursor)
{
	range->cursor = cursor;
	range->filled = 0;
	if (!at_end(range, cursor))
		chunk_table_get(cache_blob_table(range->blob->cache), cursor.chunk, &range->chunk);
}

static void on_data(void *arg, const uint8_t *data, size_t size)
{
	FetchRange *range = arg;
	fetch_count(&range->fetcher->metrics->bytes, size);
	fetch_pace_received(range, size);
	range->received += size;
	while (size > 0 && !at_end(range, range->cursor)) {
		size_t part = range->chunk.blob_size - range->filled;
		if (part > size)
			part = size;
		memcpy(range->frame + range->filled, data, part);
		range->filled += (uint32_t)part;
		data += part;
		size -= part;
		if (range->filled == range->chunk.blob_size) {
			end_chunk(range);
			set_cursor(range, next_of(range, range->cursor));
		}
	}
}

/* Chunks [from, last] go back to the queue, the lowest first. */
static void give_back(FetchRange *range, uint32_t from, uint32_t last)
{
	for (uint32_t chunk = last + 1; chunk > from; chunk--) {
		FetchWant *want = range->blob->wants[chunk - 1];
		if (want && want->range == range) /* it is not where memory was out when the range was made */
			fetch_want_return(want);
	}
}

/* Frees the slot; what has not come goes back to the queue. */
static void release(FetchRange *range)
{
	for (unsigned i = range->part_count; i > range->cursor.part; i--) {
		const FetchPart *part = &range->parts[i - 1];
		give_back(range, i - 1 == range->cursor.part ? range->cursor.chunk : part->first, part->last);
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
	FOREACH_TO_COME (at, range) {
		const FetchWant *want = range->blob->wants[at.chunk];
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
	/* Several ranges at once are not for this server: they are asked for one by one, and nothing has failed. */
	if (result == -EOPNOTSUPP) {
		release(range);
		return;
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

/* How a range may grow: up to `limit` bytes, over gaps of up to `gap_max`; it has `size` so far. */
typedef struct Growth {
	uint64_t limit, gap_max, size;
} Growth;

/*
 * Takes chunks from `from` on, upward or downward, into the range while they are queued and as urgent as it, over gaps of others if
 * these are small.
 */
static uint32_t extend(FetchRange *range, uint32_t from, bool upward, Growth *growth)
{
	FetchBlob *blob = range->blob;
	const ChunkTable *table = cache_blob_table(blob->cache);
	uint64_t gap = 0;
	uint32_t reached = from, next = from;
	while (upward ? next + 1 < table->count : next > 0) {
		next = upward ? next + 1 : next - 1;
		Chunk chunk;
		chunk_table_get(table, next, &chunk);
		FetchWant *want = blob->wants[next];
		if ((want && want->range) || growth->size + gap + chunk.blob_size > growth->limit)
			break;
		gap += chunk.blob_size;
		if (want && belongs(range, want, upward, growth->size + gap)) {
			fetch_want_take(want, range);
			growth->size += gap;
			gap = 0;
			reached = next;
		} else if (gap > growth->gap_max) {
			break;
		}
	}
	return reached;
}

static void extend_part(FetchRange *range, FetchPart *part, Growth *growth)
{
	part->last = extend(range, part->last, true, growth);
	part->first = extend(range, part->first, false, growth);
}

static void add_part(FetchRange *range, FetchWant *want, Growth *growth)
{
	Chunk chunk;
	FetchPart *part = &range->parts[range->part_count++];
	*part = (FetchPart){ .first = want->chunk, .last = want->chunk };
	chunk_table_get(cache_blob_table(range->blob->cache), want->chunk, &chunk);
	growth->size += chunk.blob_size;
	fetch_want_take(want, range);
	extend_part(range, part, growth);
}

/* The oldest want that may be asked for with a range, if there is room for it. */
static FetchWant *pick_more(const FetchRange *range, uint64_t room, int64_t now)
{
	Chunk chunk;
	FetchWant *want = range->fetcher->queues[range->class].oldest;
	while (want && (want->blob != range->blob || want->back_off.not_before > now))
		want = want->next;
	if (want)
		chunk_table_get(cache_blob_table(range->blob->cache), want->chunk, &chunk);
	return want && chunk.blob_size <= room ? want : NULL;
}

/* May a server join them? What lies between is not the range's. */
static bool are_near(const FetchRange *range, const FetchPart *low, const FetchPart *high)
{
	const ChunkTable *table = cache_blob_table(range->blob->cache);
	Chunk before, behind;
	chunk_table_get(table, low->last, &before);
	chunk_table_get(table, high->first, &behind);
	return behind.blob_offset - before.blob_offset - before.blob_size <= FETCH_PARTS_GAP;
}

/* Puts the parts in order, makes one of those that touch, and leaves out what stands too near to another: it comes with the next range. */
static void sort_parts(FetchRange *range)
{
	FetchPart *parts = range->parts;
	for (unsigned i = 1; i < range->part_count; i++) {
		FetchPart part = parts[i];
		unsigned to = i;
		for (; to > 0 && parts[to - 1].first > part.first; to--)
			parts[to] = parts[to - 1];
		parts[to] = part;
	}
	unsigned last = 0;
	for (unsigned i = 1; i < range->part_count; i++) {
		if (parts[i].first == parts[last].last + 1)
			parts[last].last = parts[i].last;
		else if (are_near(range, &parts[last], &parts[i]))
			give_back(range, parts[i].first, parts[i].last);
		else
			parts[++last] = parts[i];
	}
	range->part_count = last + 1;
}

/*
 * Takes what a range for this want is to have. What nobody waits for is asked for in several parts, without what lies between them and in the order in
 * which it is wanted, if the server gives that.
 */
static void gather(FetchRange *range, FetchWant *want, int64_t now)
{
	Fetcher *fetcher = range->fetcher;
	unsigned least = 1,
		 most = range->class == FETCH_DEMAND ? 1 : fetch_mirror_parts_max(fetcher, range->mirror, now, &least);
	Growth one = { .limit = fetch_pace_range_max(fetcher, range->class),
		       .gap_max = fetch_pace_gap_max(range->class) };
	Growth several = { .limit = fetch_pace_parts_size(fetcher, range->class), .gap_max = FETCH_PARTS_GAP };
	if (most == 1) {
		add_part(range, want, &one);
		return;
	}
	add_part(range, want, &several);
	one.size = several.size;
	while (range->part_count < most && several.size < several.limit &&
	       (want = pick_more(range, several.limit - several.size, now)))
		add_part(range, want, &several);
	if (range->part_count >= least) {
		sort_parts(range);
		return;
	}
	for (; range->part_count > 1; range->part_count--)
		give_back(range, range->parts[range->part_count - 1].first, range->parts[range->part_count - 1].last);
	extend_part(range, &range->parts[0], &one);
}

/* Takes the less urgent chunks inside the range as well, and gives the unwanted ones a want, so that who comes to want one joins. */
static int fill_gaps(FetchRange *range)
{
	FetchBlob *blob = range->blob;
	FOREACH_TO_COME (at, range) {
		FetchWant *want = blob->wants[at.chunk];
		if (!want && !fetch_want_new(blob, at.chunk, range))
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

/* Where the parts lie in the blob; returns how long they are together. */
static uint64_t spans_of(const FetchRange *range, NetSpan spans[static FETCH_PARTS_MAX])
{
	const ChunkTable *table = cache_blob_table(range->blob->cache);
	uint64_t sum = 0;
	for (unsigned i = 0; i < range->part_count; i++) {
		Chunk low, high;
		chunk_table_get(table, range->parts[i].first, &low);
		chunk_table_get(table, range->parts[i].last, &high);
		spans[i].offset = low.blob_offset;
		spans[i].size = high.blob_offset + high.blob_size - low.blob_offset;
		sum += spans[i].size;
	}
	return sum;
}

static int start(FetchRange *range, FetchWant *want, int64_t now)
{
	FetchBlob *blob = want->blob;
	NetSpan spans[FETCH_PARTS_MAX];
	int64_t stall = stall_limit(want, now);
	if (!range->frame)
		range->frame = malloc(FORMAT_FRAME_MAX);
	range->mirror = fetch_mirror_pick(blob, now);
	_cleanup_free_ char *url =
		range->mirror > 0 ? net_mirror_url(&range->fetcher->access.mirrors[range->mirror - 1], blob->url)
				  : NULL;
	if (!url)
		range->mirror = 0;
	range->blob = blob;
	range->class = want->class;
	range->started = now;
	range->part_count = 0;
	range->received = 0;
	gather(range, want, now);
	set_cursor(range, (FetchCursor){ .part = 0, .chunk = range->parts[0].first });
	range->size = spans_of(range, spans);
	NetRange transfer = {
		.url = url ?: blob->url,
		.mirror = range->mirror,
		.offset = spans[0].offset,
		.size = range->size,
		.spans = range->part_count > 1 ? spans : NULL,
		.span_count = range->part_count,
		.stall = stall,
		.fresh = range->mirror == 0 && (blob->back_off.failures > 0 || blob->patience.failures > 0),
		.data = on_data,
		.end = on_end,
		.arg = range,
	};
	int r = fill_gaps(range);
	if (r == 0)
		r = range->frame ? net_loop_start(range->fetcher->loop, &transfer, &range->transfer) : -ENOMEM;
	if (r < 0)
		return r;
	fetch_count(&range->fetcher->metrics->requests[range->class], 1);
	fetch_pace_sent(range);
	fetch_mirror_asked(range);
	return 0;
}

static void cut(FetchRange *range)
{
	net_loop_cut(range->fetcher->loop, range->transfer);
	fetch_count(&range->fetcher->metrics->abandoned[range->class], 1);
	fetch_mirror_cut(range);
	release(range);
}

/* Is it in flight, with something still to come that nobody is reading? */
static bool is_idle(const FetchRange *range)
{
	return range->blob && !at_end(range, range->cursor) && !is_demanded(range);
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
	FOREACH_TO_COME (at, range)
		if (range->blob->wants[at.chunk]->links)
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
		fetch_mirror_cut(range);
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
		if (!range->blob || at_end(range, range->cursor) || is_wanted(range))
			continue;
		cut(range);
	}
}
