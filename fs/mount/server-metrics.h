/*
 * What a server counts beside the records of its images: in shared memory that outlives it, so that numbers only ever rise. One a private
 * mount, one for all images of a daemon.
 */
#pragma once

#include "fs/fetch/fetch-metrics.h"
#include "fs/mount/shared-memory.h"

#define SERVER_METRICS_NAME    "imgfs-metrics" /* of the memfd */
#define SERVER_METRICS_MAGIC   0x74656d69u
#define SERVER_METRICS_VERSION 1u

typedef struct ServerMetrics {
	SharedHead head;
	_Atomic uint64_t servers;    /* started so far: one, and one a takeover */
	_Atomic uint64_t taken_over; /* requests that a predecessor had left */
	Histogram at_once;           /* reads answered without waiting */
	Histogram waited;            /* reads that waited for the network */
	FetchMetrics fetch;
} ServerMetrics;

int server_metrics_create(int *ret_fd) _must_check_;

/* For a server. `fd` -1, or one of another version: memory of its own. Errors: -ENOMEM. */
int server_metrics_open(int fd, ServerMetrics **ret_metrics) _must_check_;
void server_metrics_close(ServerMetrics *metrics); /* NULL is nothing */

/* A copy to read, malloc'ed, the caller's. Errors: shared_memory_copy()'s. */
int server_metrics_load(int fd, ServerMetrics **ret_copy) _must_check_;
