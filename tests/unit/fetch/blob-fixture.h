/* Layers in the directory of a fake registry, made by hand from chunks of chosen sizes. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "fs/cache/cache-blob.h"
#include "fs/format/manifest.h"

typedef struct BlobFixture {
	ManifestLayer layer;
	uint8_t *tar;
	uint8_t *blob;
	size_t blob_size;
	uint8_t *index; /* index image */
	size_t index_size;
	Image image;
	ChunkTable table;
} BlobFixture;

/* A layer of `count` chunks of `chunk_size` bytes of noise from `seed`, holding one file, "file-SEED". Fails the test on any error. */
void blob_fixture_make(BlobFixture *ret_fixture, uint32_t count, uint32_t chunk_size, uint32_t seed);

/* As above, but the frame of chunk `spoiled` does not decode, though its digest in the index is right. */
void blob_fixture_make_spoiled(BlobFixture *ret_fixture, uint32_t count, uint32_t chunk_size, uint32_t seed,
			       uint32_t spoiled);
void blob_fixture_done(BlobFixture *fixture);

/* Writes the blob to DIRECTORY/v2/app/blobs/sha256:... */
void blob_fixture_publish(const BlobFixture *fixture, const char *directory);

#define BLOB_FIXTURE_CONFIG "{\"os\":\"linux\"}"

/* Writes a manifest of the layers to DIRECTORY/v2/app/manifests/, as TAG and by its digest, and its config to the blobs. */
void blob_fixture_publish_image(const BlobFixture *fixtures, size_t count, const char *directory, const char *tag,
				Digest *ret_manifest);

/* An empty cache of the blob, in files without a name; the descriptors stay usable as `ret_data` and `ret_present`, the caller's. */
CacheBlob *blob_fixture_cache(const BlobFixture *fixture, int *ret_data, int *ret_present);

/* A new directory below $TMPDIR, malloc'ed; and away with it and all in it. */
char *scratch_make(void);
void scratch_remove(char *path);
