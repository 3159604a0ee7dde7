#include "tools/serve/serve-metrics.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "fs/base/cleanup.h"

static const unsigned STATUSES[SERVE_METRICS_STATUSES] = { 0,   200, 201, 206, 304, 400, 401, 403, 404, 405,
							   409, 411, 413, 414, 416, 431, 500, 503, 999 };
static const double BOUNDS[SERVE_METRICS_BUCKETS] = {
	0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30, 120
};
static const char *const KINDS[SERVE_ROUTE_COUNT] = {
	[SERVE_ROUTE_BASE] = "base",
	[SERVE_ROUTE_CATALOG] = "catalog",
	[SERVE_ROUTE_TAGS] = "tags",
	[SERVE_ROUTE_MANIFEST_TAG] = "manifest_tag",
	[SERVE_ROUTE_MANIFEST_DIGEST] = "manifest_digest",
	[SERVE_ROUTE_BLOB] = "blob",
	[SERVE_ROUTE_HEALTH] = "health",
	[SERVE_ROUTE_METRICS] = "metrics",
	[SERVE_ROUTE_CA] = "ca",
	[SERVE_ROUTE_PROFILE] = "profile",
	[SERVE_ROUTE_NOT_FOUND] = "not_found",
	[SERVE_ROUTE_BAD_NAME] = "bad_name",
	[SERVE_ROUTE_BAD_TAG] = "bad_tag",
	[SERVE_ROUTE_BAD_DIGEST] = "bad_digest",
};

static int64_t milliseconds(clockid_t clock)
{
	struct timespec now;
	(void)clock_gettime(clock, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void serve_metrics_init(ServeMetrics *metrics)
{
	metrics->started = milliseconds(CLOCK_REALTIME) / 1000;
	metrics->started_monotonic = milliseconds(CLOCK_MONOTONIC);
}

/* The last status stands for all that are not in the table. */
static size_t status_place(unsigned status)
{
	size_t place = 0;
	while (place < SERVE_METRICS_STATUSES - 1 && STATUSES[place] != status)
		place++;
	return place;
}

void serve_metrics_request(ServeMetrics *metrics, ServeRouteKind kind, unsigned status, uint64_t bytes, bool complete,
			   double seconds)
{
	size_t bucket = 0;
	while (bucket < SERVE_METRICS_BUCKETS && seconds > BOUNDS[bucket])
		bucket++;
	serve_metrics_add(&metrics->requests[kind][status_place(status)], 1);
	serve_metrics_add(&metrics->buckets[bucket], 1);
	serve_metrics_add(&metrics->microseconds, (unsigned long long)(seconds * 1e6));
	if (complete)
		serve_metrics_add(&metrics->body_bytes[kind], bytes);
}

static unsigned long long get(const atomic_ullong *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

static void head(FILE *file, const char *name, const char *type, const char *help)
{
	fprintf(file, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void one(FILE *file, const char *name, const char *type, const char *help, unsigned long long value)
{
	head(file, name, type, help);
	fprintf(file, "%s %llu\n", name, value);
}

static void write_requests(FILE *file, const ServeMetrics *metrics)
{
	head(file, "imgfs_serve_requests_total", "counter",
	     "Requests by what they asked for and the status of the reply; 0: cut before one, 999: any other.");
	for (size_t kind = 0; kind < SERVE_ROUTE_COUNT; kind++) {
		for (size_t status = 0; status < SERVE_METRICS_STATUSES; status++) {
			unsigned long long count = get(&metrics->requests[kind][status]);
			if (count > 0)
				fprintf(file, "imgfs_serve_requests_total{kind=\"%s\",status=\"%u\"} %llu\n",
					KINDS[kind], STATUSES[status], count);
		}
	}
	head(file, "imgfs_serve_body_bytes_total", "counter", "Bytes of bodies that were sent whole.");
	for (size_t kind = 0; kind < SERVE_ROUTE_COUNT; kind++)
		fprintf(file, "imgfs_serve_body_bytes_total{kind=\"%s\"} %llu\n", KINDS[kind],
			get(&metrics->body_bytes[kind]));
}

static void write_seconds(FILE *file, const ServeMetrics *metrics)
{
	static const char name[] = "imgfs_serve_request_seconds";
	unsigned long long count = 0;
	head(file, name, "histogram", "From a request's headers to the end of its reply.");
	for (size_t i = 0; i < SERVE_METRICS_BUCKETS; i++) {
		count += get(&metrics->buckets[i]);
		fprintf(file, "%s_bucket{le=\"%g\"} %llu\n", name, BOUNDS[i], count);
	}
	count += get(&metrics->buckets[SERVE_METRICS_BUCKETS]);
	fprintf(file, "%s_bucket{le=\"+Inf\"} %llu\n%s_sum %.6f\n%s_count %llu\n", name, count, name,
		(double)get(&metrics->microseconds) / 1e6, name, count);
}

static void write_all(FILE *file, const ServeMetrics *metrics, int64_t tls_not_after)
{
	write_requests(file, metrics);
	write_seconds(file, metrics);
	one(file, "imgfs_serve_connections_total", "counter", "Connections accepted.", get(&metrics->connections));
	one(file, "imgfs_serve_connections_open", "gauge", "Connections open now.", get(&metrics->connections_open));
	one(file, "imgfs_serve_connections_cut_total", "counter", "Connections closed since no request came in time.",
	    get(&metrics->connections_cut));
	one(file, "imgfs_serve_tar_bytes_total", "counter", "Bytes of tars made from imgfs blobs.",
	    get(&metrics->tar_bytes));
	one(file, "imgfs_serve_frames_failed_total", "counter", "Frames of blobs that were unreadable or corrupt.",
	    get(&metrics->frames_failed));
	one(file, "imgfs_serve_logins_refused_total", "counter", "Requests without the right user and password.",
	    get(&metrics->logins_refused));
	one(file, "imgfs_serve_start_time_seconds", "gauge", "When the server started, since 1970.",
	    (unsigned long long)metrics->started);
	head(file, "imgfs_serve_uptime_seconds", "gauge", "How long the server has been up.");
	fprintf(file, "imgfs_serve_uptime_seconds %.3f\n",
		(double)(milliseconds(CLOCK_MONOTONIC) - metrics->started_monotonic) / 1000);
	if (tls_not_after > 0)
		one(file, "imgfs_serve_tls_not_after_seconds", "gauge", "When the certificate ends, since 1970.",
		    (unsigned long long)tls_not_after);
}

char *serve_metrics_text(const ServeMetrics *metrics, int64_t tls_not_after)
{
	char *text = NULL;
	size_t size;
	FILE *file = open_memstream(&text, &size);
	if (!file)
		return NULL;
	write_all(file, metrics, tls_not_after);
	bool failed = ferror(file) != 0;
	if (fclose(file) != 0 || failed) {
		free(text);
		return NULL;
	}
	return text;
}
