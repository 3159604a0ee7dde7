/*
 * Bytes of layers, wherever they are: from the cache, or fetched, verified and put into the cache. Single flight a
 * chunk; neighbouring misses become one range.
 *
 * Threads: one thread of the Fetcher's own does all network I/O. fetch_read() runs in any thread and never waits for the
 * network; fetch_wait() only queues. No lock is held across I/O or a callback.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "fs/base/error.h"
#include "fs/cache/cache-blob.h"
#include "fs/cache/cache-decoded.h"
#include "fs/fetch/fetch-metrics.h"

typedef struct Fetcher Fetcher;
typedef struct FetchBlob FetchBlob; /* owned by its Fetcher */
typedef struct FetchReader FetchReader;
typedef struct FetchWait FetchWait;

typedef struct FetcherOptions {
	unsigned connections; /* at once, to one host; 0 means 8, and 16 where the round trip is long */
	const char *access;   /* FetchImage.access of the image; copied; NULL: hosts are strangers */
	/* What went wrong or right again, for the log; called from the Fetcher's thread, already rate-limited. May be NULL. */
	void (*report)(void *arg, const char *sentence);
	void *report_arg;
	/* A login was refused. Another access for the same host, malloc'ed, or NULL: there is none yet. From the Fetcher's thread, now and then. May be NULL. */
	char *(*renew)(void *arg);
	void *renew_arg;
	FetchMetrics *metrics; /* where it counts; must outlive it; NULL: in itself */
} FetcherOptions;

/* Errors: -EBADMSG (`access` is of another version), -ENOMEM. */
int fetcher_new(const FetcherOptions *options, Fetcher **ret_fetcher) _must_check_;

/*
 * Stops the network thread; every wait still open ends with -ECANCELED, and no other can be opened. What is at hand can still be read.
 * May be called again.
 */
void fetcher_stop(Fetcher *fetcher);

/* Stops it and frees all, blobs too: nobody may be reading any more. */
Fetcher *fetcher_free(Fetcher *fetcher);
DEFINE_CLEANUP(Fetcher, fetcher_free);

/*
 * Adds a blob, at any time. `cache` becomes the Fetcher's, also on failure. `url` (copied) is where ranges are
 * asked for; NULL when there is no source but the cache. Errors: -ENOMEM.
 */
int fetcher_add_blob(Fetcher *fetcher, CacheBlob *cache, const char *url, FetchBlob **ret_blob) _must_check_;

/*
 * Takes a blob away, at any time, and frees it with its CacheBlob: nobody may be reading it any more. What is asked for of
 * it is given up (-ECANCELED). Waits for the Fetcher's thread, which never takes long; not from inside a FetchDone.
 */
void fetcher_remove_blob(FetchBlob *blob);

/*
 * Files in which frames can be found that the blobs of an image lack (FetchImage.donor_fds); each of these blobs keeps them open. The
 * descriptors become the object's unless this fails. Errors: -ENOMEM.
 */
typedef struct FetchDonors FetchDonors;
int fetch_donors_new(const int *fds, size_t count, FetchDonors **ret_donors) _must_check_;
FetchDonors *fetch_donors_unref(FetchDonors *donors);
DEFINE_CLEANUP(FetchDonors, fetch_donors_unref);

/*
 * Where they are (FetchLayerFiles.twins_fd, read at once), before anybody reads the blob. What donors give is checked before it is used.
 * Errors: -ENOMEM, read's.
 */
int fetch_blob_set_twins(FetchBlob *blob, FetchDonors *donors, int twins_fd) _must_check_;

/*
 * A decoded copy of the layer, which becomes the blob's: read from now on instead of the frames where it is sound, whatever of them is here. Any
 * thread, but only the first copy is taken; another one is freed.
 */
void fetch_blob_set_decoded(FetchBlob *blob, CacheDecoded *copy);

/* Starts the network thread, with all signals blocked in it. */
int fetcher_start(Fetcher *fetcher) _must_check_;

/* Scratch memory of one thread: LZ4 state and a frame. Not thread-safe. */
int fetch_reader_new(FetchReader **ret_reader) _must_check_;
FetchReader *fetch_reader_free(FetchReader *reader);

