/* All of an image into the cache, and the proof that it is the image: `imgfs pull`. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "fs/base/error.h"
#include "fs/fetch/fetch-image.h"

/* Bytes of the image's blobs, indexes not included. */
typedef struct FetchPlan {
	uint64_t total;
	uint64_t present; /* in the cache */
	uint64_t copied;  /* not in it, but other blobs of the cache have them */
	uint64_t missing; /* to be fetched */
} FetchPlan;

/* What is there and what is not, by the cache's bitmaps. Errors: -EBADMSG, -ENOMEM, reading's, with a sentence. */
int fetch_pull_plan(const FetchImage *image, FetchPlan *ret_plan, Error *error) _must_check_;

typedef struct FetchPullOptions {
	CacheStore *decoded; /* fetch_pull_verify(): where to make decoded copies (cache-decoded.h); NULL: nowhere */
	int64_t timeout;     /* milliseconds without a byte after which it fails */
	/* How far it is, in bytes of the blobs, of plan.total; called from any thread, one at a time. May be NULL. */
	void (*progress)(void *arg, uint64_t done);
	/* What went wrong or right again meanwhile; as FetcherOptions.report. May be NULL. */
	void (*report)(void *arg, const char *sentence);
	/* Does nobody want it any more? Asked some five times a second, by the caller's thread. May be NULL. */
	bool (*given_up)(void *arg);
	void *arg;
} FetchPullOptions;

/*
 * Fetches or copies what is missing, and blocks until all is there. Stopped at any time, it goes on where it was. Errors, with a
 * sentence: -ETIMEDOUT (the source gives nothing), -ECANCELED (given up; what has come is kept), -EIO (the cache does not keep what it is given), -EBADMSG,
 * -ENOMEM.
 */
int fetch_pull(const FetchImage *image, const FetchPullOptions *options, Error *error) _must_check_;

/*
 * Decodes every layer from the cache and compares its diffID; a chunk that is rotten is fetched again. Makes
 * decoded copies meanwhile, where that is wanted and no sound one is there. Then waits until all is on the disk. Errors: as above,
 * -EBADMSG (another diffID: what the manifest says of the layer is wrong), -EIO (the cache has not kept all of it), what cache_decoded_writer_new() and _add() say.
 */
int fetch_pull_verify(const FetchImage *image, const FetchPullOptions *options, Error *error) _must_check_;
