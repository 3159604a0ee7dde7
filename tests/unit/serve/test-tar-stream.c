#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fs/base/fd.h"
#include "fs/format/format.h"
#include "layer-fixture.h"
#include "tools/serve/tar-stream.h"

/* Tiny, odd and largest chunks, of text and noise, side by side; more than two marks of the chunk table. */
static const uint32_t SIZES[] = { 1,      1,      512, 4096, FORMAT_CHUNK_MAX, FORMAT_CHUNK_MAX, 32768, 7,
				  100000, 200001, 513, 4096 };

typedef struct Context {
	LayerFixture fixture;
	TarScratch *scratch;
} Context;

static int set_up(void **state)
{
	Context *context = calloc(1, sizeof(*context));
	uint32_t sizes[150];
	for (size_t i = 0; i < ELEMENTS(sizes); i++)
		sizes[i] = i < ELEMENTS(SIZES) ? SIZES[i] : 300 + (uint32_t)i;
	layer_fixture_make(&context->fixture, sizes, ELEMENTS(sizes), 1);
	assert_int_equal(tar_scratch_new(&context->scratch), 0);
	*state = context;
	return 0;
}

static int tear_down(void **state)
{
	Context *context = *state;
	layer_fixture_done(&context->fixture);
	(void)tar_scratch_free(context->scratch);
	free(context);
	return 0;
}

static TarStream *open_fixture(const LayerFixture *fixture)
{
	TarStream *stream;
	Error error = { 0 };
	int r = tar_stream_open(layer_fixture_file(fixture), &fixture->layer, &stream, &error);
	if (r < 0)
		fail_msg("%s", error_text(&error, r));
	return stream;
}

/* Reads [offset, offset + size) in steps of `step` bytes at most and compares. */
static void expect_range(Context *context, TarStream *stream, uint64_t offset, size_t size, size_t step)
{
	uint8_t *buffer = malloc(step);
	while (size > 0) {
		Error error = { 0 };
		size_t want = size < step ? size : step;
		ssize_t count = tar_stream_read(stream, context->scratch, offset, buffer, want, &error);
		if (count <= 0)
			fail_msg("at %ju: %s", (uintmax_t)offset, error_text(&error, (int)count));
		assert_true((size_t)count <= want);
		assert_memory_equal(buffer, context->fixture.tar + offset, count);
		offset += (uint64_t)count;
		size -= (size_t)count;
	}
	free(buffer);
}

static void test_whole_tar(void **state)
{
	Context *context = *state;
	_cleanup_(tar_stream_unref_p) TarStream *stream = open_fixture(&context->fixture);
	assert_int_equal(tar_stream_size(stream), context->fixture.tar_size);
	expect_range(context, stream, 0, context->fixture.tar_size, FORMAT_CHUNK_MAX);
	expect_range(context, stream, 0, context->fixture.tar_size, 3 * FORMAT_CHUNK_MAX);
	expect_range(context, stream, 0, context->fixture.tar_size, 10007);
}

static void test_ranges(void **state)
{
	Context *context = *state;
	_cleanup_(tar_stream_unref_p) TarStream *stream = open_fixture(&context->fixture);
	uint32_t noise = 7;
	for (int i = 0; i < 300; i++) {
		noise = noise * 1664525u + 1013904223u;
		uint64_t offset = (noise >> 8) % context->fixture.tar_size;
		noise = noise * 1664525u + 1013904223u;
		size_t size = (noise >> 8) % (context->fixture.tar_size - offset) + 1;
		expect_range(context, stream, offset, size > 400000 ? 400000 : size, FORMAT_CHUNK_MAX);
	}
	expect_range(context, stream, context->fixture.tar_size - 1, 1, 1);
}

static void test_reads_stop_at_the_end(void **state)
{
	Context *context = *state;
	_cleanup_(tar_stream_unref_p) TarStream *stream = open_fixture(&context->fixture);
	uint8_t buffer[4096];
	assert_int_equal(
		tar_stream_read(stream, context->scratch, context->fixture.tar_size - 5, buffer, sizeof(buffer), NULL),
		5);
	assert_memory_equal(buffer, context->fixture.tar + context->fixture.tar_size - 5, 5);
}

static void test_empty_tar(void **state _unused_)
{
	LayerFixture empty;
	layer_fixture_make(&empty, NULL, 0, 1);
	TarStream *stream = open_fixture(&empty);
	assert_int_equal(tar_stream_size(stream), 0);
	(void)tar_stream_unref(stream);
	layer_fixture_done(&empty);
}

/* Flips a byte of chunk `number` and expects that reads of it alone fail, and say where. */
static void expect_corrupt(Context *context, size_t number, size_t offset_in_frame)
{
	LayerFixture *fixture = &context->fixture;
	uint64_t at = fixture->blob_offsets[number] + offset_in_frame;
	fixture->blob[at] ^= 0x40;
	_cleanup_(tar_stream_unref_p) TarStream *stream = open_fixture(fixture);
	fixture->blob[at] ^= 0x40;

	uint64_t tar_offset = 0;
	for (size_t i = 0; i < number; i++)
		tar_offset += SIZES[i];
	if (tar_offset > 0)
		expect_range(context, stream, 0, tar_offset, FORMAT_CHUNK_MAX);
	uint8_t buffer[64];
	Error error = { 0 };
	char where[96], blob[DIGEST_TEXT_SIZE];
	assert_int_equal(tar_stream_read(stream, context->scratch, tar_offset, buffer, sizeof(buffer), &error),
			 -EBADMSG);
	(void)snprintf(where, sizeof(where), "chunk %zu at offset %ju:", number,
		       (uintmax_t)fixture->blob_offsets[number]);
	assert_non_null(strstr(error.message, where));
	assert_non_null(strstr(error.message, digest_text(&fixture->layer.blob, blob)));
	tar_offset += SIZES[number];
	expect_range(context, stream, tar_offset, fixture->tar_size - tar_offset, FORMAT_CHUNK_MAX);
}

