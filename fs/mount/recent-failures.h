/*
 * Reads that timed out a moment ago. When a read-ahead fails, the kernel asks again for the very page it needs; that
 * request shares the fate of the first instead of waiting for a deadline of its own.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define RECENT_FAILURES       32
#define RECENT_FAILURE_WINDOW 100 /* milliseconds; a read that an application repeats later is tried anew */

typedef struct RecentFailure {
	uint64_t offset;
	uint32_t size;
	uint64_t node;
	int64_t time; /* 0: unused */
} RecentFailure;

/* Zeroed is empty. The owner guards it with a lock. */
typedef struct RecentFailures {
	RecentFailure entries[RECENT_FAILURES];
	unsigned next;
} RecentFailures;

/* `now` is in milliseconds, above 0. The oldest entry makes room. */
void recent_failures_note(RecentFailures *failures, uint64_t node, uint64_t offset, uint32_t size, int64_t now);

/* Did a read of this node that holds byte `offset` fail within the window? Each failure says so once: the kernel repeats once. */
bool recent_failures_take(RecentFailures *failures, uint64_t node, uint64_t offset, int64_t now);
