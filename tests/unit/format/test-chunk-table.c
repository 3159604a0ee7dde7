/* The chunk table: lookups against a plain sum, and tables that contradict themselves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "fs/base/bytes.h"
#include "fs/format/chunk-table.h"

#define CHUNKS 1000u

static uint32_t tar_size(uint32_t number)
{
	return 1 + number * 7919 % FORMAT_CHUNK_MAX;
}

static uint32_t blob_size(uint32_t number)
{
	return 1 + number * 104729 % FORMAT_FRAME_MAX;
}

/* `count` chunks with the sizes above; totals that the header gives may be off. */
static uint8_t *make_image(uint32_t count, int tar_off, int blob_off, Image *ret_image)
{
	_cleanup_(chunk_table_writer_free_p) ChunkTableWriter *chunks = NULL;
	_cleanup_(image_writer_free_p) ImageWriter *writer = NULL;
	ImageHeader header = { .kind = FORMAT_KIND_INDEX, .codec = FORMAT_CODEC_LZ4 };
	assert_int_equal(chunk_table_writer_new(&chunks), 0);
	for (uint32_t i = 0; i < count; i++) {
		Digest digest = { { (uint8_t)i, (uint8_t)(i >> 8) } };
		assert_int_equal(chunk_table_writer_add(chunks, tar_size(i), blob_size(i), &digest), 0);
		header.tar_size += tar_size(i);
		header.chunks_size += blob_size(i);
	}
	assert_int_equal(chunk_table_writer_count(chunks), count);
	header.tar_size += (uint64_t)tar_off;
	header.chunks_size += (uint64_t)blob_off;
	uint8_t *data;
	size_t size;
	assert_int_equal(image_writer_new(&header, &writer), 0);
	assert_int_equal(chunk_table_writer_finish(chunks, writer), 0);
	assert_int_equal(image_writer_finish(writer, &data, &size), 0);
	assert_int_equal(image_open(data, size, ret_image, NULL), 0);
	return data;
}

static void check_counts(uint32_t count)
{
	Image image;
	ChunkTable table;
	_cleanup_free_ _unused_ uint8_t *data = make_image(count, 0, 0, &image);
	assert_int_equal(chunk_table_open(&image, &table, NULL), 0);
	assert_int_equal(table.count, count);

	uint64_t tar_offset = 0, blob_offset = 0;
	for (uint32_t i = 0; i < count; i++) {
		Chunk chunk;
		chunk_table_get(&table, i, &chunk);
		assert_true(chunk.tar_offset == tar_offset && chunk.blob_offset == blob_offset);
		assert_int_equal(chunk.tar_size, tar_size(i));
		assert_int_equal(chunk.blob_size, blob_size(i));
		assert_int_equal(chunk.digest.bytes[0] | chunk.digest.bytes[1] << 8, i);
		assert_int_equal(chunk_table_find(&table, tar_offset), i);
		assert_int_equal(chunk_table_find(&table, tar_offset + chunk.tar_size - 1), i);
		uint64_t end = tar_offset + chunk.tar_size;
		uint32_t first = UINT32_MAX;
		assert_int_equal(chunk_table_find_range(&table, end - 1, end, &first), 1);
		assert_int_equal(first, i);
		assert_int_equal(chunk_table_find_range(&table, 0, end, &first), i + 1);
		assert_int_equal(first, 0);
		assert_int_equal(chunk_table_find_range(&table, tar_offset, table.tar_size, &first), count - i);
		assert_int_equal(first, i);
		assert_int_equal(chunk_table_find_blob(&table, blob_offset), i);
		assert_int_equal(chunk_table_find_blob(&table, blob_offset + chunk.blob_size - 1), i);
		tar_offset += chunk.tar_size;
		blob_offset += chunk.blob_size;
	}
	assert_true(table.tar_size == tar_offset && table.blob_size == blob_offset);
}

