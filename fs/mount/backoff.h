/* How long a keeper waits before it starts the next server: not at all, unless servers die as soon as they start. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define BACKOFF_SHORT_LIFE 200 /* milliseconds; one that lived longer is not part of a crash loop */
#define BACKOFF_FREE       5   /* short lives in a row that are restarted at once */
#define BACKOFF_MAX        1000

typedef struct Backoff {
	unsigned short_lives; /* in a row */
} Backoff;

/*
 * Counts the death of a server that lived `lifetime` milliseconds; returns the milliseconds to wait, 0 to BACKOFF_MAX. One
 * that was `killed` (SIGKILL) did nothing wrong by itself.
 */
unsigned backoff_next(Backoff *backoff, int64_t lifetime, bool killed);
