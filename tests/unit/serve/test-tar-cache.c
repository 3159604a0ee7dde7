#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fs/format/format.h"
#include "layer-fixture.h"
#include "tools/serve/tar-cache.h"

#define LAYERS 4

typedef struct Context {
	char path[STORE_FIXTURE_PATH];
	Store *store;
	LayerFixture layers[LAYERS];
} Context;

static int set_up(void **state)
{
	Context *context = calloc(1, sizeof(*context));
	context->store = store_fixture_make(context->path);
	for (uint32_t i = 0; i < LAYERS; i++) {
		uint32_t sizes[] = { 4096, 100000, 50000 + i, 3 };
		layer_fixture_make(&context->layers[i], sizes, ELEMENTS(sizes), i + 1);
		layer_fixture_publish(&context->layers[i], context->store);
	}
	*state = context;
	return 0;
}

static int tear_down(void **state)
{
	Context *context = *state;
	for (size_t i = 0; i < LAYERS; i++)
		layer_fixture_done(&context->layers[i]);
	(void)store_free(context->store);
	store_fixture_remove(context->path);
	free(context);
	return 0;
}

static int open_blob(void *arg, const Digest *blob, int *ret_fd)
{
	uint64_t size;
	return store_blob_open(arg, blob, ret_fd, &size);
}

static TarStream *get(TarCache *cache, const LayerFixture *fixture)
{
	TarStream *stream;
	Error error = { 0 };
	int r = tar_cache_get(cache, &fixture->layer, &stream, &error);
	if (r < 0)
		fail_msg("%s", error_text(&error, r));
	return stream;
}

static void expect_content(TarStream *stream, const LayerFixture *fixture)
{
	uint8_t *buffer = malloc(FORMAT_CHUNK_MAX);
	TarScratch *scratch;
	assert_int_equal(tar_scratch_new(&scratch), 0);
	ssize_t count = tar_stream_read(stream, scratch, 4096, buffer, FORMAT_CHUNK_MAX, NULL);
	assert_true(count > 0);
	assert_memory_equal(buffer, fixture->tar + 4096, count);
	(void)tar_scratch_free(scratch);
	free(buffer);
}

static void test_a_layer_is_opened_once(void **state)
{
	Context *context = *state;
	TarCache *cache;
	assert_int_equal(tar_cache_new(open_blob, context->store, 8, 1 << 20, &cache), 0);
	TarStream *first = get(cache, &context->layers[0]), *second = get(cache, &context->layers[0]);
	assert_ptr_equal(first, second);
	expect_content(first, &context->layers[0]);
	(void)tar_stream_unref(first);
	(void)tar_cache_free(cache);
	TarScratch *scratch; /* the stream outlives the cache */
	assert_int_equal(tar_scratch_new(&scratch), 0);
	uint8_t byte;
	assert_int_equal(tar_stream_read(second, scratch, 0, &byte, 1, NULL), 1);
	assert_int_equal(byte, context->layers[0].tar[0]);
	(void)tar_scratch_free(scratch);
	(void)tar_stream_unref(second);
}

static void test_least_recently_used_goes(void **state)
{
	Context *context = *state;
	TarCache *cache;
	assert_int_equal(tar_cache_new(open_blob, context->store, 2, SIZE_MAX, &cache), 0);
	TarStream *zero = get(cache, &context->layers[0]), *one = get(cache, &context->layers[1]);
	(void)tar_stream_unref(get(cache, &context->layers[0]));
	TarStream *two = get(cache, &context->layers[2]); /* drops one */
	TarStream *again = get(cache, &context->layers[0]);
	assert_ptr_equal(again, zero);
	TarStream *other = get(cache, &context->layers[1]);
	assert_ptr_not_equal(other, one);
	expect_content(one, &context->layers[1]); /* dropped, but held */
	expect_content(other, &context->layers[1]);
	TarStream *streams[] = { zero, one, two, again, other };
	for (size_t i = 0; i < ELEMENTS(streams); i++)
		(void)tar_stream_unref(streams[i]);
	(void)tar_cache_free(cache);
}

