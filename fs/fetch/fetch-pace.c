#include <time.h>

#include "fs/fetch/fetch-private.h"

/* Ranges: long enough that the round trip between two does not count, short enough for what comes next. */
#define RANGE_MAX       (4u << 20)
#define FILL_MIN        (512u << 10)
#define FILL_MS         100u
#define DEMAND_GAP_MAX  (64u << 10)
#define PROFILE_GAP_MAX (96u << 10)
#define PARTS_SIZE      (2u << 20) /* of a profile: parts come by their places, not by their use */

#define CONNECTIONS_NEAR 8u
#define FAR_TRIP         5000         /* microseconds, from which more connections are used */
#define AROUND_TRIP      2000         /* and from which what stands around a miss is asked for */
#define STREAM_BYTES     (256u << 10) /* what one connection can be trusted to have under way */
#define AHEAD_FROM       (128u << 10) /* under way, from which reads in order are run ahead of */
#define AHEAD_MIN        (2u << 20)
#define AHEAD_MAX        (16u << 20)
#define TRIP_AGE         INT64_C(30000000) /* after which a round trip is measured anew */

#define WINDOW       50000 /* microseconds over which bytes are counted */
#define WINDOW_SHORT 2000  /* what is shorter says nothing */
#define WINDOW_BYTES (128u << 10)
#define HINDRANCE_MS 20u   /* that demand may find the link taken for */
#define QUIET        3000  /* milliseconds, fetch_set_quiet() */
#define HELD_MAX     60000 /* after which the fill goes on between readers who never rest */

/* When anybody in this process read last, milliseconds: a start goes on also while it finds all it needs. */
static _Atomic int64_t touched;
static _Atomic int64_t quiet = QUIET;