static void test_lookups(void **state)
{
	(void)state;
	const uint32_t counts[] = { 0, 1, 63, 64, 65, 128, CHUNKS };
	for (size_t i = 0; i < ELEMENTS(counts); i++)
		check_counts(counts[i]);
}

static void test_writer_refuses(void **state)
{
	(void)state;
	_cleanup_(chunk_table_writer_free_p) ChunkTableWriter *chunks = NULL;
	Digest digest = { { 0 } };
	assert_int_equal(chunk_table_writer_new(&chunks), 0);
	assert_int_equal(chunk_table_writer_add(chunks, 0, 1, &digest), -EINVAL);
	assert_int_equal(chunk_table_writer_add(chunks, 1, 0, &digest), -EINVAL);
	assert_int_equal(chunk_table_writer_add(chunks, FORMAT_CHUNK_MAX + 1, 1, &digest), -EINVAL);
	assert_int_equal(chunk_table_writer_add(chunks, 1, FORMAT_FRAME_MAX + 1, &digest), -EINVAL);
	assert_int_equal(chunk_table_writer_count(chunks), 0);
}

static void test_totals(void **state)
{
	(void)state;
	ChunkTable table;
	Image image;
	Error error = { 0 };
	_cleanup_free_ _unused_ uint8_t *tar = make_image(10, 1, 0, &image);
	assert_int_equal(chunk_table_open(&image, &table, &error), -EBADMSG);
	assert_non_null(strstr(error.message, "add up"));
	_cleanup_free_ _unused_ uint8_t *blob = make_image(10, 0, -1, &image);
	assert_int_equal(chunk_table_open(&image, &table, &error), -EBADMSG);
	assert_non_null(strstr(error.message, "add up"));
}

static void test_sections(void **state)
{
	(void)state;
	for (FormatSection type = FORMAT_SECTION_CHUNK_LENGTHS; type <= FORMAT_SECTION_CHUNK_DIGESTS; type++) {
		ChunkTable table;
		Image image;
		Error error = { 0 };
		_cleanup_free_ _unused_ uint8_t *data = make_image(100, 0, 0, &image);
		image.sections[type].size--;
		assert_int_equal(chunk_table_open(&image, &table, &error), -EBADMSG);
		assert_non_null(strstr(error.message, "disagree"));
		image.sections[type].present = false;
		assert_int_equal(chunk_table_open(&image, &table, &error), -EBADMSG);
		assert_non_null(strstr(error.message, "no chunk table"));
	}
}

static void refuse(size_t section, size_t at, uint32_t value, const char *sentence)
{
	ChunkTable table;
	Image image;
	Error error = { 0 };
	_cleanup_free_ uint8_t *data = make_image(100, 0, 0, &image);
	store_le32(data + (image.sections[section].data - data) + at, value);
	assert_int_equal(chunk_table_open(&image, &table, &error), -EBADMSG);
	assert_non_null(strstr(error.message, sentence));
}

static void test_values(void **state)
{
	(void)state;
	refuse(FORMAT_SECTION_CHUNK_LENGTHS, 70 * 8, 0, "chunk 70");
	refuse(FORMAT_SECTION_CHUNK_LENGTHS, 70 * 8, FORMAT_CHUNK_MAX + 1, "chunk 70");
	refuse(FORMAT_SECTION_CHUNK_LENGTHS, 70 * 8 + 4, 0, "chunk 70");
	refuse(FORMAT_SECTION_CHUNK_LENGTHS, 70 * 8 + 4, FORMAT_FRAME_MAX + 1, "chunk 70");
	refuse(FORMAT_SECTION_CHUNK_LENGTHS, 63 * 8, 1, "mark of chunk 64");
	refuse(FORMAT_SECTION_CHUNK_MARKS, 0, 1, "mark of chunk 0");
	refuse(FORMAT_SECTION_CHUNK_MARKS, 16 + 12, 1, "mark of chunk 64");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lookups),  cmocka_unit_test(test_writer_refuses), cmocka_unit_test(test_totals),
		cmocka_unit_test(test_sections), cmocka_unit_test(test_values),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