static void test_memory_is_bounded(void **state)
{
	Context *context = *state;
	TarCache *cache;
	assert_int_equal(tar_cache_new(open_blob, context->store, 8, 1, &cache), 0);
	TarStream *zero = get(cache, &context->layers[0]);
	assert_true(tar_stream_memory(zero) > 4 * 40);
	TarStream *again = get(cache, &context->layers[0]); /* alone, it stays whatever its size */
	assert_ptr_equal(again, zero);
	(void)tar_stream_unref(get(cache, &context->layers[1]));
	TarStream *other = get(cache, &context->layers[0]);
	assert_ptr_not_equal(other, zero);
	(void)tar_stream_unref(zero);
	(void)tar_stream_unref(again);
	(void)tar_stream_unref(other);
	(void)tar_cache_free(cache);
}

static void test_forgotten_stream_is_opened_anew(void **state)
{
	Context *context = *state;
	TarCache *cache;
	assert_int_equal(tar_cache_new(open_blob, context->store, 8, 1 << 20, &cache), 0);
	TarStream *first = get(cache, &context->layers[0]);
	tar_cache_forget(cache, first);
	tar_cache_forget(cache, first);
	TarStream *second = get(cache, &context->layers[0]);
	assert_ptr_not_equal(first, second);
	(void)tar_stream_unref(first);
	(void)tar_stream_unref(second);
	(void)tar_cache_free(cache);
}

static void test_missing_blob(void **state)
{
	Context *context = *state;
	TarCache *cache;
	TarStream *stream = NULL;
	Error error = { 0 };
	ManifestLayer layer = context->layers[0].layer;
	layer.blob.bytes[0] ^= 1;
	assert_int_equal(tar_cache_new(open_blob, context->store, 8, 1 << 20, &cache), 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(tar_cache_get(cache, &layer, &stream, &error), -ENOENT);
		assert_null(stream);
		assert_non_null(strstr(error.message, "cannot be opened"));
	}
	(void)tar_cache_free(cache);
}

typedef struct Worker {
	TarCache *cache;
	const Context *context;
	unsigned seed;
	bool wrong;
} Worker;

static void *work(void *arg)
{
	Worker *worker = arg;
	uint8_t *buffer = malloc(FORMAT_CHUNK_MAX);
	for (unsigned i = 0; i < 200; i++) {
		const LayerFixture *fixture = &worker->context->layers[(i + worker->seed) % LAYERS];
		TarStream *stream;
		TarScratch *scratch;
		if (tar_cache_get(worker->cache, &fixture->layer, &stream, NULL) < 0 || tar_scratch_new(&scratch) < 0) {
			worker->wrong = true;
			break;
		}
		ssize_t count = tar_stream_read(stream, scratch, 0, buffer, FORMAT_CHUNK_MAX, NULL);
		if (count <= 0 || memcmp(buffer, fixture->tar, (size_t)count) != 0)
			worker->wrong = true;
		if (i % 50 == 7)
			tar_cache_forget(worker->cache, stream);
		(void)tar_scratch_free(scratch);
		(void)tar_stream_unref(stream);
	}
	free(buffer);
	return NULL;
}

static void test_threads(void **state)
{
	Context *context = *state;
	TarCache *cache;
	assert_int_equal(tar_cache_new(open_blob, context->store, 2, SIZE_MAX, &cache), 0);
	Worker workers[12];
	pthread_t threads[ELEMENTS(workers)];
	for (unsigned i = 0; i < ELEMENTS(workers); i++) {
		workers[i] = (Worker){ .cache = cache, .context = context, .seed = i / 3 };
		assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
	}
	for (unsigned i = 0; i < ELEMENTS(workers); i++) {
		assert_int_equal(pthread_join(threads[i], NULL), 0);
		assert_false(workers[i].wrong);
	}
	(void)tar_cache_free(cache);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_layer_is_opened_once), cmocka_unit_test(test_least_recently_used_goes),
		cmocka_unit_test(test_memory_is_bounded),      cmocka_unit_test(test_forgotten_stream_is_opened_anew),
		cmocka_unit_test(test_missing_blob),           cmocka_unit_test(test_threads),
	};
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
