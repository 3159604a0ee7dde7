/* A layer blob made by hand from chunks of chosen sizes, in a file of its own or in a store. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "fs/format/manifest.h"
#include "tools/export/store.h"

typedef struct LayerFixture {
	uint8_t *tar; /* what must come out; any bytes do, nobody parses them */
	size_t tar_size;
	uint64_t *blob_offsets; /* of the chunks; one more: where the index starts */
	size_t chunk_count;
	uint8_t *blob;
	size_t blob_size;
	ManifestLayer layer;
} LayerFixture;

/* Chunks of these sizes, filled from `seed`: odd chunks with noise, even ones with text. Fails the test on any error. */
void layer_fixture_make(LayerFixture *ret_fixture, const uint32_t *sizes, size_t count, uint32_t seed);
void layer_fixture_done(LayerFixture *fixture);

/* A file in memory with the blob; its descriptor, the caller's. */
int layer_fixture_file(const LayerFixture *fixture);

/* Publishes the blob in a store. */
void layer_fixture_publish(const LayerFixture *fixture, Store *store);

/* A store in a new directory below $TMPDIR, whose path is written to `path`; removed with everything in it. */
#define STORE_FIXTURE_PATH 4096
Store *store_fixture_make(char path[static STORE_FIXTURE_PATH]);
void store_fixture_remove(const char *path);
