/*
 * What a Fetcher counts, and where a read's bytes came from. Atomics alone, so that it can lie in memory that outlives the process;
 * several Fetchers may count into the same one.
 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

#include "fs/base/histogram.h"

/* How urgent a wait is. A chunk that several wait for is as urgent as the most urgent of them. */
typedef enum FetchClass {
	FETCH_DEMAND,     /* somebody reads it now */
	FETCH_PROFILE,    /* somebody will soon: a start-up profile, read-ahead */
	FETCH_BACKGROUND, /* nobody may ever: the background fill */
} FetchClass;
#define FETCH_CLASSES 3u

/* Where the bytes of a chunk came from, nearest first. The kernel's page cache comes before all of them and cannot be seen. */
typedef enum FetchTier {
	FETCH_TIER_DECODED, /* decoded a moment ago for another read */
	FETCH_TIER_CACHE,   /* this node's cache, or a whole blob */
	FETCH_TIER_DONOR,   /* another image of this node's cache */
	FETCH_TIER_NETWORK,
	FETCH_TIERS,
} FetchTier;

typedef struct FetchMetrics {
	_Atomic uint64_t requests[FETCH_CLASSES]; /* begun, by the class of the chunk they were begun for */
	_Atomic uint64_t failures[FETCH_CLASSES]; /* of them, ended with an error */
	_Atomic uint64_t abandoned
		[FETCH_CLASSES]; /* of them, cut since nobody waited any more, or since others could not wait */
	_Atomic uint64_t bytes;  /* body bytes received */
	_Atomic uint64_t chunks; /* fetched and verified */
	_Atomic uint64_t copies; /* chunks copied from donors */
	_Atomic uint64_t retries;
	_Atomic uint64_t verify_failures;
	_Atomic uint64_t disk_failures;    /* chunks that the cache could not take */
	_Atomic uint64_t decoded_failures; /* reads for which a decoded copy was there, but not as it was written */
	_Atomic uint64_t evicted;          /* chunks that this process took out of the cache */
	Histogram seconds[FETCH_CLASSES];  /* of requests that ended well */
} FetchMetrics;

/* Of reads by one FetchReader, until it is zeroed. */
typedef struct FetchTally {
	uint32_t chunks[FETCH_TIERS]; /* that were used, FETCH_TIER_NETWORK none: who waited knows that better */
	uint32_t absent;              /* chunks that have to be fetched first */
	uint64_t absent_bytes;        /* of their frames */
} FetchTally;
