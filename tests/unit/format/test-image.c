/* The container: header, section table, sums. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "fix-sums.h"
#include "fs/base/bytes.h"
#include "fs/format/image.h"
#include "image-fixture.h"

static const ImageHeader header = {
	.kind = FORMAT_KIND_INDEX,
	.codec = FORMAT_CODEC_LZ4,
	.tar_size = 123456789012,
	.chunks_size = 98765432109,
	.id = { { 1, 2, 3 } },
};

/* Sections 3 (5 bytes), 4 (10,000 bytes), 10 (empty). */
static uint8_t *make_image(size_t *ret_size)
{
	_cleanup_(image_writer_free_p) ImageWriter *writer = NULL;
	uint8_t bytes[10000], *data;
	memset(bytes, 'b', sizeof(bytes));
	assert_int_equal(image_writer_new(&header, &writer), 0);
	assert_int_equal(image_writer_add(writer, 3, FORMAT_SECTION_MANDATORY, "abcde", 5), 0);
	assert_int_equal(image_writer_add(writer, 4, FORMAT_SECTION_MANDATORY, bytes, sizeof(bytes)), 0);
	assert_int_equal(image_writer_add(writer, 10, 0, NULL, 0), 0);
	assert_int_equal(image_writer_finish(writer, &data, ret_size), 0);
	return data;
}

static int open_image(const uint8_t *data, size_t size)
{
	Image image;
	Error error = { 0 };
	/* A copy of the exact size shows reads past its end. */
	_cleanup_free_ uint8_t *exact = malloc(size ? size : 1);
	assert_non_null(exact);
	memcpy(exact, data, size);
	int r = image_open(exact, size, &image, &error);
	if (r < 0)
		assert_int_not_equal(error.message[0], '\0');
	return r;
}

static void test_round_trip(void **state)
{
	(void)state;
	size_t size;
	Image image;
	_cleanup_free_ uint8_t *data = make_image(&size);
	assert_int_equal(image_open(data, size, &image, NULL), 0);
	assert_int_equal(image.header.kind, FORMAT_KIND_INDEX);
	assert_int_equal(image.header.codec, FORMAT_CODEC_LZ4);
	assert_true(image.header.tar_size == header.tar_size && image.header.chunks_size == header.chunks_size);
	assert_true(digest_equal(&image.header.id, &header.id));
	for (size_t type = 0; type < ELEMENTS(image.sections); type++)
		assert_int_equal(image.sections[type].present, type == 3 || type == 4 || type == 10);
	assert_int_equal(image.sections[3].size, 5);
	assert_memory_equal(image.sections[3].data, "abcde", 5);
	assert_int_equal(image.sections[4].size, 10000);
	assert_int_equal(image.sections[10].size, 0);
}

static void test_layout(void **state)
{
	(void)state;
	size_t size;
	_cleanup_free_ uint8_t *data = make_image(&size);
	assert_memory_equal(data, "imgfsidx\x01\0\0\0\x01\0\0\0", 16);
	assert_int_equal(load_le64(data + 16), size);
	assert_int_equal(load_le32(data + 24), 4);
	const uint8_t *table = data + 96;
	assert_int_equal(load_le64(table + 8), 96 + 4 * 24); /* section 3 */
	assert_int_equal(load_le64(table + 24 + 8), 96 + 4 * 24 + 8);
	assert_int_equal(load_le64(table + 48 + 8), 96 + 4 * 24 + 8 + 10000);
	assert_int_equal(load_le32(table + 72), 0xffffffff);
	assert_int_equal(load_le64(table + 72 + 8), 96 + 4 * 24 + 8 + 10000);
	assert_int_equal(load_le64(table + 72 + 16), 4 * 8); /* three pages and the sum of their sums */
	assert_int_equal(size, 96 + 4 * 24 + 8 + 10000 + 4 * 8);
}

static void test_writer_refuses(void **state)
{
	(void)state;
	_cleanup_(image_writer_free_p) ImageWriter *writer = NULL;
	assert_int_equal(image_writer_new(&header, &writer), 0);
	assert_int_equal(image_writer_add(writer, 4, 0, "a", 1), 0);
	assert_int_equal(image_writer_add(writer, 4, 0, "a", 1), -EINVAL);
	assert_int_equal(image_writer_add(writer, 3, 0, "a", 1), -EINVAL);
	assert_int_equal(image_writer_add(writer, FORMAT_SECTION_LAYERS + 1, 0, "a", 1), -EINVAL);
}

static void test_every_flip_is_found(void **state)
{
	(void)state;
	size_t size;
	_cleanup_free_ uint8_t *data = make_image(&size);
	for (size_t at = 0; at < size; at += at < 500 || at > size - 100 ? 1 : 61) {
		data[at] ^= 0x04;
		int r = open_image(data, size);
		/* What the version or a section says is judged before the sums are. */
		assert_true(r == -EBADMSG || (r == -EPROTONOSUPPORT && at < 192));
		data[at] ^= 0x04;
	}
	assert_int_equal(open_image(data, size), 0);
}

