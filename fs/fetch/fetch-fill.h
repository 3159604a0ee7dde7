/*
 * The background fill: fetches or copies what blobs lack, proves their diffIDs and seals them (cache-seal.h), one blob at a time, on a thread of its
 * own, with what readers leave: it asks as FETCH_BACKGROUND, and rests while anybody in this process reads. One for all Fetchers of a process.
 * It keeps nothing in memory that matters: started again, it goes on from what the cache has.
 */
#pragma once

#include "fs/fetch/fetch.h"

typedef struct FetchFill FetchFill;

typedef struct FetchFillOptions {
	uint64_t rate; /* bytes a second from the network; 0: what others leave */
	int64_t retry; /* milliseconds before it tries again after the disk was full; 0: 10 s */
	/* What went right or wrong, for the log; from the fill's thread. `failed` tells which. May be NULL. */
	void (*report)(void *arg, bool failed, const char *sentence);
	void *report_arg;
} FetchFillOptions;

/* Starts the thread, with all signals blocked in it. Errors: -ENOMEM, pthread_create's. */
int fetch_fill_new(const FetchFillOptions *options, FetchFill **ret_fill) _must_check_;

/* Stops it and lets all blobs go; before their Fetchers are freed. Waits for a step under way at most, but a sync of the disk can take long. */
FetchFill *fetch_fill_free(FetchFill *fill);
DEFINE_CLEANUP(FetchFill, fetch_fill_free);

/* From the next piece on. */
void fetch_fill_set_rate(FetchFill *fill, uint64_t rate);

/*
 * Has a blob filled once those before it are. `seal_fd` (cache_seal_open()) becomes the fill's, also on failure. `diff_id` is copied. A blob without a source, or
 * with a cache that cannot be written to, is passed over. The blob's Fetcher must have been started. `copy_fd`, which becomes the fill's, too: a place
 * (cache_decoded_reserve()) where a decoded copy is made of what is sealed, which the blob then reads; -1: none is wanted. A blob that the fill has already stays
 * as it is, but for a copy that is wanted now and was not. Errors: -ENOMEM, -EBADF (no seal).
 */
int fetch_fill_add(FetchFill *fill, FetchBlob *blob, const Digest *diff_id, int seal_fd, int copy_fd) _must_check_;

/*
 * Lets a blob go, in whatever state, and waits for nobody: gone(arg) is called once the fill does not use it any more, before this returns or later by the fill's
 * thread, at the latest within fetch_fill_free(). Only then fetcher_remove_blob() may be called. A blob that the fill does not have is gone already.
 */
typedef void FetchFillGone(void *arg);
void fetch_fill_remove(FetchFill *fill, const FetchBlob *blob, FetchFillGone *gone, void *arg);

typedef enum FetchFillState {
	FETCH_FILL_NONE,     /* not in its hands */
	FETCH_FILL_QUEUED,   /* others come first */
	FETCH_FILL_FETCHING, /* or resting, while others read */
	FETCH_FILL_CHECKING, /* all is there; the diffID is being proven */
	FETCH_FILL_FULL,     /* the disk takes no more; tried again later */
	FETCH_FILL_SEALED,
	FETCH_FILL_WRONG, /* the layer has another diffID, or does not decode: the publisher's fault */
} FetchFillState;

FetchFillState fetch_fill_state(FetchFill *fill, const FetchBlob *blob);

/* How much of a blob is in the cache, in bytes of its frames. Any thread; looks at each chunk. */
void fetch_blob_present(const FetchBlob *blob, uint64_t *ret_present, uint64_t *ret_total);
