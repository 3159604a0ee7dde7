/*
 * Frames kept in memory for those who wait for them, when the cache could not take them (disk full) or did not give them back
 * (disk rotten). Bounded; the oldest go first. Thread-safe; its lock covers copies in memory only.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/base/cleanup.h"

#define FETCH_RECENT_BYTES (8u << 20)

typedef struct FetchFrame FetchFrame;

typedef struct FetchRecent {
	pthread_mutex_t mutex;
	FetchFrame *oldest, *newest;
	size_t bytes;
} FetchRecent;

void fetch_recent_init(FetchRecent *recent);
void fetch_recent_done(FetchRecent *recent);

/* Keeps a copy of a verified frame of blob `blob` (FetchBlob's id). Without memory for it, it is not kept. */
void fetch_recent_put(FetchRecent *recent, uint64_t blob, uint32_t chunk, const uint8_t *frame, uint32_t size);

bool fetch_recent_has(FetchRecent *recent, uint64_t blob, uint32_t chunk);

/* Copies a frame to `frame` (FORMAT_FRAME_MAX bytes). Errors: -ENODATA. */
int fetch_recent_get(FetchRecent *recent, uint64_t blob, uint32_t chunk, uint8_t *frame, uint32_t *ret_size)
	_must_check_;
