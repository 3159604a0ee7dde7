/* A cache in a directory of its own, and a table of chunks made by hand. All of it fails the test on any error. */
#pragma once

#include <limits.h>

#include "fs/cache/cache-store.h"
#include "fs/format/chunk-table.h"

/* A new cache below $TMPDIR, whose path is written to `ret_directory`; and away with it and all in it. */
CacheStore *cache_fixture_open(char ret_directory[static PATH_MAX]);
void cache_fixture_close(CacheStore *store, const char *directory);

/*
 * The table of `count` chunks of `content_size` bytes whose frames stand in `frames`, `frame_size` bytes each. It uses `ret_image` and
 * `ret_bytes`, which is malloc'ed and the caller's.
 */
void cache_fixture_table(const uint8_t *frames, uint32_t count, uint32_t frame_size, uint32_t content_size,
			 uint8_t **ret_bytes, Image *ret_image, ChunkTable *ret_table);
