/*
 * Private to the room: what a Fetcher is made of.
 *
 * A wait asks for a run of chunks. Each chunk of it that is missing has one FetchWant, shared by all waits for it through
 * FetchLinks. A want is either queued (in the Fetcher's queue, oldest first) or in flight (part of one FetchRange). A range is one
 * transfer; it may hold wants that nobody waits for: the gaps between wanted chunks, and those whose waits have ended.
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
	_Atomic uint8_t *rotten; /* any thread: a bit a chunk whose frame the disk did not give back as written */
	FetchWant **wants;       /* by chunk */
	size_t link_count;       /* of all its wants */
	FetchBackOff back_off;   /* of its source */
	bool failing;            /* the report was told so */
};

struct FetchLink {
	FetchWait *wait;
	FetchWant *want; /* NULL: nothing is missing (any more) */
	FetchLink *previous, *next;
};

struct FetchWant {
	FetchBlob *blob;
	uint32_t chunk;
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
	int64_t deadline;
	FetchDone *done;
	void *arg;
	_Atomic bool cancelled;     /* any thread */
	FetchWait *previous, *next; /* in the Fetcher's list of open or of incoming waits */
	FetchLink links[];
};

struct FetchRange {
	Fetcher *fetcher;
	FetchBlob *blob;       /* NULL: the slot is free */
	uint32_t cursor, last; /* the chunk that is arriving, and the last one */
	Chunk chunk;           /* that at the cursor */
	uint32_t filled;       /* bytes of its frame that have come */
	uint8_t *frame;        /* FORMAT_FRAME_MAX bytes; stays with the slot */
	int64_t started;
	NetTransfer *transfer;
};

/* What the report has been told, so that it hears little. */
typedef struct FetchTold {
	struct {
		int code;
		int64_t at;        /* 0: never */
	} failures[FETCH_REASONS]; /* each reason for itself, so that none hides another */
	int64_t disk_at;
} FetchTold;

struct Fetcher {
	FetcherOptions options;
	NetLoop *loop;
	NetAccess access;
	pthread_t thread;
	bool started;

	pthread_mutex_t mutex; /* of the next five, any thread */
	FetchBlob *blobs;
	FetchBlob *leaving;  /* to be let go by the network thread */
	pthread_cond_t left; /* one of them was */
	FetchWait *incoming; /* newest first */
	bool stopping;

	FetchWait *waits;           /* open */
	FetchWant *oldest, *newest; /* the queue */
	FetchRange *ranges;         /* options.connections slots */
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

/* fetch-want.c: waits, wants and the queue. */

/* Is the chunk in the cache or in memory? Any thread. */
bool fetch_at_hand(FetchBlob *blob, uint32_t chunk);

/* Opens a wait that has come in; ends it if nothing is missing. */
void fetch_wait_admit(FetchWait *wait);

/* Ends an open wait: calls done() and frees it. */
void fetch_wait_end(FetchWait *wait, int result);

/* Ends those whose time is over or which are cancelled. */
void fetch_wait_expire(Fetcher *fetcher, int64_t now);

/* The want of a chunk that has none yet, in flight in `range`. NULL when memory is out. */
FetchWant *fetch_want_new(FetchBlob *blob, uint32_t chunk, FetchRange *range);

/* Takes a queued want out of the queue and into `range`. */
void fetch_want_take(FetchWant *want, FetchRange *range);

/* Back from its range to the front of the queue, or away if nobody waits for it. */
void fetch_want_return(FetchWant *want);

/* The chunk is at hand: wakes who waits for it. The want is gone. */
void fetch_want_arrived(FetchWant *want);

/* fetch-range.c: transfers. */

/* Starts what can be started. Returns when to try again, or INT64_MAX. */
int64_t fetch_range_start_all(Fetcher *fetcher, int64_t now);

/* Cuts transfers nobody waits for any more. */
void fetch_range_cut_unwanted(Fetcher *fetcher);

/* Cuts those of a blob. */
void fetch_range_cut_blob(Fetcher *fetcher, const FetchBlob *blob);

/* fetch-report.c */

/*
 * Notes a failure and sets when to try again: 50 ms, doubled up to 2 s, with jitter, or after `wait` milliseconds, up to 10 s, if the
 * server has asked for that. `started`: when the attempt began.
 */
void fetch_back_off(FetchBackOff *back_off, int64_t started, int64_t wait);

/* `code`: the reason, a negative errno; one is told every 10 s at most. */
void fetch_report_failure(Fetcher *fetcher, FetchBlob *blob, int code, const char *sentence);
void fetch_report_success(Fetcher *fetcher, FetchBlob *blob);
void fetch_report_disk(Fetcher *fetcher, int code);
