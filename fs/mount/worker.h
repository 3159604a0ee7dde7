/*
 * What a thread that answers requests owns: a reply buffer, scratch memory for decoding, and the journal slot of the
 * request it is at. Replies come from the buffer only: memory just written, present and locked, since the kernel cannot copy from a missing
 * page when the process is being killed. A buffer starts small and grows with what is asked for: a node may have many mounts from each of which
 * little is read.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "fs/fetch/fetch.h"
#include "fs/mount/handshake.h"
#include "fs/mount/journal.h"

#define WORKER_BUFFER_SIZE HANDSHAKE_READ_MAX
#define WORKER_NO_SLOT     UINT32_MAX

typedef struct Worker {
	uint8_t *buffer;     /* WORKER_BUFFER_SIZE; worker_buffer() gives it out */
	size_t buffer_ready; /* so much of it is present and locked */
	FetchReader *reader;
	Journal *journal; /* with the request that the thread is at, and its slot there; NULL: it is at none */
	unsigned at;
	unsigned slot; /* WORKER_NO_SLOT: none, or somebody else answers the request */
} Worker;

/* Errors: -ENOMEM. */
int worker_init(Worker *worker) _must_check_;
void worker_done(Worker *worker); /* safe on a zeroed one */

/* The reply buffer, ready for `size` bytes, at most WORKER_BUFFER_SIZE; where it is, and what is in it, stays. By the thread that owns the worker. */
uint8_t *worker_buffer(Worker *worker, size_t size);

/* The worker of the calling thread. */
Worker *worker_current(void);
void worker_set_current(Worker *worker);
