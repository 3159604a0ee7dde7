/* A store in a directory of its own, and images to put into it. Whatever fails here fails the test. */
#pragma once

#include "fs/format/buffer.h"
#include "tools/export/export-image.h"
#include "tools/export/store.h"

typedef struct StoreFixture {
	char directory[64];
	char path[80]; /* of the store, below the directory */
	Store *store;
} StoreFixture;

void store_fixture_open(StoreFixture *fixture);
void store_fixture_close(StoreFixture *fixture);

/* Opens the store anew, as another process would. */
void store_fixture_reopen(StoreFixture *fixture);

/* How many files a directory of the store holds. */
size_t store_fixture_count(const StoreFixture *fixture, const char *directory);

/* The path of a file of the store; static until the next call. */
const char *store_fixture_path(const StoreFixture *fixture, const char *name);
void store_fixture_write(const StoreFixture *fixture, const char *name, const void *data, size_t size);

/* Bytes that do not compress, the same for the same seed. */
void store_fixture_random(uint8_t *data, size_t size, uint32_t seed);

/* A tar of one large file of such bytes, made of parts with these seeds. */
void store_fixture_tar(Buffer *tar, const uint32_t *seeds, size_t count);

/* Writes a tar as a layer into the store, past every image. */
void store_fixture_layer(StoreFixture *fixture, const Buffer *tar, ManifestLayer *ret_layer, uint64_t **ret_contents,
			 size_t *ret_count);
