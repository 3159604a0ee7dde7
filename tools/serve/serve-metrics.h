/* What the server counts, in Prometheus' text form 0.0.4. Any thread. */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

#include "tools/serve/serve-route.h"

#define SERVE_METRICS_STATUSES 19u
#define SERVE_METRICS_BUCKETS  12u

typedef struct ServeMetrics {
	int64_t started;           /* CLOCK_REALTIME, seconds; for the start time */
	int64_t started_monotonic; /* milliseconds; for the uptime, whatever happens to the clock */
	atomic_ullong requests[SERVE_ROUTE_COUNT][SERVE_METRICS_STATUSES];
	atomic_ullong body_bytes[SERVE_ROUTE_COUNT]; /* of replies that were sent whole */
	atomic_ullong tar_bytes;                     /* of tars made, for whole and broken replies */
	atomic_ullong frames_failed;
	atomic_ullong connections; /* accepted */
	atomic_ullong connections_open;
	atomic_ullong connections_cut; /* by this side: no request came in time */
	atomic_ullong logins_refused;
	atomic_ullong
		buckets[SERVE_METRICS_BUCKETS + 1]; /* of seconds; each for itself, the last one without a bound */
	atomic_ullong microseconds;                 /* sum */
} ServeMetrics;

void serve_metrics_init(ServeMetrics *metrics);

static inline void serve_metrics_add(atomic_ullong *counter, unsigned long long by)
{
	(void)atomic_fetch_add_explicit(counter, by, memory_order_relaxed);
}

/* A request has ended. `status` 0: without a reply. `bytes` counts if it was `complete`. */
void serve_metrics_request(ServeMetrics *metrics, ServeRouteKind kind, unsigned status, uint64_t bytes, bool complete,
			   double seconds);

/* The text, malloc'ed, the caller's; `tls_not_after` 0: no TLS. NULL when memory is out. */
char *serve_metrics_text(const ServeMetrics *metrics, int64_t tls_not_after);
