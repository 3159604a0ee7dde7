/*
 * Who lists directories to look at what is in them, and who wants names alone. A listing may give the kernel the attributes of all entries, which spares
 * a request for each that is looked at, and costs an inode for each that is not. Guesses: a wrong one costs time, nothing else. Thread-safe.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define LISTING_HINTS 64u

/* Zeroed at first. */
typedef struct ListingHints {
	struct {
		_Atomic uint64_t directory; /* that was listed without attributes; 0: none */
		_Atomic pid_t lister;
	} listed[LISTING_HINTS];
	_Atomic pid_t lookers[LISTING_HINTS];
} ListingHints;

/* A thread lists a directory: does it need the attributes? */
bool listing_hints_wants_attributes(ListingHints *hints, pid_t lister, uint64_t directory);

/* Somebody has to look up what is in a directory and is none itself. Who listed that wants attributes from now on. */
void listing_hints_looked_up(ListingHints *hints, uint64_t directory);
