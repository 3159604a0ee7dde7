/*
 * Threads that take jobs from a queue. A thread is started when a job comes and none is free, up to a limit, and ends when it has had
 * nothing to do for a while: so a slow job holds up no other, and an idle process is small. Thread-safe.
 */
#pragma once

#include "fs/base/cleanup.h"

/* To be put into what the job is about. */
typedef struct WireJob {
	struct WireJob *prev, *next;
} WireJob;

typedef struct WirePool WirePool;

/* `run` does a job, on a thread of the pool. Errors: -ENOMEM, -EAGAIN. */
int wire_pool_new(unsigned threads_max, void (*run)(WireJob *job), WirePool **ret_pool) _must_check_;

/* Never blocks. A job always runs: the first thread stays for good. */
void wire_pool_add(WirePool *pool, WireJob *job);

/* Waits until every job has run. */
WirePool *wire_pool_free(WirePool *pool);
DEFINE_CLEANUP(WirePool, wire_pool_free);