/* The chunk table without what follows it: that need not be there, and every flip of what has to be is found. */
static void test_part(void **state)
{
	(void)state;
	size_t size, end = 0, sums = 0;
	Image image;
	_cleanup_free_ uint8_t *data = make_image(&size);
	assert_int_equal(image_part(data, size, &end, &sums, NULL), 0);
	assert_int_equal(end, 4096);
	assert_true(sums > 10000 && sums < size);
	memset(data + end, 0, sums - end);
	assert_int_equal(image_open(data, size, &image, NULL), -EBADMSG);
	assert_int_equal(image_open_part(data, size, &image, NULL), 0);
	assert_memory_equal(image.sections[3].data, "abcde", 5);
	assert_true(digest_equal(&image.header.id, &header.id));
	for (size_t i = 0; i < size; i = i + 1 == end ? sums : i + 1) {
		data[i] ^= 0x10;
		int r = image_open_part(data, size, &image, NULL);
		assert_true(r == -EBADMSG || r == -EPROTONOSUPPORT);
		data[i] ^= 0x10;
	}
	assert_int_equal(image_part(data, 95, &end, &sums, NULL), -EBADMSG);
	store_le32(data + 24, 700); /* sections, more than the head holds */
	assert_int_equal(image_part(data, size, &end, &sums, NULL), -EBADMSG);
}

static void test_truncated(void **state)
{
	(void)state;
	size_t size;
	_cleanup_free_ uint8_t *data = make_image(&size);
	for (size_t cut = 0; cut < size; cut += cut < 300 ? 1 : 97) {
		assert_int_equal(open_image(data, cut), -EBADMSG);
		if (cut >= 96) {
			store_le64(data + 16, cut);
			assert_int_equal(open_image(data, cut), -EBADMSG);
			store_le64(data + 16, size);
		}
	}
}

/* The sums are right, one field is not. */
static int open_with(size_t at, size_t width, uint64_t value)
{
	size_t size;
	_cleanup_free_ uint8_t *data = make_image(&size);
	uint8_t bytes[8];
	store_le64(bytes, value);
	memcpy(data + at, bytes, width);
	fix_sums(data, size);
	return open_image(data, size);
}

static void test_header_fields(void **state)
{
	(void)state;
	assert_int_equal(open_with(8, 4, 1), 0);
	assert_int_equal(open_with(8, 4, 2), -EPROTONOSUPPORT);
	assert_int_equal(open_with(12, 4, 3), -EPROTONOSUPPORT);
	assert_int_equal(open_with(12, 4, FORMAT_KIND_VIEW), -EBADMSG); /* of a view codec and sizes are 0 */
	assert_int_equal(open_with(28, 4, 2), -EPROTONOSUPPORT);
	assert_int_equal(open_with(32, 8, UINT64_MAX), -EBADMSG);
	assert_int_equal(open_with(40, 8, UINT64_MAX), -EBADMSG);
	assert_int_equal(open_with(80, 1, 1), -EBADMSG);
	assert_int_equal(open_with(95, 1, 1), -EBADMSG);
	assert_int_equal(open_with(24, 4, 0), -EBADMSG);
	assert_int_equal(open_with(24, 4, 3), -EBADMSG); /* the sums are not the last section */
	assert_int_equal(open_with(24, 4, UINT32_MAX), -EBADMSG);
}

static void test_section_fields(void **state)
{
	(void)state;
	const size_t first = 96, second = 96 + 24, third = 96 + 48, sums = 96 + 72, first_data = 192;
	assert_int_equal(open_with(first, 4, 0), -EBADMSG);
	assert_int_equal(open_with(first, 4, 4), -EBADMSG);
	assert_int_equal(open_with(first + 4, 4, 2), -EBADMSG);
	assert_int_equal(open_with(first + 8, 8, first_data - 8), -EBADMSG);
	assert_int_equal(open_with(second + 8, 8, first_data), -EBADMSG);
	assert_int_equal(open_with(second + 8, 8, first_data + 9), -EBADMSG);
	assert_int_equal(open_with(second + 8, 8, UINT64_MAX - 7), -EBADMSG);
	assert_int_equal(open_with(second + 16, 8, UINT64_MAX), -EBADMSG);
	assert_int_equal(open_with(second + 16, 8, 10001), -EBADMSG);
	assert_int_equal(open_with(first_data + 5, 1, 1), -EBADMSG); /* padding */
	assert_int_equal(open_with(second + 16, 8, 9999), -EBADMSG); /* what it leaves out is not 0 */
	assert_int_equal(open_with(sums + 16, 8, 3 * 8), -EBADMSG);
	assert_int_equal(open_with(third, 4, 13), 0); /* unknown, but may be skipped */
	assert_int_equal(open_with(third, 8, UINT64_C(1) << 32 | 13), -EPROTONOSUPPORT);
	assert_int_equal(open_with(third, 8, FORMAT_SECTION_STARTUP), 0);
	assert_int_equal(open_with(third, 8, UINT64_C(1) << 32 | FORMAT_SECTION_STARTUP), -EPROTONOSUPPORT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),     cmocka_unit_test(test_layout),
		cmocka_unit_test(test_writer_refuses), cmocka_unit_test(test_every_flip_is_found),
		cmocka_unit_test(test_part),           cmocka_unit_test(test_truncated),
		cmocka_unit_test(test_header_fields),  cmocka_unit_test(test_section_fields),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
