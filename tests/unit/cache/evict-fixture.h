/* A cache with one blob whose frames are larger than the blocks of file systems, as any number of servers see it. */
#pragma once

#include <limits.h>

#include "fs/cache/cache-blob.h"
#include "fs/cache/cache-evict-blob.h"
#include "fs/cache/cache-store.h"

#define EVICT_CHUNKS     24u
#define EVICT_FRAME_SIZE 20000u

typedef struct EvictFixture {
	char directory[PATH_MAX];
	CacheStore *store;
	uint8_t frames[EVICT_CHUNKS][EVICT_FRAME_SIZE];
	uint8_t *bytes;
	Image image;
	ChunkTable table;
	Digest digest;
} EvictFixture;

int evict_fixture_set_up(void **state);
int evict_fixture_tear_down(void **state);

/* The blob `digest` as a server opens it. */
CacheBlob *evict_fixture_open(const EvictFixture *fixture, const Digest *digest);
void evict_fixture_put(const EvictFixture *fixture, CacheBlob *blob, uint32_t chunk);

/* As cache_blob_read(); what it gives must be the frame. */
int evict_fixture_read(const EvictFixture *fixture, CacheBlob *blob, uint32_t chunk);

/* As if the chunk had been used so many seconds ago. */
void evict_fixture_age(const EvictFixture *fixture, const Digest *digest, uint32_t chunk, uint32_t seconds);

/* What the files of the blob take on the disk. */
uint64_t evict_fixture_bytes(const EvictFixture *fixture, const Digest *digest);

/* Evicts a run of chunks of the blob, as cache_evict() would. Returns how many went. */
size_t evict_fixture_punch(const EvictFixture *fixture, const Digest *digest, uint32_t first, uint32_t count);
