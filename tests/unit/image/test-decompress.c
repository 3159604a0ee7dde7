/* Layers in any compression come out as they went in; damage is told. */
#include <errno.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "tests/unit/image/source-fixture.h"
#include "tools/image/image-decompress.h"

#define SIZE 700000u

typedef struct Feed {
	const uint8_t *data;
	size_t size, step;
} Feed;

static ssize_t feed_read(void *arg, void *buffer, size_t size, Error *error)
{
	Feed *feed = arg;
	if (feed->step == SIZE_MAX)
		return error_set(error, -EIO, "the feed fails");
	if (size > feed->step)
		size = feed->step;
	if (size > feed->size)
		size = feed->size;
	if (size == 0)
		return 0;
	memcpy(buffer, feed->data, size);
	feed->data += size;
	feed->size -= size;
	return (ssize_t)size;
}

/* Decompresses all of it; the output is `ret_output`'s. */
static int decompress(const Buffer *input, size_t step, Buffer *ret_output, Error *error)
{
	Feed feed = { .data = input->data, .size = input->size, .step = step };
	LayerSource source = { .read = feed_read, .arg = &feed };
	_cleanup_(image_decompressor_free_p) ImageDecompressor *decompressor = NULL;
	uint8_t part[5000];
	assert_int_equal(image_decompressor_new(&source, &decompressor), 0);
	LayerSource tar = image_decompressor_source(decompressor);
	for (;;) {
		ssize_t count = tar.read(tar.arg, part, sizeof(part), error);
		if (count < 0)
			return (int)count;
		if (count == 0)
			break;
		assert_int_equal(buffer_append(ret_output, part, (size_t)count), 0);
	}
	/* The end stays the end, and all input was read. */
	assert_int_equal(tar.read(tar.arg, part, sizeof(part), error), 0);
	assert_int_equal(feed.size, 0);
	return 0;
}

static void expect_same(const Buffer *input, const Buffer *wanted)
{
	static const size_t steps[] = { 1, 3, 1000, 1u << 20 };
	for (size_t i = 0; i < ELEMENTS(steps); i++) {
		Buffer output = { 0 };
		Error error = { 0 };
		assert_int_equal(decompress(input, steps[i], &output, &error), 0);
		assert_int_equal(output.size, wanted->size);
		if (wanted->size > 0)
			assert_memory_equal(output.data, wanted->data, wanted->size);
		buffer_done(&output);
	}
}

static void expect_error(const Buffer *input, size_t size, int code)
{
	Buffer part = { .data = input->data, .size = size }, output = { 0 };
	Error error = { 0 };
	assert_int_equal(decompress(&part, 4096, &output, &error), code);
	assert_int_not_equal(error.message[0], '\0');
	buffer_done(&output);
}

static void make_data(Buffer *data)
{
	uint32_t state = 1;
	uint8_t *room = buffer_extend(data, SIZE);
	assert_non_null(room);
	for (size_t i = 0; i < SIZE; i++) {
		state = state * 1664525 + 1013904223;
		room[i] = i % 3 ? (uint8_t)(state >> 24) : 0;
	}
}

typedef void Packer(const void *data, size_t size, Buffer *ret_packed);

static void check_form(Packer *pack, bool has_checksum)
{
	Buffer data = { 0 }, packed = { 0 }, twice = { 0 }, two = { 0 };
	make_data(&data);
	pack(data.data, data.size, &packed);
	expect_same(&packed, &data);

	/* Two members, or frames, are one after the other. */
	pack(data.data, 1000, &two);
	pack(data.data + 1000, data.size - 1000, &two);
	expect_same(&two, &data);

	/* Cut short anywhere, it is damaged, and so it is with something else behind it. */
	expect_error(&packed, 4, -EBADMSG);
	expect_error(&packed, packed.size / 2, -EBADMSG);
	expect_error(&packed, packed.size - 1, -EBADMSG);
	assert_int_equal(buffer_append(&twice, packed.data, packed.size), 0);
	assert_int_equal(buffer_append(&twice, "rubbish!rubbish!", 16), 0);
	expect_error(&twice, twice.size, -EBADMSG);

	if (has_checksum) {
		packed.data[packed.size / 2] ^= 1;
		expect_error(&packed, packed.size, -EBADMSG);
	}
	buffer_done(&data);
	buffer_done(&packed);
	buffer_done(&two);
	buffer_done(&twice);
}

static void test_gzip(void **state _unused_)
{
	check_form(fake_gzip, true);
}

static void test_zstd(void **state _unused_)
{
	check_form(fake_zstd, false);
}

static void test_zstd_skippable(void **state _unused_)
{
	Buffer data = { 0 }, packed = { 0 };
	make_data(&data);
	assert_int_equal(buffer_append(&packed, "\x50\x2a\x4d\x18\x03\x00\x00\x00xyz", 11), 0);
	fake_zstd(data.data, data.size, &packed);
	expect_same(&packed, &data);
	buffer_done(&data);
	buffer_done(&packed);
}

static void test_plain(void **state _unused_)
{
	Buffer data = { 0 };
	expect_same(&data, &data);
	assert_int_equal(buffer_append(&data, "\x1f\x8b", 2), 0);
	expect_same(&data, &data);
	make_data(&data);
	expect_same(&data, &data);
	buffer_done(&data);
}

static void test_input_error(void **state _unused_)
{
	Buffer data = { 0 }, output = { 0 };
	Error error = { 0 };
	make_data(&data);
	assert_int_equal(decompress(&data, SIZE_MAX, &output, &error), -EIO);
	assert_string_equal(error.message, "the feed fails");
	buffer_done(&data);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_gzip),  cmocka_unit_test(test_zstd),        cmocka_unit_test(test_zstd_skippable),
		cmocka_unit_test(test_plain), cmocka_unit_test(test_input_error),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
