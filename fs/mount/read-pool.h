/*
 * Reads of all connections that have to wait for the network. They keep no thread: the fetcher calls back when the bytes have arrived, and one of
 * a few threads reads again and replies.
 *
 * A signal interrupts only a reader that is being killed: an EINTR for anybody else would surface as a failed read or, on a
 * mapping, as SIGBUS in a process that merely got a timer signal.
 */
#pragma once

#include <stdint.h>

#include "fs/mount/fuse-api.h"
#include "fs/mount/journal.h"
#include "fs/mount/mount-image.h"
#include "fs/mount/server-metrics.h"

typedef struct ReadPool ReadPool;

typedef struct ReadRequest {
	fuse_req_t request;
	Journal *journal; /* of its connection */
	MountImage *image;
	uint32_t inode;
	uint64_t offset;
	uint32_t size; /* from mount_image_read_size() */
	int64_t began; /* shared_memory_clock() */
	StartTrace trace;
} ReadRequest;

/* Counts and records a read that has been answered, with what it used and 0 or a negative errno. */
void read_request_answered(ReadPool *pool, ReadRequest *request, const FetchTally *tally, int error);

/* Starts the threads, with all signals blocked in them. `metrics` must outlive them. Errors: -ENOMEM, pthread_create's. */
int read_pool_new(ServerMetrics *metrics, ReadPool **ret_pool) _must_check_;

/*
 * Ends the threads. Call after the fetchers have stopped and with them every wait, but before they are freed; reads not answered by then keep their slots
 * and are the successor's.
 */
ReadPool *read_pool_free(ReadPool *pool);
DEFINE_CLEANUP(ReadPool, read_pool_free);

/*
 * Takes over a read of the calling thread's worker that lacks `missing`, with a reference to its image: parks its slot and replies
 * exactly once, at the image's deadline at the latest. May wait for a slot to become free.
 */
void read_pool_add(ReadPool *pool, ReadRequest *request, const MountMissing *missing);

/* Replies that the bytes cannot be had (`error`: negative errno), and logs it, at most once a second. */
void read_pool_fail(ReadPool *pool, const ReadRequest *request, int error);

/* Some request was interrupted: looks whether one of the readers is being killed. */
void read_pool_interrupt(ReadPool *pool);