static int64_t now_us(void)
{
	struct timespec now;
	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

void fetch_pace_touch(void)
{
	struct timespec now;
	(void)clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	atomic_store_explicit(&touched, (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000, memory_order_relaxed);
}

void fetch_set_quiet(int64_t milliseconds)
{
	atomic_store(&quiet, milliseconds);
}

bool fetch_pace_is_quiet(int64_t now)
{
	return now - atomic_load_explicit(&touched, memory_order_relaxed) >= atomic_load(&quiet);
}

void fetch_pace_sent(FetchRange *range)
{
	range->asked = now_us();
}

/* The first bytes of a range: a round trip and what the server needed for it, sometimes a connection too. */
static void note_trip(FetchPace *pace, int64_t trip, int64_t now)
{
	if (pace->round_trip != 0 && trip > pace->round_trip && now - pace->round_trip_at < TRIP_AGE)
		return;
	pace->round_trip = trip > 0 ? trip : 1;
	pace->round_trip_at = now;
}

/*
 * What is asked for around a miss takes the link no longer than the round trip it may save. A power of two, the nearest below 4/3 of what fits under
 * way, so that it stays the same while that is measured again and again.
 */
static uint64_t around_of(uint64_t under_way)
{
	uint64_t size = RANGE_MAX;
	if (under_way < AHEAD_FROM)
		return 0;
	while (size * 3 / 4 > under_way)
		size /= 2;
	return size;
}

/* The kernel has up to a megabyte under way, but not all the time; on a short way that is enough. */
static void set_ahead(Fetcher *fetcher)
{
	FetchPace *pace = &fetcher->pace;
	uint64_t under_way = (uint64_t)pace->round_trip * pace->bandwidth / 1000000, most = 4 * under_way;
	if (most < AHEAD_MIN)
		most = AHEAD_MIN;
	if (most > AHEAD_MAX)
		most = AHEAD_MAX;
	atomic_store_explicit(&fetcher->ahead_max, under_way < AHEAD_FROM ? 0 : most, memory_order_relaxed);
	pace->around = pace->round_trip < AROUND_TRIP ? 0 : around_of(under_way);
}

static void end_window(FetchPace *pace, int64_t now, bool whole)
{
	int64_t elapsed = now - pace->window_at;
	if (pace->window_at == 0 || elapsed < WINDOW_SHORT || pace->window_bytes < WINDOW_BYTES)
		return;
	uint64_t measured = pace->window_bytes * 1000000 / (uint64_t)elapsed;
	if (measured > pace->bandwidth)
		pace->bandwidth = measured;
	else if (whole) /* a short one may have ended before the link was full */
		pace->bandwidth = (3 * pace->bandwidth + measured) / 4;
}

void fetch_pace_received(FetchRange *range, size_t size)
{
	FetchPace *pace = &range->fetcher->pace;
	int64_t now = now_us();
	if (range->asked != 0)
		note_trip(pace, now - range->asked, now);
	range->asked = 0;
	if (pace->window_at == 0) {
		pace->window_at = now;
		pace->window_bytes = 0;
		return;
	}
	pace->window_bytes += size;
	if (now - pace->window_at < WINDOW)
		return;
	end_window(pace, now, true);
	set_ahead(range->fetcher);
	pace->window_at = now;
	pace->window_bytes = 0;
}

void fetch_pace_idle(Fetcher *fetcher)
{
	end_window(&fetcher->pace, now_us(), false);
	set_ahead(fetcher);
	fetcher->pace.window_at = 0;
}

unsigned fetch_pace_connections(const Fetcher *fetcher)
{
	unsigned limit = fetcher->options.connections;
	return fetcher->pace.round_trip >= FAR_TRIP || limit < CONNECTIONS_NEAR ? limit : CONNECTIONS_NEAR;
}

uint64_t fetch_pace_range_max(const Fetcher *fetcher, FetchClass class)
{
	if (class != FETCH_BACKGROUND)
		return RANGE_MAX;
	uint64_t size = fetcher->pace.bandwidth * FILL_MS / 1000;
	if (size < FILL_MIN)
		size = FILL_MIN;
	return size > RANGE_MAX ? RANGE_MAX : size;
}

uint64_t fetch_pace_gap_max(FetchClass class)
{
	return class == FETCH_PROFILE ? PROFILE_GAP_MAX : DEMAND_GAP_MAX;
}

uint64_t fetch_pace_parts_size(const Fetcher *fetcher, FetchClass class)
{
	return class == FETCH_PROFILE ? PARTS_SIZE : fetch_pace_range_max(fetcher, class);
}

/* How many ranges keep the link full, and leave room for demand. */
static unsigned lower_max(const Fetcher *fetcher)
{
	const FetchPace *pace = &fetcher->pace;
	uint64_t under_way = (uint64_t)pace->round_trip * pace->bandwidth / 1000000;
	uint64_t count = 2 + under_way / STREAM_BYTES;
	unsigned connections = fetch_pace_connections(fetcher), most = connections > 3 ? connections - 2 : 1;
	return count < most ? (unsigned)count : most;
}

static unsigned lower_in_flight(const Fetcher *fetcher)
{
	unsigned count = 0;
	for (unsigned i = 0; i < fetcher->options.connections; i++)
		count += fetcher->ranges[i].blob && fetcher->ranges[i].class != FETCH_DEMAND;
	return count;
}

/* Is somebody waiting now, or will somebody soon? */
static bool is_busy(const Fetcher *fetcher)
{
	if (fetcher->queues[FETCH_PROFILE].oldest)
		return true;
	for (unsigned i = 0; i < fetcher->options.connections; i++)
		if (fetcher->ranges[i].blob && fetcher->ranges[i].class != FETCH_BACKGROUND)
			return true;
	return fetcher->queues[FETCH_DEMAND].oldest &&
	       fetcher->queues[FETCH_DEMAND].oldest->blob->back_off.failures == 0;
}

static int64_t last_reader(const Fetcher *fetcher)
{
	int64_t read = atomic_load_explicit(&touched, memory_order_relaxed);
	return read > fetcher->pace.demand_at ? read : fetcher->pace.demand_at;
}

static bool fill_allowed(Fetcher *fetcher, int64_t now, int64_t *retry)
{
	FetchPace *pace = &fetcher->pace;
	int64_t at = last_reader(fetcher) + atomic_load(&quiet);
	bool busy = is_busy(fetcher);
	if (!busy && now >= at) {
		pace->held_since = 0;
	} else {
		if (pace->held_since == 0)
			pace->held_since = now;
		/* Readers that never rest do not hold it for ever, but it goes slowly then. */
		if (busy || lower_in_flight(fetcher) > 0)
			return false;
		if (now - pace->held_since < HELD_MAX) {
			if (pace->held_since + HELD_MAX < at)
				at = pace->held_since + HELD_MAX;
			*retry = at < *retry ? at : *retry;
			return false;
		}
	}
	return true;
}

bool fetch_pace_allows(Fetcher *fetcher, FetchClass class, int64_t now, int64_t *retry)
{
	if (class == FETCH_DEMAND) {
		fetcher->pace.demand_at = now;
		return true;
	}
	if (lower_in_flight(fetcher) >= lower_max(fetcher))
		return false;
	return class == FETCH_PROFILE || fill_allowed(fetcher, now, retry);
}

/* Bytes of a range in flight that have not come. */
static uint64_t left_of(const FetchRange *range)
{
	return range->size - range->received;
}

uint64_t fetch_pace_under_way(const Fetcher *fetcher)
{
	uint64_t sum = 0;
	for (unsigned i = 0; i < fetcher->options.connections; i++)
		if (fetcher->ranges[i].blob)
			sum += left_of(&fetcher->ranges[i]);
	return sum;
}

uint64_t fetch_pace_tail_max(const Fetcher *fetcher)
{
	return fetcher->pace.around;
}

bool fetch_pace_hinders(const FetchRange *range)
{
	return left_of(range) * 1000 > range->fetcher->pace.bandwidth * HINDRANCE_MS;
}