/* What fetch_read() has counted with this reader since the caller zeroed it. */
FetchTally *fetch_reader_tally(FetchReader *reader);
DEFINE_CLEANUP(FetchReader, fetch_reader_free);

/*
 * Copies `size` bytes of the layer's tar from `tar_offset` to `buffer` if the cache or donors have them all, decoded or not. The range must be inside
 * the tar. Blocks on the disk at most. Returns 0, or -EAGAIN when a chunk is absent (call fetch_wait() and then this
 * again), or -EIO when a chunk is absent and can come from nowhere or its frame is the right one but does not decode, or -EINVAL
 * (not inside the tar), or -ENOMEM.
 */
int fetch_read(FetchBlob *blob, FetchReader *reader, uint64_t tar_offset, uint64_t size, void *buffer) _must_check_;

/*
 * Asks for the chunks that hold [tar_offset, tar_offset + size) and calls done(arg, result) exactly once, from the Fetcher's
 * thread, never from inside this call: result 0 when all have arrived, -ETIMEDOUT when `deadline` (CLOCK_MONOTONIC, milliseconds) has
 * passed, -EINTR after fetch_cancel(), -ECANCELED when the Fetcher ends, -EIO when a chunk can come from nowhere, -ENOMEM. done() must
 * not block. `ret_wait` stays valid until done() was called. Errors: -EINVAL (not inside the tar), -ENOMEM, -ECANCELED (the
 * Fetcher is ending); done() is not called then.
 */
typedef void FetchDone(void *arg, int result);
int fetch_wait(FetchBlob *blob, uint64_t tar_offset, uint64_t size, int64_t deadline, FetchDone *done, void *arg,
	       FetchWait **ret_wait) _must_check_;

/*
 * Asks for chunks that nobody reads yet, in this order, as FETCH_PROFILE or FETCH_BACKGROUND, and returns at once. What is at hand, on its
 * way, or in a donor is passed over; neighbours become one range, over gaps of unwanted chunks up to 96 KiB, or what is
 * wanted alone becomes several ranges of one request, where the host has proved that it gives these. While those of FETCH_PROFILE are on their way, no reads are run ahead of. Whoever comes to read a chunk
 * of them has it put before all others. After `patience` milliseconds without it a chunk is given up (INT64_MAX: never).
 * Errors: -EINVAL (no such chunk, no such class), -ENOMEM, -ECANCELED; what came before in the list may then be asked for already.
 */
int fetch_prefetch(FetchBlob *blob, FetchClass class, const uint32_t *chunks, size_t count, int64_t patience)
	_must_check_;

/* The same for the chunks that hold a part of the layer's tar. Errors: as above; -EINVAL also: not inside the tar. */
int fetch_prefetch_range(FetchBlob *blob, FetchClass class, uint64_t tar_offset, uint64_t size, int64_t patience)
	_must_check_;

/*
 * Takes note of a read of [tar_offset, tar_offset + size) in a file whose bytes end at `tar_end`, and asks for what follows in it if the file is
 * read in order and the way to the source is so long that the kernel's own read-ahead cannot keep it busy. `missed`: something was not at hand.
 * Returns at once. Any thread.
 */
void fetch_read_ahead(FetchBlob *blob, uint64_t tar_offset, uint64_t size, uint64_t tar_end, bool missed);

/* Makes an open wait end soon with -EINTR. The caller makes sure that done() was not called yet. */
void fetch_cancel(Fetcher *fetcher, FetchWait *wait);

/*
 * How long nobody in this process must have read, in milliseconds, before FETCH_BACKGROUND goes on: a start pauses, too. 3 s unless set. Any
 * thread.
 */
void fetch_set_quiet(int64_t milliseconds);

/* The clock of deadlines: CLOCK_MONOTONIC in milliseconds. */
int64_t fetch_now(void);

/* Counters since the start; any thread. */
typedef struct FetchCounters {
	uint64_t requests;
	uint64_t bytes;  /* body bytes received */
	uint64_t chunks; /* fetched and verified */
	uint64_t copies; /* chunks copied from donors */
	uint64_t retries;
	uint64_t verify_failures;
	uint64_t decoded_failures; /* reads for which a decoded copy was there, but not as it was written */
} FetchCounters;
void fetcher_counters(Fetcher *fetcher, FetchCounters *ret_counters);
