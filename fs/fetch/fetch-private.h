/*
 * Private to the room: what a Fetcher is made of.
 *
 * A wait asks for a run of chunks. Each chunk of it that is missing has one FetchWant, shared by all waits for it through
 * FetchLinks. A want is either queued (in the Fetcher's queue of its class, oldest first) or in flight (part of one FetchRange). A range is
 * one transfer, of one run of chunks or of several; it may hold wants that nobody waits for: the gaps between wanted chunks, and those whose waits have ended. A want has the
 * class of the most urgent wait for it, a range that of the want it was started for.
 *
 * Everything is the network thread's but what says otherwise.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "fs/fetch/fetch-decoded.h"
#include "fs/fetch/fetch-recent.h"
#include "fs/fetch/fetch.h"
#include "fs/net/net-loop.h"

typedef struct FetchWant FetchWant;
typedef struct FetchLink FetchLink;
typedef struct FetchRange FetchRange;

#define FETCH_REASONS 16u

/* Files of other blobs; shared by the blobs of an image. Any thread. */
struct FetchDonors {
	_Atomic unsigned references;
	uint32_t id; /* of no other such object of this process */
	size_t count;
	int fds[];
};

/* When something that failed may be tried again. Zeroed: at once. */
typedef struct FetchBackOff {
	unsigned failures;
	int64_t failed_at;
	int64_t not_before;
	bool asked; /* the server has asked for it */
} FetchBackOff;

/* A file that is read in order (fetch-ahead.c); offsets are the tar's. */
typedef struct FetchAhead {
	_Atomic uint64_t follows; /* any thread: `tar_end` of the file that is followed here */
	uint64_t tar_end;
	uint64_t next;   /* where the furthest read has ended */
	uint64_t asked;  /* up to where was asked ahead */
	uint64_t window; /* how far ahead to ask; 0: not yet */
} FetchAhead;
#define FETCH_AHEAD_PLACES 8u

struct FetchBlob {
	Fetcher *fetcher;
	FetchBlob *next; /* in the Fetcher's list, or in that of blobs to be let go */
	bool gone;       /* the network thread has let it go; under the Fetcher's mutex */
	uint64_t id;     /* of no other blob of this process */
	FetchDonors *donors;
	CacheBlob *cache;
	char *url;
	_Atomic uint64_t
		*twins;  /* any thread: where a donor has the same frame (fetch-twins.h), by chunk; NULL: nowhere */
	uint8_t *packed; /* immutable, any thread: where donors have small files (fetch-packed.h) */
	size_t packed_count;
	CacheDecoded *_Atomic decoded; /* set once, any thread; NULL: there is none */
	_Atomic uint8_t *rotten;       /* any thread: a bit a chunk whose frame the disk did not give back as written */
	FetchWant **wants;             /* by chunk */
	pthread_mutex_t ahead_mutex;
	FetchAhead ahead[FETCH_AHEAD_PLACES]; /* under it, any thread */
	size_t demand_count;                  /* links of all its wants to waits of FETCH_DEMAND */
	FetchBackOff back_off;                /* of its source */
	FetchBackOff patience; /* the same for the other classes, whose failures demand does not wait for */
	int64_t *shunned;      /* by mirror: until when it is not asked for this blob, which it lacks or has wrong */
	int64_t origin_shunned;
	bool failing; /* the report was told so */
};

struct FetchLink {
	FetchWait *wait;
	FetchWant *want; /* NULL: nothing is missing (any more) */
	FetchLink *previous, *next;
};

struct FetchWant {
	FetchBlob *blob;
	uint32_t chunk;
	FetchClass class; /* where it is queued */
	FetchLink *links;
	FetchRange *range;          /* in flight in it, or NULL: queued */
	FetchWant *previous, *next; /* in the queue */
	FetchBackOff back_off;      /* of this chunk, when what came was corrupt */
};

struct FetchWait {
	FetchBlob *blob;
	uint32_t first;
	uint32_t count; /* of chunks, and of links */
	uint32_t missing;
	FetchClass class;
	int64_t deadline;
	FetchDone *done; /* NULL: nobody wants to know */
	void *arg;
	bool replay;                 /* of a start-up profile */
	_Atomic bool cancelled;      /* any thread */
	const _Atomic bool *dropped; /* the same, of several waits at once; outlives them; may be NULL */
	FetchWait *previous, *next;  /* in the Fetcher's list of open or of incoming waits */
	FetchLink links[];
};

/* A run of chunks. */
typedef struct FetchPart {
	uint32_t first, last;
} FetchPart;
#define FETCH_PARTS_MAX 64u        /* which imgfs serve gives at once */
#define FETCH_PARTS_GAP (8u << 10) /* and what lies between two parts at least, which no server joins */

/* A chunk of a range. */
typedef struct FetchCursor {
	unsigned part; /* that of the range with the chunk in it; its part_count: the end */
	uint32_t chunk;
} FetchCursor;