static void test_corrupt_frames(void **state)
{
	expect_corrupt(*state, 0, 0);
	expect_corrupt(*state, 4, 5000 % 700);
	expect_corrupt(*state, 5, 100000);
	expect_corrupt(*state, 9, 3);
}

/* Rot after the SHA-256 of a frame was checked: LZ4's own checksum finds it. */
static void test_rot_after_the_check(void **state)
{
	Context *context = *state;
	LayerFixture *fixture = &context->fixture;
	int fd = layer_fixture_file(fixture);
	TarStream *stream;
	assert_int_equal(tar_stream_open(fd, &fixture->layer, &stream, NULL), 0);
	uint64_t offset = 1 + 1 + 512 + 4096 + FORMAT_CHUNK_MAX;
	expect_range(context, stream, offset, FORMAT_CHUNK_MAX, FORMAT_CHUNK_MAX);
	uint8_t byte = fixture->blob[fixture->blob_offsets[5] + 70000] ^ 1;
	assert_int_equal(fd_pwrite_all(fd, &byte, 1, fixture->blob_offsets[5] + 70000), 0);
	uint8_t buffer[16];
	assert_int_equal(tar_stream_read(stream, context->scratch, offset, buffer, sizeof(buffer), NULL), -EBADMSG);
	(void)tar_stream_unref(stream);
}

static void test_blob_cut_while_open(void **state)
{
	Context *context = *state;
	LayerFixture *fixture = &context->fixture;
	int fd = layer_fixture_file(fixture);
	TarStream *stream;
	assert_int_equal(tar_stream_open(fd, &fixture->layer, &stream, NULL), 0);
	assert_int_equal(ftruncate(fd, (off_t)fixture->blob_offsets[5] + 10), 0);
	uint8_t buffer[16];
	Error error = { 0 };
	uint64_t offset = 1 + 1 + 512 + 4096 + FORMAT_CHUNK_MAX;
	assert_int_equal(tar_stream_read(stream, context->scratch, offset, buffer, sizeof(buffer), &error), -ENODATA);
	assert_non_null(strstr(error.message, "chunk 5 "));
	(void)tar_stream_unref(stream);
}

static void expect_refused(const LayerFixture *fixture, const ManifestLayer *layer, int code)
{
	TarStream *stream = NULL;
	Error error = { 0 };
	char blob[DIGEST_TEXT_SIZE];
	int fd = layer_fixture_file(fixture);
	assert_int_equal(tar_stream_open(fd, layer, &stream, &error), code);
	assert_null(stream);
	assert_non_null(strstr(error.message, digest_text(&layer->blob, blob)));
	assert_int_equal(close(fd), 0); /* still the caller's */
}

static void test_records_that_do_not_fit(void **state)
{
	const LayerFixture *fixture = &((Context *)*state)->fixture;
	ManifestLayer layer = fixture->layer;
	layer.blob_size++;
	expect_refused(fixture, &layer, -EBADMSG);
	layer = fixture->layer;
	layer.index_size = UINT64_MAX;
	expect_refused(fixture, &layer, -EBADMSG);
	layer = fixture->layer;
	layer.index_offset--;
	expect_refused(fixture, &layer, -EBADMSG);
	layer = fixture->layer;
	layer.index_size = 0;
	expect_refused(fixture, &layer, -EBADMSG);
	layer = fixture->layer;
	layer.tar_size++;
	expect_refused(fixture, &layer, -EBADMSG);
	layer = fixture->layer;
	layer.diff_id.bytes[31] ^= 1;
	expect_refused(fixture, &layer, -EBADMSG);
	layer = fixture->layer;
	layer.index.bytes[0] ^= 1;
	expect_refused(fixture, &layer, -EBADMSG);
}

static void test_corrupt_index(void **state)
{
	LayerFixture *fixture = &((Context *)*state)->fixture;
	uint64_t at = fixture->layer.index_offset + fixture->layer.index_size / 2;
	fixture->blob[at] ^= 1;
	expect_refused(fixture, &fixture->layer, -EBADMSG);
	fixture->blob[at] ^= 1;
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_whole_tar),
		cmocka_unit_test(test_ranges),
		cmocka_unit_test(test_reads_stop_at_the_end),
		cmocka_unit_test(test_empty_tar),
		cmocka_unit_test(test_corrupt_frames),
		cmocka_unit_test(test_rot_after_the_check),
		cmocka_unit_test(test_blob_cut_while_open),
		cmocka_unit_test(test_records_that_do_not_fit),
		cmocka_unit_test(test_corrupt_index),
	};
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
