/* Archives made by hand, good ones and bad ones; and what is told about two of them. */
#include "tools/export/zip-list.h"

#include <string.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "fs/base/bytes.h"
#include "fs/format/buffer.h"

typedef struct Entry {
	const char *name;
	uint32_t crc, size;
	uint16_t time;
} Entry;

static uint8_t *extend(Buffer *buffer, size_t size)
{
	uint8_t *room = buffer_extend(buffer, size);
	assert_non_null(room);
	memset(room, 0, size);
	return room;
}

/* An archive's directory and end; what stands before them is of no matter. */
static Buffer make_zip(const Entry *entries, uint16_t count, bool large, uint16_t comment)
{
	Buffer zip = { 0 };
	memcpy(extend(&zip, 100), "PK\003\004", 4);
	for (uint16_t i = 0; i < count; i++) {
		uint16_t name = (uint16_t)strlen(entries[i].name), extra = large ? 12 : 0;
		uint8_t *record = extend(&zip, 46u + name + extra);
		memcpy(record, "PK\001\002", 4);
		store_le16(record + 12, entries[i].time);
		store_le32(record + 16, entries[i].crc);
		store_le32(record + 20, 10);
		store_le32(record + 24, large ? UINT32_MAX : entries[i].size);
		store_le16(record + 28, name);
		store_le16(record + 30, extra);
		memcpy(record + 46, entries[i].name, name);
		if (large) {
			store_le16(record + 46 + name, 1);
			store_le16(record + 48 + name, 8);
			store_le64(record + 50 + name, entries[i].size);
		}
	}
	uint32_t size = (uint32_t)zip.size - 100;
	if (large) {
		uint8_t *end = extend(&zip, 56 + 20);
		memcpy(end, "PK\006\006", 4);
		store_le64(end + 32, count);
		store_le64(end + 40, size);
		store_le64(end + 48, 100);
		memcpy(end + 56, "PK\006\007", 4);
		store_le64(end + 64, 100 + size);
	}
	uint8_t *end = extend(&zip, 22u + comment);
	memcpy(end, "PK\005\006", 4);
	store_le16(end + 10, large ? UINT16_MAX : count);
	store_le32(end + 12, large ? UINT32_MAX : size);
	store_le32(end + 16, large ? UINT32_MAX : 100);
	store_le16(end + 20, comment);
	return zip;
}

static int read_memory(void *arg, uint64_t offset, void *buffer, size_t size, Error *error _unused_)
{
	const Buffer *zip = arg;
	assert_true(range_within(offset, size, zip->size));
	memcpy(buffer, zip->data + offset, size);
	return 0;
}

static int list(const Buffer *zip, ZipList *ret_list)
{
	Error error = { 0 };
	return zip_list_read(read_memory, (void *)(uintptr_t)zip, zip->size, ret_list, &error);
}

static const Entry some[] = { { "b.class", 1, 100, 7 }, { "META-INF/", 0, 0, 7 }, { "a.class", 2, 200, 7 } };

static void test_read(void **state _unused_)
{
	for (int large = 0; large < 2; large++) {
		for (uint16_t comment = 0; comment <= 1000; comment += 1000) {
			Buffer zip = make_zip(some, 3, large, comment);
			ZipList found = { 0 };
			assert_int_equal(list(&zip, &found), 0);
			assert_int_equal(found.count, 3);
			assert_memory_equal(found.entries[1].name, "a.class", 7);
			assert_int_equal(found.entries[1].size, 200);
			assert_int_equal(found.entries[1].crc, 2);
			assert_int_equal(found.entries[1].number, 2);
			zip_list_done(&found);
			zip_list_done(&found);
			buffer_done(&zip);
		}
	}
	Buffer empty = make_zip(NULL, 0, false, 0);
	ZipList found = { 0 };
	assert_int_equal(list(&empty, &found), 0);
	assert_int_equal(found.count, 0);
	zip_list_done(&found);
	buffer_done(&empty);
}

static void test_bad(void **state _unused_)
{
	for (int large = 0; large < 2; large++) {
		Buffer zip = make_zip(some, 3, large, 0);
		/* Cut short anywhere. */
		for (size_t size = 0; size < zip.size; size++) {
			Buffer part = { .data = zip.data, .size = size };
			ZipList found = { 0 };
			assert_int_equal(list(&part, &found), -EBADMSG);
		}
		/* Any byte of directory and end at its most. */
		for (size_t i = 100; i < zip.size; i++) {
			ZipList found = { 0 };
			uint8_t byte = zip.data[i];
			zip.data[i] = 0xff;
			int r = list(&zip, &found);
			assert_true(r == 0 || r == -EBADMSG);
			zip_list_done(&found);
			zip.data[i] = byte;
		}
		buffer_done(&zip);
	}
	Buffer zip = make_zip(some, 3, false, 0);
	ZipList found = { 0 };
	store_le16(zip.data + zip.size - 12, 4); /* one entry more than there is */
	assert_int_equal(list(&zip, &found), -EBADMSG);
	buffer_done(&zip);
}

static ZipDifference compare(const Entry *left, uint16_t left_count, const Entry *right, uint16_t right_count)
{
	Buffer first = make_zip(left, left_count, false, 0), second = make_zip(right, right_count, false, 0);
	ZipList one = { 0 }, other = { 0 };
	ZipDifference difference;
	assert_int_equal(list(&first, &one), 0);
	assert_int_equal(list(&second, &other), 0);
	assert_int_equal(zip_list_compare(&one, &other, &difference), 0);
	zip_list_done(&one);
	zip_list_done(&other);
	buffer_done(&first);
	buffer_done(&second);
	return difference;
}

static void expect(ZipDifference found, uint32_t entries, uint32_t differ, bool times, bool layout)
{
	assert_int_equal(found.entries, entries);
	assert_int_equal(found.differ, differ);
	assert_int_equal(found.times_differ, times);
	assert_int_equal(found.layout_differs, layout);
}

static void test_compare(void **state _unused_)
{
	static const Entry later[] = { { "b.class", 1, 100, 7 }, { "META-INF/", 0, 0, 7 }, { "a.class", 2, 200, 8 } };
	static const Entry moved[] = { { "a.class", 2, 200, 7 }, { "META-INF/", 0, 0, 7 }, { "b.class", 1, 100, 7 } };
	static const Entry flat[] = { { "b.class", 1, 100, 7 }, { "a.class", 2, 200, 7 } };
	static const Entry crc[] = { { "b.class", 1, 100, 7 }, { "META-INF/", 0, 0, 7 }, { "a.class", 3, 200, 7 } };
	static const Entry more[] = {
		{ "b.class", 1, 100, 7 }, { "META-INF/", 0, 0, 7 }, { "a.class", 2, 200, 7 }, { "c.class", 2, 200, 7 }
	};
	expect(compare(some, 3, some, 3), 2, 0, false, false);
	expect(compare(some, 3, later, 3), 2, 0, true, false);
	expect(compare(some, 3, moved, 3), 2, 0, false, true);
	expect(compare(some, 3, flat, 2), 2, 0, false, true);
	expect(compare(some, 3, crc, 3), 2, 1, false, false);
	expect(compare(some, 3, more, 4), 3, 1, false, false);
	expect(compare(more, 4, some, 3), 3, 1, false, false);
	expect(compare(some, 0, some, 3), 2, 2, false, true);
	assert_int_equal(compare(some, 3, more, 4).differ_bytes, 10);
	assert_int_equal(compare(more, 4, some, 3).differ_bytes, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_read),
		cmocka_unit_test(test_bad),
		cmocka_unit_test(test_compare),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
