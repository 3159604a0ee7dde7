#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fs/base/fd.h"
#include "fs/format/format.h"
#include "layer-fixture.h"
#include "tools/serve/chunk-cache.h"

static const uint32_t SIZES[] = { 1, 511, FORMAT_CHUNK_MAX, 7, 100000, FORMAT_CHUNK_MAX, 4096, 200001, 513, 70000 };

static int set_up(void **state)
{
	LayerFixture *fixture = calloc(1, sizeof(*fixture));
	layer_fixture_make(fixture, SIZES, ELEMENTS(SIZES), 5);
	*state = fixture;
	return 0;
}

static int tear_down(void **state)
{
	layer_fixture_done(*state);
	free(*state);
	return 0;
}

static TarStream *open_stream(const LayerFixture *fixture)
{
	TarStream *stream;
	assert_int_equal(tar_stream_open(layer_fixture_file(fixture), &fixture->layer, &stream, NULL), 0);
	return stream;
}

/* The whole tar in steps of `step`; false when anything is wrong. */
static bool read_all(ChunkCache *cache, TarStream *stream, const LayerFixture *fixture, size_t step)
{
	uint8_t *buffer = malloc(step);
	size_t offset = 0;
	bool right = true;
	while (right && offset < fixture->tar_size) {
		ssize_t count = chunk_cache_read(cache, stream, offset, buffer, step, NULL);
		right = count > 0 && (size_t)count <= step && memcmp(buffer, fixture->tar + offset, (size_t)count) == 0;
		offset += (size_t)(right ? count : 0);
	}
	free(buffer);
	return right;
}

static void test_reads(void **state)
{
	ChunkCache *cache;
	TarStream *stream = open_stream(*state);
	assert_int_equal(chunk_cache_new(3, 1, &cache), 0);
	assert_true(read_all(cache, stream, *state, 4099));
	assert_true(read_all(cache, stream, *state, 32768));
	assert_true(read_all(cache, stream, *state, 2 * FORMAT_CHUNK_MAX));
	(void)chunk_cache_free(cache);
	(void)tar_stream_unref(stream);
}

/* A chunk is decoded once however small the reads of it are: what is on the disk no longer matters then. */
static void test_chunk_is_decoded_once(void **state)
{
	const LayerFixture *fixture = *state;
	ChunkCache *cache;
	TarStream *stream;
	uint8_t byte;
	int fd = layer_fixture_file(fixture);
	assert_int_equal(tar_stream_open(fd, &fixture->layer, &stream, NULL), 0);
	assert_int_equal(chunk_cache_new(3, 1, &cache), 0);
	assert_int_equal(chunk_cache_read(cache, stream, 512, &byte, 1, NULL), 1);
	assert_int_equal(ftruncate(fd, 0), 0);
	for (uint64_t offset = 512; offset < 512 + FORMAT_CHUNK_MAX; offset += 1021) {
		assert_int_equal(chunk_cache_read(cache, stream, offset, &byte, 1, NULL), 1);
		assert_int_equal(byte, fixture->tar[offset]);
	}
	Error error = { 0 };
	assert_int_equal(chunk_cache_read(cache, stream, fixture->tar_size - 1, &byte, 1, &error), -ENODATA);
	assert_true(error.message[0] != '\0');
	(void)chunk_cache_free(cache);
	(void)tar_stream_unref(stream);
}

/* Two streams of the same tar share no slot: one may be corrupt. */
static void test_failure_leaves_no_trace(void **state)
{
	LayerFixture *fixture = *state;
	ChunkCache *cache;
	uint8_t byte;
	fixture->blob[fixture->blob_offsets[2] + 30] ^= 1;
	TarStream *bad = open_stream(fixture);
	fixture->blob[fixture->blob_offsets[2] + 30] ^= 1;
	TarStream *good = open_stream(fixture);
	assert_int_equal(chunk_cache_new(2, 1, &cache), 0);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(chunk_cache_read(cache, bad, 600, &byte, 1, NULL), -EBADMSG);
		assert_int_equal(chunk_cache_read(cache, good, 600, &byte, 1, NULL), 1);
		assert_int_equal(byte, fixture->tar[600]);
	}
	assert_true(read_all(cache, good, fixture, 10000));
	(void)chunk_cache_free(cache);
	(void)tar_stream_unref(good);
	(void)tar_stream_unref(bad);
}

typedef struct Worker {
	ChunkCache *cache;
	TarStream *stream;
	const LayerFixture *fixture;
	size_t step;
	bool right;
} Worker;

static void *work(void *arg)
{
	Worker *worker = arg;
	worker->right = true;
	for (int i = 0; i < 5; i++)
		worker->right = worker->right && read_all(worker->cache, worker->stream, worker->fixture, worker->step);
	return NULL;
}

/* Many more readers than slots and decoders: all get their bytes. */
static void test_threads(void **state)
{
	ChunkCache *cache;
	Worker workers[24];
	pthread_t threads[ELEMENTS(workers)];
	TarStream *streams[] = { open_stream(*state), open_stream(*state) };
	assert_int_equal(chunk_cache_new(4, 2, &cache), 0);
	for (size_t i = 0; i < ELEMENTS(workers); i++) {
		workers[i] = (Worker){ .cache = cache,
				       .stream = streams[i % ELEMENTS(streams)],
				       .fixture = *state,
				       .step = 20000 + 1000 * i };
		assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
	}
	for (size_t i = 0; i < ELEMENTS(workers); i++) {
		assert_int_equal(pthread_join(threads[i], NULL), 0);
		assert_true(workers[i].right);
	}
	(void)chunk_cache_free(cache);
	for (size_t i = 0; i < ELEMENTS(streams); i++)
		(void)tar_stream_unref(streams[i]);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reads),
		cmocka_unit_test(test_chunk_is_decoded_once),
		cmocka_unit_test(test_failure_leaves_no_trace),
		cmocka_unit_test(test_threads),
	};
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
