/* Durations by how long they were, as Prometheus counts them. Atomics alone, so that it can lie in memory that processes share. */
#pragma once

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define HISTOGRAM_BOUNDS 16u

/* Upper bounds in microseconds: 100 µs to 10 s. */
static const uint32_t histogram_bounds[HISTOGRAM_BOUNDS] = {
	100,   250,    500,    1000,   2500,    5000,    10000,   25000,
	50000, 100000, 250000, 500000, 1000000, 2500000, 5000000, 10000000,
};

typedef struct Histogram {
	_Atomic uint64_t counts[HISTOGRAM_BOUNDS + 1]; /* each for itself; the last one without a bound */
	_Atomic uint64_t sum;                          /* microseconds */
} Histogram;

static inline void histogram_add(Histogram *histogram, uint64_t microseconds)
{
	size_t bucket = 0;
	while (bucket < HISTOGRAM_BOUNDS && microseconds > histogram_bounds[bucket])
		bucket++;
	(void)atomic_fetch_add_explicit(&histogram->counts[bucket], 1, memory_order_relaxed);
	(void)atomic_fetch_add_explicit(&histogram->sum, microseconds, memory_order_relaxed);
}