struct FetchRange {
	Fetcher *fetcher;
	FetchBlob *blob; /* NULL: the slot is free */
	FetchClass class;
	FetchPart parts[FETCH_PARTS_MAX]; /* ascending, apart */
	unsigned part_count;
	FetchCursor cursor; /* the chunk that is arriving */
	Chunk chunk;        /* that at the cursor */
	unsigned mirror;    /* who was asked: 0: the source itself, n: its n-th mirror */
	uint64_t size;      /* that was asked for */
	uint64_t received;  /* of it */
	uint32_t filled;    /* bytes of the chunk's frame that have come */
	uint8_t *frame;     /* FORMAT_FRAME_MAX bytes; stays with the slot */
	int64_t started;
	int64_t asked; /* microseconds, while nothing has come; then 0 */
	NetTransfer *transfer;
};

/* What the report has been told, so that it hears little. */
typedef struct FetchTold {
	struct {
		int code;
		int64_t at;        /* 0: never */
	} failures[FETCH_REASONS]; /* each reason for itself, so that none hides another */
	int64_t renewed_at;        /* when another login was asked for; 0: never */
	int64_t disk_at;
	int64_t decoded_at;
	uint64_t decoded_failures; /* how many were told */
} FetchTold;

typedef struct FetchQueue {
	FetchWant *oldest, *newest;
} FetchQueue;

/* One of Fetcher.access.mirrors, or the source itself (fetch-mirror.c). */
typedef struct FetchMirror {
	unsigned failures;
	int64_t not_before;
	uint64_t speed; /* bytes a second, as measured of late; 0: never */
	int64_t told_at;
	bool gives_parts;         /* it has answered a request for several ranges as it should */
	int64_t parts_not_before; /* when it may be asked for several: it is being tried, or has failed */
} FetchMirror;

/* What was measured of the way to the source, and when the lower classes may go on (fetch-pace.c). */
typedef struct FetchPace {
	int64_t round_trip; /* microseconds, the least of late; 0: not known */
	int64_t round_trip_at;
	uint64_t bandwidth; /* bytes a second, of all transfers together; 0: not known */
	int64_t window_at;  /* microseconds, since when bytes are counted; 0: nothing arrives */
	uint64_t window_bytes;
	int64_t demand_at;  /* milliseconds, when demand was seen last */
	int64_t held_since; /* since when the fill has had to wait; 0: it has not */
	uint64_t around;    /* bytes that are asked for around a miss; 0: the way is short */
} FetchPace;

struct Fetcher {
	FetcherOptions options;
	NetLoop *loop;
	NetAccess access;
	FetchMirror *mirrors, origin;
	pthread_t thread;
	bool started;

	pthread_mutex_t mutex; /* of the next five, any thread */
	FetchBlob *blobs;
	FetchBlob *leaving;  /* to be let go by the network thread */
	pthread_cond_t left; /* one of them was */
	FetchWait *incoming; /* newest first */
	bool stopping;

	FetchWait *waits; /* open */
	FetchQueue queues[FETCH_CLASSES];
	FetchRange *ranges; /* options.connections slots */
	FetchPace pace;
	_Atomic uint64_t ahead_max; /* any thread: how far reads in order are to be run ahead of; 0: not at all */
	_Atomic unsigned replays;   /* open waits of start-up profiles; any thread reads it */
	bool loosened;              /* a want in flight has lost its last wait */
	FetchTold told;
	FetchRecent recent;   /* any thread */
	FetchDecoded decoded; /* any thread */

	FetchMetrics *metrics; /* any thread; options.metrics, or the next */
	FetchMetrics own_metrics;
};

static inline void fetch_count(_Atomic uint64_t *counter, uint64_t by)
{
	(void)atomic_fetch_add_explicit(counter, by, memory_order_relaxed);
}

/* fetch-blobs.c: blobs that come and go. */

FetchBlob *fetch_blob_free(FetchBlob *blob);

/* Gives up what is asked for of the blobs in a list of fetcher_remove_blob(), and tells who waits for that. */
void fetch_blobs_let_go(Fetcher *fetcher, FetchBlob *leaving);

/*
 * fetch.c: hands a wait for some chunks to the network thread, with class, deadline, done, arg and dropped of `what`; fetch_wait() says the rest. Any
 * thread. Errors: -ENOMEM, -ECANCELED.
 */
int fetch_submit(FetchBlob *blob, uint32_t first, uint32_t count, const FetchWait *what) _must_check_;

/* fetch.c: the same of what nobody waits for, at once, from the network thread; without memory it does nothing. */
void fetch_admit(FetchBlob *blob, uint32_t first, uint32_t count, const FetchWait *what);

/* fetch-want.c: waits, wants and the queue. */

/* Is the chunk in the cache or in memory? Any thread. */
bool fetch_at_hand(FetchBlob *blob, uint32_t chunk);

/* Opens a wait that has come in; ends it if nothing is missing. */
void fetch_wait_admit(FetchWait *wait);

