/*
 * Chunks decoded a moment ago, shared by all readers of a Fetcher, so that small reads here and there in a chunk decode it once. A
 * fixed number of slots of FORMAT_CHUNK_MAX bytes, allocated when first used; what was used longest ago makes room. Thread-safe; its
 * lock covers neither decoding nor copying: who uses a slot pins it.
 */
#pragma once

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/base/cleanup.h"

#define FETCH_DECODED_SLOTS 24u /* 6 MiB at most, half of that with chunks of average length */

typedef struct FetchSlot {
	uint64_t blob; /* FetchBlob's id; 0: nothing that can be found */
	uint32_t chunk;
	unsigned pins;
	uint64_t used;    /* by the clock of the cache */
	uint8_t *content; /* FORMAT_CHUNK_MAX bytes, or NULL */
} FetchSlot;

typedef struct FetchDecoded {
	pthread_mutex_t mutex; /* of all below but the bytes of pinned slots */
	uint64_t clock;
	FetchSlot slots[FETCH_DECODED_SLOTS];
} FetchDecoded;

void fetch_decoded_init(FetchDecoded *decoded);
void fetch_decoded_done(FetchDecoded *decoded); /* no slot may be pinned */

/* The slot with this chunk's bytes, pinned; NULL when there is none. */
FetchSlot *fetch_decoded_find(FetchDecoded *decoded, uint64_t blob, uint32_t chunk);

/* A pinned slot to decode into, which nobody finds until it is published. NULL: without memory, or all are pinned. */
FetchSlot *fetch_decoded_claim(FetchDecoded *decoded);

/* The claimed slot now holds this chunk. It stays pinned. */
void fetch_decoded_publish(FetchDecoded *decoded, FetchSlot *slot, uint64_t blob, uint32_t chunk);

void fetch_decoded_unpin(FetchDecoded *decoded, FetchSlot *slot);
