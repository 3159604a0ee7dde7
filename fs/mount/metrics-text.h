/* What mounts and servers count, in Prometheus' text form 0.0.4. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "fs/mount/server-metrics.h"
#include "fs/mount/start-record.h"

/* A mounted image. */
typedef struct MetricsMount {
	const char *mount;                        /* where: the label `mount` */
	const char *reference, *manifest, *image; /* NULL: not known */
	const StartRecord *record;                /* a copy; NULL: none */
	bool measured;
	bool sealed;
	uint64_t needed, present; /* bytes */
} MetricsMount;

/* A server: of one private mount, or of all images of a daemon. */
typedef struct MetricsServer {
	const char *server;           /* the label `server`: the mount, or the directory of the daemon's mounts */
	const ServerMetrics *metrics; /* a copy */
} MetricsServer;

typedef struct MetricsText {
	const MetricsMount *mounts;
	size_t mount_count;
	const MetricsServer *servers;
	size_t server_count;
	int64_t now; /* shared_memory_clock() */
} MetricsText;

/* Errors are the stream's: ferror(). */
void metrics_text_write(FILE *file, const MetricsText *text);

/* Readers of a mount that wait now, and how long the first of them has, in microseconds. */
void metrics_stalled(const StartRecord *record, int64_t now, unsigned *ret_count, uint64_t *ret_longest);