/* Ends an open wait: calls done() and frees it. */
void fetch_wait_end(FetchWait *wait, int result);

/* Ends those whose time is over or which are cancelled. */
void fetch_wait_expire(Fetcher *fetcher, int64_t now);

/* The want of a chunk that has none yet, in flight in `range` and of its class. NULL when memory is out. */
FetchWant *fetch_want_new(FetchBlob *blob, uint32_t chunk, FetchRange *range);

/* Takes a queued want out of the queue and into `range`. */
void fetch_want_take(FetchWant *want, FetchRange *range);

/* Back from its range to the front of the queue, or away if nobody waits for it. */
void fetch_want_return(FetchWant *want);

/* The chunk is at hand: wakes who waits for it. The want is gone. */
void fetch_want_arrived(FetchWant *want);

/* fetch-around.c: asks for what lies around chunks that somebody waits for, if the way is long and the link has room. */
void fetch_around(FetchBlob *blob, uint32_t first, uint32_t count);

/* fetch-range.c: transfers. */

/* Starts what can be started. Returns when to try again, or INT64_MAX. */
int64_t fetch_range_start_all(Fetcher *fetcher, int64_t now);

/* Cuts transfers nobody waits for any more. */
void fetch_range_cut_unwanted(Fetcher *fetcher);

/* Cuts those of a blob. */
void fetch_range_cut_blob(Fetcher *fetcher, const FetchBlob *blob);

/* fetch-pace.c: how much of each class may be in flight. */

/* Somebody reads; any thread. Has nobody for a while, in this process? */
void fetch_pace_touch(void);
bool fetch_pace_is_quiet(int64_t now);

void fetch_pace_sent(FetchRange *range);                  /* a range was asked for */
void fetch_pace_received(FetchRange *range, size_t size); /* bytes of it have come */
void fetch_pace_idle(Fetcher *fetcher);                   /* nothing is in flight any more */

/* How many ranges of all classes may be in flight, how long one of a class may be, and over which gap it joins chunks, in bytes. */
unsigned fetch_pace_connections(const Fetcher *fetcher);
uint64_t fetch_pace_range_max(const Fetcher *fetcher, FetchClass class);
uint64_t fetch_pace_gap_max(FetchClass class);

/* Bytes that are asked for and have not come. */
uint64_t fetch_pace_under_way(const Fetcher *fetcher);

/* How long a range of demand may become by what nobody reads yet. */
uint64_t fetch_pace_tail_max(const Fetcher *fetcher);

/* May another range of this class start now? If it is only too early for it, `retry` becomes the time when it may, if that is sooner. */
bool fetch_pace_allows(Fetcher *fetcher, FetchClass class, int64_t now, int64_t *retry);

/* The parts of one request for several ranges: how long together, and over which gap chunks are joined still, in bytes. */
uint64_t fetch_pace_parts_size(const Fetcher *fetcher, FetchClass class);

/* Would the rest of a range keep the link busy for longer than demand should wait? */
bool fetch_pace_hinders(const FetchRange *range);

/* fetch-report.c */

/*
 * Notes a failure and sets when to try again: 50 ms, doubled up to 2 s, with jitter, or after `wait` milliseconds, up to 10 s, if the
 * server has asked for that. `started`: when the attempt began.
 */
void fetch_back_off(FetchBackOff *back_off, int64_t started, int64_t wait);

/* `code`: the reason, a negative errno; one is told every 10 s at most. */
void fetch_report_failure(Fetcher *fetcher, FetchBlob *blob, int code, const char *sentence);
void fetch_report_success(Fetcher *fetcher, FetchBlob *blob);

/* A login was refused, of the source or of a mirror: whoever gave the access may have a newer one by now. */
void fetch_renew_login(Fetcher *fetcher);

void fetch_report_disk(Fetcher *fetcher, int code);

/* Tells of decoded copies that were not right since it was told last. */
void fetch_report_decoded(Fetcher *fetcher);

/* fetch-mirror.c: hosts that have the same blobs. */

/* The one to ask for a blob now: 0: the source itself, n: the n-th of Fetcher.access.mirrors. */
unsigned fetch_mirror_pick(const FetchBlob *blob, int64_t now);

/*
 * How many ranges a request to this one may have: several only where it has proved that it gives them (decision 7), or to let it prove that, one request
 * at a time. `ret_least`: fewer are not worth it.
 */
unsigned fetch_mirror_parts_max(const Fetcher *fetcher, unsigned mirror, int64_t now, unsigned *ret_least);

/* A transfer has begun, or was cut. */
void fetch_mirror_asked(const FetchRange *range);
void fetch_mirror_cut(const FetchRange *range);

/* A transfer ended; `result` as NetRange.end() has it. */
void fetch_mirror_ended(const FetchRange *range, int result, const char *sentence, int64_t retry_after);

/* What came was not what the index says. */
void fetch_mirror_lied(const FetchRange *range);
