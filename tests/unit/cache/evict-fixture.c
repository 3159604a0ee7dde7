#include "evict-fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>
#include <time.h>

#include "cache-fixture.h"
#include "fs/cache/cache-present.h"

static void make_table(EvictFixture *fixture)
{
	for (uint32_t i = 0; i < EVICT_CHUNKS; i++)
		for (uint32_t j = 0; j < EVICT_FRAME_SIZE; j++)
			fixture->frames[i][j] = (uint8_t)(1 + (i * 31 + j * 7) % 255); /* never what a hole has */
	cache_fixture_table(fixture->frames[0], EVICT_CHUNKS, EVICT_FRAME_SIZE, 50000, &fixture->bytes, &fixture->image,
			    &fixture->table);
}

int evict_fixture_set_up(void **state)
{
	EvictFixture *fixture = calloc(1, sizeof(*fixture));
	assert_non_null(fixture);
	fixture->store = cache_fixture_open(fixture->directory);
	make_table(fixture);
	memset(&fixture->digest, 7, sizeof(fixture->digest));
	*state = fixture;
	return 0;
}

int evict_fixture_tear_down(void **state)
{
	EvictFixture *fixture = *state;
	cache_fixture_close(fixture->store, fixture->directory);
	free(fixture->bytes);
	free(fixture);
	return 0;
}

CacheBlob *evict_fixture_open(const EvictFixture *fixture, const Digest *digest)
{
	int data, present;
	CacheBlob *blob;
	assert_int_equal(cache_store_blob(fixture->store, digest, (uint64_t)EVICT_CHUNKS * EVICT_FRAME_SIZE + 1000,
					  EVICT_CHUNKS, &data, &present, NULL),
			 0);
	assert_int_equal(cache_blob_new(&fixture->table, data, present, &blob), 0);
	return blob;
}

void evict_fixture_put(const EvictFixture *fixture, CacheBlob *blob, uint32_t chunk)
{
	assert_int_equal(cache_blob_write(blob, chunk, fixture->frames[chunk], EVICT_FRAME_SIZE), 0);
}

int evict_fixture_read(const EvictFixture *fixture, CacheBlob *blob, uint32_t chunk)
{
	_cleanup_free_ uint8_t *frame = malloc(FORMAT_FRAME_MAX);
	uint32_t size;
	assert_non_null(frame);
	int r = cache_blob_read(blob, chunk, frame, &size);
	if (r == 0) {
		assert_int_equal(size, EVICT_FRAME_SIZE);
		assert_memory_equal(frame, fixture->frames[chunk], size);
	}
	return r;
}

static void open_files(const EvictFixture *fixture, const Digest *digest, CacheEvictBlob *ret_blob)
{
	assert_int_equal(cache_evict_blob_open(fixture->store, digest, ret_blob), 0);
	assert_int_equal(ret_blob->count, EVICT_CHUNKS);
}

void evict_fixture_age(const EvictFixture *fixture, const Digest *digest, uint32_t chunk, uint32_t seconds)
{
	CacheEvictBlob blob;
	uint8_t used[4];
	open_files(fixture, digest, &blob);
	store_le32(used, (uint32_t)time(NULL) - seconds);
	assert_int_equal(fd_pwrite_all(blob.present_fd, used, 4, present_mark(EVICT_CHUNKS, chunk) + AT_USED), 0);
	cache_evict_blob_close(&blob);
}

uint64_t evict_fixture_bytes(const EvictFixture *fixture, const Digest *digest)
{
	CacheEvictBlob blob;
	open_files(fixture, digest, &blob);
	uint64_t bytes = blob.bytes;
	cache_evict_blob_close(&blob);
	return bytes;
}

size_t evict_fixture_punch(const EvictFixture *fixture, const Digest *digest, uint32_t first, uint32_t count)
{
	CacheEvictBlob blob;
	CacheVictim victims[EVICT_CHUNKS];
	for (uint32_t i = 0; i < count; i++) {
		Chunk chunk;
		chunk_table_get(&fixture->table, first + i, &chunk);
		victims[i] = (CacheVictim){ .chunk = first + i, .offset = chunk.blob_offset, .size = chunk.blob_size };
	}
	open_files(fixture, digest, &blob);
	size_t evicted;
	assert_int_equal(cache_evict_blob_punch(&blob, victims, count, &evicted), 0);
	cache_evict_blob_close(&blob);
	return evicted;
}
