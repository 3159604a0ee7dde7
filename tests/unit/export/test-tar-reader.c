#include "tools/export/tar-reader.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/export/tar-builder.h"

#define LISTED_MAX 16

/* Entries of a tar, copied. */
typedef struct Listed {
	TarEntry entry;
	char name[4096], target[4096];
	TreeExtent extents[64];
	char xattr_names[4][256];
	char xattr_values[4][64];
} Listed;

static Listed listed[LISTED_MAX];
static size_t listed_count;
static char message[1024];

static void keep(Listed *to, const TarEntry *entry)
{
	to->entry = *entry;
	assert_int_equal(strlen(entry->name), entry->name_size);
	strcpy(to->name, entry->name);
	strcpy(to->target, entry->target);
	for (size_t i = 0; i < entry->xattr_count && i < 4; i++) {
		snprintf(to->xattr_names[i], 256, "%.*s", (int)entry->xattrs[i].name.size, entry->xattrs[i].name.data);
		if (entry->xattrs[i].value.size <= 64)
			memcpy(to->xattr_values[i], entry->xattrs[i].value.data, entry->xattrs[i].value.size);
	}
}

/* Feeds a tar in windows of `step` bytes, and checks that every byte is accounted for. */
static int list_in_steps(const uint8_t *tar, size_t size, size_t step)
{
	_cleanup_(tar_reader_free_p) TarReader *reader = NULL;
	Error error = { 0 };
	uint64_t data = 0;
	assert_int_equal(tar_reader_new(&reader), 0);
	listed_count = 0;
	memset(listed, 0, sizeof(listed));
	for (size_t at = 0, count; at < size; at += count) {
		TarPiece piece;
		size_t window = size - at < step ? size - at : step;
		/* A copy of the exact size lets a sanitizer see reads past its end. */
		_cleanup_free_ uint8_t *exact = malloc(window);
		assert_non_null(exact);
		memcpy(exact, tar + at, window);
		int r = tar_reader_feed(reader, exact, window, &count, &piece, &error);
		if (r < 0) {
			assert_int_equal(error.code, r);
			strcpy(message, error.message);
			return r;
		}
		assert_in_range(count, 1, window);
		const TarEntry *entry = tar_reader_entry(reader);
		if (piece == TAR_ENTRY) {
			assert_int_equal(data, 0);
			assert_int_equal(entry->data_offset, at + count);
			assert_in_range(listed_count, 0, LISTED_MAX - 1);
			data = entry->data_size;
			keep(&listed[listed_count++], entry);
		} else if (piece == TAR_DATA) {
			assert_in_range(count, 1, data);
			data -= count;
		} else if (piece == TAR_OTHER) {
			assert_int_equal(data, 0);
		}
		if (data == 0 && (piece == TAR_ENTRY || piece == TAR_DATA)) {
			Listed *last = &listed[listed_count - 1];
			last->entry = *entry;
			memcpy(last->extents, entry->extents ?: last->extents,
			       (entry->extent_count < 64 ? entry->extent_count : 64) * sizeof(TreeExtent));
		}
	}
	int r = tar_reader_end(reader, &error);
	strcpy(message, error.message);
	return r;
}

static int list(Buffer *tar)
{
	static const size_t steps[] = { 1, 7, 511, 513, 1024, 3000 };
	int whole = list_in_steps(tar->data, tar->size, SIZE_MAX);
	size_t count = listed_count;
	for (size_t i = 0; i < ELEMENTS(steps); i++) {
		assert_int_equal(list_in_steps(tar->data, tar->size, steps[i]), whole);
		assert_int_equal(listed_count, count);
	}
	assert_int_equal(list_in_steps(tar->data, tar->size, SIZE_MAX), whole);
	return whole;
}

/* Lists the tar, frees it, and expects `count` entries. */
static void expect(Buffer *tar, size_t count)
{
	int r = list(tar);
	if (r < 0)
		print_error("%s\n", message);
	assert_int_equal(r, 0);
	assert_int_equal(listed_count, count);
	buffer_done(tar);
}

/* Lists the tar, frees it, and expects an error whose sentence contains `part`. */
static void expect_error(Buffer *tar, int code, const char *part)
{
	int r = list(tar);
	assert_int_equal(r, code);
	if (!strstr(message, part))
		fail_msg("\"%s\" is not in \"%s\"", part, message);
	buffer_done(tar);
}

static void test_empty(void **state _unused_)
{
	Buffer tar = { 0 };
	assert_int_equal(list_in_steps((const uint8_t *)"", 0, 1), 0);
	assert_int_equal(listed_count, 0);
	tar_end(&tar);
	expect(&tar, 0);
}

static void test_types(void **state _unused_)
{
	Buffer tar = { 0 };
	tar_file(&tar, "file", "abc", 3);
	tar_directory(&tar, "dir/");
	tar_link(&tar, "sym", '2', "../anything//");
	tar_link(&tar, "hard", '1', "./file");
	uint8_t *device = tar_header(&tar, "chr", '3', 0);
	tar_octal(device, 329, 8, 5);
	tar_octal(device, 337, 8, 6);
	tar_header(&tar, "blk", '4', 0);
	tar_header(&tar, "fifo", '6', 0);
	tar_header(&tar, "contiguous", '7', 3);
	tar_data(&tar, "abc", 3);
	tar_header(&tar, "old", '\0', 3);
	tar_data(&tar, "abc", 3);
	tar_header(&tar, "olddir/", '\0', 0);
	tar_header(&tar, "odd/", '0', 3);
	tar_data(&tar, "abc", 3);
	tar_end(&tar);
	expect(&tar, 11);
	static const char types[] = "05213460050";
	for (size_t i = 0; i < listed_count; i++)
		assert_int_equal(listed[i].entry.typeflag, types[i]);
	assert_string_equal(listed[2].target, "../anything//");
	assert_string_equal(listed[3].target, "./file");
	assert_int_equal(listed[4].entry.device_major, 5);
	assert_int_equal(listed[4].entry.device_minor, 6);
	assert_int_equal(listed[0].entry.header_offset, 0);
	assert_int_equal(listed[0].entry.data_offset, 512);
	assert_int_equal(listed[0].entry.data_size, 3);
	assert_int_equal(listed[0].entry.mode, 0644);
	assert_int_equal(listed[0].entry.uid, 1);
	assert_int_equal(listed[0].entry.gid, 2);
	assert_int_equal(listed[0].entry.mtime_sec, 3);
	assert_int_equal(listed[1].entry.header_offset, 1024);
	assert_int_equal(listed[1].entry.data_size, 0);
}

/* Sizes of types that have no data mean nothing, as in Go's archive/tar. */
static void test_sizes_without_data(void **state _unused_)
{
	static const char types[] = { '2', '3', '4', '5', '6' };
	Buffer tar = { 0 };
	for (size_t i = 0; i < ELEMENTS(types); i++)
		tar_text(tar_header(&tar, "x", types[i], 5000), 157, "t");
	tar_end(&tar);
	expect(&tar, ELEMENTS(types));
	assert_int_equal(listed[0].entry.data_size, 0);
	assert_int_equal(listed[0].entry.size, 0);
}

static void test_v7_and_star_prefix(void **state _unused_)
{
	Buffer tar = { 0 };
	uint8_t *v7 = tar_header(&tar, "v7", '0', 0);
	memset(v7 + 257, 0, 255);
	memset(v7 + 345, 'x', 20);
	tar_seal(v7);
	uint8_t *ustar = tar_header(&tar, "name", '0', 0);
	tar_text(ustar, 345, "a/b");
	uint8_t *gnu = tar_header(&tar, "gnu", '0', 0);
	memset(gnu + 345, '1', 11);
	tar_make_gnu(gnu);
	uint8_t *star = tar_header(&tar, "star", '0', 0);
	memset(star + 345, 'p', 131);
	memset(star + 476, '7', 23);
	tar_text(star, 508, "tar");
	tar_end(&tar);
	expect(&tar, 4);
	assert_string_equal(listed[0].name, "v7");
	assert_string_equal(listed[1].name, "a/b/name");
	assert_string_equal(listed[2].name, "gnu");
	assert_int_equal(listed[3].entry.name_size, 131 + 1 + 4);
}

static void test_checksums(void **state _unused_)
{
	Buffer tar = { 0 };
	uint8_t *header = tar_header(&tar, "n\xe4me\xff", '0', 0);
	int64_t sum = 0;
	memset(header + 148, ' ', 8);
	for (size_t i = 0; i < BLOCK; i++)
		sum += (int8_t)header[i];
	snprintf((char *)header + 148, 8, "%06o", (unsigned)sum);
	tar_end(&tar);
	Buffer bad = { 0 };
	assert_int_equal(buffer_append(&bad, tar.data, tar.size), 0);
	expect(&tar, 1);
	assert_string_equal(listed[0].name, "n\xe4me\xff");
	bad.data[10] ^= 1;
	expect_error(&bad, -EBADMSG, "byte 0 (at its start)");
}

static void test_base256(void **state _unused_)
{
	Buffer tar = { 0 };
	uint8_t *header = tar_header(&tar, "f", '0', 0);
	memset(header + 136, 0xff, 12); /* mtime -2 */
	header[147] = 0xfe;
	memset(header + 108, 0, 8); /* uid 0x01020304 */
	header[108] = 0x80;
	memcpy(header + 112, "\1\2\3\4", 4);
	tar_seal(header);
	tar_end(&tar);
	expect(&tar, 1);
	assert_int_equal(listed[0].entry.mtime_sec, -2);
	assert_int_equal(listed[0].entry.uid, 0x01020304);

	uint8_t huge[12] = { 0x80, 0, 0, 0, 1 }; /* a size of 2^56: there is not that much */
	header = tar_header(&tar, "f", '0', 0);
	memcpy(header + 124, huge, 12);
	tar_seal(header);
	expect_error(&tar, -EBADMSG, "before the end");
	huge[4] = 0x40; /* 2^62: sums of offsets could overflow */
	header = tar_header(&tar, "f", '0', 0);
	memcpy(header + 124, huge, 12);
	tar_seal(header);
	expect_error(&tar, -EBADMSG, "absurd");
	memset(huge + 1, 0xff, 11);
	header = tar_header(&tar, "f", '0', 0);
	memcpy(header + 124, huge, 12);
	tar_seal(header);
	expect_error(&tar, -EBADMSG, "size in a header");
	header = tar_header(&tar, "f", '0', 0);
	memset(header + 124, 0xff, 12); /* size -1 */
	tar_seal(header);
	expect_error(&tar, -EBADMSG, "size in a header");
	header = tar_header(&tar, "f", '0', 0);
	memset(header + 116, 0x80, 1); /* gid above 32 bits */
	header[118] = 1;
	tar_seal(header);
	expect_error(&tar, -EBADMSG, "gid in a header");
}

/* Feeds `size` bytes, of `from` or zeros. */
static void feed_huge(TarReader *reader, const uint8_t *from, uint64_t size)
{
	static const uint8_t zeros[1u << 20];
	Error error = { 0 };
	while (size > 0) {
		size_t window = size < sizeof(zeros) ? (size_t)size : sizeof(zeros), count;
		TarPiece piece;
		if (tar_reader_feed(reader, from ?: zeros, window, &count, &piece, &error) < 0)
			fail_msg("%s", error.message);
		size -= count;
		from = from ? from + count : NULL;
	}
}

/* A file of 9 GiB, its size once in base-256 and once in pax, and what follows it. */
static void test_huge_file(void **state _unused_)
{
	const uint64_t huge = (UINT64_C(9) << 30) + 1;
	for (int form = 0; form < 2; form++) {
		_cleanup_(tar_reader_free_p) TarReader *reader = NULL;
		Buffer tar = { 0 }, next = { 0 };
		if (form == 1)
			tar_pax(&tar, "size", "9663676417");
		uint8_t *header = tar_header(&tar, "huge", '0', 0);
		if (form == 0)
			memcpy(header + 124, (uint8_t[12]){ 0x80, [7] = 2, 0x40, 0, 0, 1 }, 12);
		tar_seal(header);
		tar_file(&next, "next", "x", 1);
		tar_end(&next);
		assert_int_equal(tar_reader_new(&reader), 0);
		feed_huge(reader, tar.data, tar.size);
		const TarEntry *entry = tar_reader_entry(reader);
		assert_int_equal(entry->size, huge);
		assert_int_equal(entry->data_size, huge);
		feed_huge(reader, NULL, huge + BLOCK - 1);
		feed_huge(reader, next.data, next.size);
		assert_string_equal(entry->name, "next");
		assert_int_equal(entry->header_offset, tar.size + huge + BLOCK - 1);
		assert_int_equal(tar_reader_end(reader, NULL), 0);
		buffer_done(&tar);
		buffer_done(&next);
	}
}

static void test_bad_numbers(void **state _unused_)
{
	static const struct {
		size_t offset;
		const char *name;
	} fields[] = { { 100, "mode" }, { 108, "uid" }, { 116, "gid" }, { 124, "size" }, { 136, "mtime" } };
	for (size_t i = 0; i < ELEMENTS(fields); i++) {
		Buffer tar = { 0 };
		tar_text(tar_header(&tar, "f", '0', 0), fields[i].offset, "12x4");
		expect_error(&tar, -EBADMSG, fields[i].name);
	}
	Buffer tar = { 0 };
	tar_text(tar_header(&tar, "f", '3', 0), 329, "8");
	expect_error(&tar, -EBADMSG, "device number");
}

static void test_gnu_long_names(void **state _unused_)
{
	char name[1001], target[2001];
	memset(name, 'n', 1000);
	memset(target, 't', 2000);
	for (size_t i = 200; i < 1000; i += 200)
		name[i] = target[i] = '/';
	name[1000] = target[2000] = '\0';
	Buffer tar = { 0 };
	tar_extension(&tar, 'L', name, 1001);
	tar_extension(&tar, 'K', target, 2001);
	tar_link(&tar, "short", '2', "short");
	tar_file(&tar, "next", "", 0);
	tar_extension(&tar, 'L', "", 0); /* says nothing */
	tar_file(&tar, "last", "", 0);
	tar_end(&tar);
	expect(&tar, 3);
	assert_string_equal(listed[0].name, name);
	assert_string_equal(listed[0].target, target);
	assert_int_equal(listed[0].entry.header_offset, 0);
	assert_int_equal(listed[0].entry.data_offset, 512 + 1024 + 512 + 2048 + 512);
	assert_string_equal(listed[1].name, "next");
	assert_string_equal(listed[2].name, "last");
}

static void test_pax(void **state _unused_)
{
	Buffer tar = { 0 }, records = { 0 };
	tar_record(&records, "path", "dir/p\xc3\xa4th", 9);
	tar_record(&records, "size", "3", 1);
	tar_record(&records, "uid", "4000000000", 10);
	tar_record(&records, "gid", "77", 2);
	tar_record(&records, "mtime", "-1.25", 5);
	tar_record(&records, "comment", "a\0b", 3);
	tar_record(&records, "SCHILY.xattr.user.bin", "\0\n=\xff", 4);
	tar_record(&records, "LIBARCHIVE.xattr.user.a%3db", "AAEC/w", 6);
	tar_record(&records, "SCHILY.xattr.user.empty", "", 0);
	tar_record(&records, "SCHILY.xattr.user.bin", "x\0", 2);
	tar_extension(&tar, 'x', records.data, records.size);
	tar_header(&tar, "short", '0', 0);
	tar_data(&tar, "abc", 3);
	tar_file(&tar, "plain", "", 0);
	tar_end(&tar);
	buffer_done(&records);
	expect(&tar, 2);
	const TarEntry *entry = &listed[0].entry;
	assert_string_equal(listed[0].name, "dir/p\xc3\xa4th");
	assert_int_equal(entry->data_size, 3);
	assert_int_equal(entry->size, 3);
	assert_int_equal(entry->uid, 4000000000);
	assert_int_equal(entry->gid, 77);
	assert_int_equal(entry->mtime_sec, -2);
	assert_int_equal(entry->mtime_nsec, 750000000);
	assert_int_equal(entry->xattr_count, 3);
	assert_string_equal(listed[0].xattr_names[0], "user.bin");
	assert_memory_equal(listed[0].xattr_values[0], "x\0", 3);
	assert_string_equal(listed[0].xattr_names[1], "user.a=b");
	assert_memory_equal(listed[0].xattr_values[1], "\0\1\2\xff", 4);
	assert_string_equal(listed[0].xattr_names[2], "user.empty");
	assert_int_equal(listed[1].entry.xattr_count, 0);
	assert_int_equal(listed[1].entry.uid, 1);
	assert_int_equal(listed[1].entry.mtime_sec, 3);
}

static void test_pax_mtime(void **state _unused_)
{
	static const struct {
		const char *text;
		int64_t sec;
		uint32_t nsec;
	} times[] = {
		{ "0", 0, 0 },
		{ "1700000000.123456789", 1700000000, 123456789 },
		{ "5.", 5, 0 },
		{ "1.1234567899999", 1, 123456789 },
		{ "-0.5", -1, 500000000 },
		{ "-3", -3, 0 },
		{ "-9223372036854775806", -9223372036854775806, 0 },
		{ "9223372036854775806.5", 9223372036854775806, 500000000 },
	};
	for (size_t i = 0; i < ELEMENTS(times); i++) {
		Buffer tar = { 0 };
		tar_pax(&tar, "mtime", times[i].text);
		tar_file(&tar, "f", "", 0);
		expect(&tar, 1);
		assert_true(listed[0].entry.mtime_sec == times[i].sec);
		assert_int_equal(listed[0].entry.mtime_nsec, times[i].nsec);
	}
	static const char *const bad[] = { "x", "-", "1.x", "--1", "9223372036854775808", "1e5", " 1", ".5" };
	for (size_t i = 0; i < ELEMENTS(bad); i++) {
		Buffer tar = { 0 };
		tar_pax(&tar, "mtime", bad[i]);
		tar_file(&tar, "f", "", 0);
		expect_error(&tar, -EBADMSG, "record mtime");
	}
}

static void test_pax_precedence(void **state _unused_)
{
	Buffer tar = { 0 }, records = { 0 };
	tar_record(&records, "uid", "10", 2);
	tar_record(&records, "gid", "11", 2);
	tar_record(&records, "SCHILY.xattr.user.g", "global", 6);
	tar_record(&records, "SCHILY.xattr.user.h", "also", 4);
	tar_extension(&tar, 'g', records.data, records.size);
	records.size = 0;
	tar_record(&records, "uid", "20", 2);
	tar_record(&records, "gid", "", 0);
	tar_record(&records, "SCHILY.xattr.user.g", "local", 5);
	tar_extension(&tar, 'x', records.data, records.size);
	tar_extension(&tar, 'L', "gnu", 4);
	tar_pax(&tar, "path", "pax");
	tar_file(&tar, "header", "", 0);
	tar_file(&tar, "second", "", 0);
	records.size = 0;
	tar_record(&records, "uid", "", 0);
	tar_extension(&tar, 'g', records.data, records.size);
	tar_file(&tar, "third", "", 0);
	tar_extension(&tar, 'g', records.data, records.size);
	tar_end(&tar);
	buffer_done(&records);
	expect(&tar, 3);
	assert_string_equal(listed[0].name, "pax");
	assert_int_equal(listed[0].entry.header_offset, 0);
	assert_int_equal(listed[0].entry.uid, 20);
	assert_int_equal(listed[0].entry.gid, 2);
	assert_int_equal(listed[0].entry.xattr_count, 2);
	assert_memory_equal(listed[0].xattr_values[0], "local", 5);
	assert_memory_equal(listed[0].xattr_values[1], "also", 4);
	assert_int_equal(listed[1].entry.uid, 10);
	assert_int_equal(listed[1].entry.gid, 11);
	assert_int_equal(listed[1].entry.xattr_count, 2);
	assert_memory_equal(listed[1].xattr_values[0], "global", 6);
	assert_int_equal(listed[2].entry.uid, 1);
	assert_int_equal(listed[2].entry.gid, 11);
}

static void test_bad_pax(void **state _unused_)
{
	static const char *const bad[] = {
		"5 a=b\n",   "7 a=b\n", "0 a=b\n",
		"6 a=bx",    "6 =bc\n", "5 ab\n",
		"x",         "a=b\n",   "18446744073709551616 a=b\n",
		"6 a=b\n\n",
	};
	for (size_t i = 0; i < ELEMENTS(bad); i++) {
		Buffer tar = { 0 };
		tar_extension(&tar, 'x', bad[i], strlen(bad[i]));
		tar_file(&tar, "f", "", 0);
		expect_error(&tar, -EBADMSG, "pax record");
	}
	static const struct {
		const char *key, *value;
		size_t size;
		int code;
	} records[] = {
		{ "path", "a\0b", 3, -EBADMSG },
		{ "linkpath", "\0", 1, -EBADMSG },
		{ "size", "-1", 2, -EBADMSG },
		{ "size", "9223372036854775808", 19, -EBADMSG },
		{ "uid", "4294967296", 10, -EBADMSG },
		{ "gid", "1 ", 2, -EBADMSG },
		{ "SCHILY.xattr.", "x", 1, -EBADMSG },
		{ "LIBARCHIVE.xattr.a%00b", "eA==", 4, -EBADMSG },
		{ "LIBARCHIVE.xattr.a", "e!", 2, -EBADMSG },
		{ "GNU.sparse.map", "1,2,3", 5, -EBADMSG },
		{ "GNU.sparse.numbytes", "1", 1, -EBADMSG },
	};
	for (size_t i = 0; i < ELEMENTS(records); i++) {
		Buffer tar = { 0 }, record = { 0 };
		tar_record(&record, records[i].key, records[i].value, records[i].size);
		tar_extension(&tar, 'x', record.data, record.size);
		tar_file(&tar, "f", "", 0);
		buffer_done(&record);
		expect_error(&tar, records[i].code, "pax record");
	}
}

static void test_limits(void **state _unused_)
{
	Buffer tar = { 0 };
	static char big[(1 << 20) + 600];
	memset(big, 'a', sizeof(big));
	tar_header(&tar, "x", 'x', (1 << 20) + 1);
	expect_error(&tar, -EOPNOTSUPP, "pax header of more than 1048576");
	tar_header(&tar, "x", 'L', (1 << 16) + 1);
	expect_error(&tar, -EOPNOTSUPP, "long name header of more than 65536");

	tar_extension(&tar, 'L', big, 256);
	tar_file(&tar, "f", "", 0);
	expect_error(&tar, -EOPNOTSUPP, "component of more than 255");
	for (size_t i = 100; i < 5000; i += 100)
		big[i] = '/';
	tar_extension(&tar, 'L', big, 4096);
	tar_file(&tar, "f", "", 0);
	expect_error(&tar, -EOPNOTSUPP, "name of more than 4095");
	tar_extension(&tar, 'L', big, 4095);
	tar_file(&tar, "f", "", 0);
	expect(&tar, 1);
	assert_int_equal(listed[0].entry.name_size, 4095);
	tar_extension(&tar, 'K', big, 4096);
	tar_link(&tar, "f", '2', "");
	expect_error(&tar, -EOPNOTSUPP, "target of more than 4095");

	static const char *const bad[] = { "..", "../a", "a/..", "a/../b", "/..", "./../a" };
	for (size_t i = 0; i < ELEMENTS(bad); i++) {
		tar_file(&tar, bad[i], "", 0);
		expect_error(&tar, -EOPNOTSUPP, "\"..\" in name");
		assert_non_null(strstr(message, "does not take such layers"));
		tar_link(&tar, "f", '1', bad[i]);
		expect_error(&tar, -EOPNOTSUPP, "hard link f: a \"..\" in link target");
	}
	tar_file(&tar, "...", "", 0);
	tar_file(&tar, "..a/b..", "", 0);
	expect(&tar, 2);
	tar_file(&tar, "", "", 0);
	expect_error(&tar, -EBADMSG, "empty name");
	tar_link(&tar, "f", '1', "");
	expect_error(&tar, -EBADMSG, "empty link target");
	tar_link(&tar, "f", '2', "");
	expect_error(&tar, -EBADMSG, "no target");

	Buffer record = { 0 };
	memset(big, 'a', sizeof(big));
	tar_record(&record, "SCHILY.xattr.user.big", big, 65537);
	tar_extension(&tar, 'x', record.data, record.size);
	expect_error(&tar, -EOPNOTSUPP, "larger than Linux allows");
	record.size = 0;
	tar_record(&record, "path", big, 70000);
	tar_extension(&tar, 'g', record.data, record.size);
	expect_error(&tar, -EOPNOTSUPP, "global pax records");
	buffer_done(&record);
	tar_extension(&tar, 'x', "", 0);
	for (size_t i = 0; i < 66; i++)
		tar_extension(&tar, 'L', big, 65536);
	assert_int_equal(list_in_steps(tar.data, tar.size, SIZE_MAX), -EOPNOTSUPP);
	assert_non_null(strstr(message, "headers of more than"));
	buffer_done(&tar);
}

/* More comments than a global header may hold leave nothing behind. */
static void test_global_comments(void **state _unused_)
{
	Buffer tar = { 0 }, record = { 0 };
	static char comment[40000];
	memset(comment, 'c', sizeof(comment));
	tar_record(&record, "comment", comment, sizeof(comment));
	for (size_t i = 0; i < 3; i++)
		tar_extension(&tar, 'g', record.data, record.size);
	tar_file(&tar, "f", "", 0);
	buffer_done(&record);
	assert_int_equal(list_in_steps(tar.data, tar.size, SIZE_MAX), 0);
	assert_int_equal(listed_count, 1);
	buffer_done(&tar);
}

static void test_refused_types(void **state _unused_)
{
	static const char types[] = "MNVDXA89Iz";
	for (size_t i = 0; types[i]; i++) {
		Buffer tar = { 0 };
		tar_file(&tar, "before", "", 0);
		tar_header(&tar, "f", types[i], 0);
		expect_error(&tar, -EOPNOTSUPP, "type");
	}
}

static void test_hard_link_data(void **state _unused_)
{
	static const uint8_t body[600] = "data of a hard link";
	Buffer tar = { 0 };
	tar_text(tar_header(&tar, "before-header", '1', 600), 157, "t");
	tar_text(tar_header(&tar, "before-end", '1', 600), 157, "t");
	tar_end(&tar);
	expect(&tar, 2);
	assert_int_equal(listed[0].entry.data_size, 0);
	assert_int_equal(listed[1].entry.data_size, 0);

	tar_text(tar_header(&tar, "at-end", '1', 600), 157, "t");
	expect(&tar, 1);
	assert_int_equal(listed[0].entry.data_size, 0);

	tar_text(tar_header(&tar, "body", '1', 600), 157, "t");
	tar_data(&tar, body, 600);
	tar_pax(&tar, "size", "600");
	tar_link(&tar, "body by pax", '1', "t");
	tar_data(&tar, body, 600);
	tar_file(&tar, "f", "", 0);
	for (size_t step = TAR_LOOKAHEAD; step < 3 * BLOCK; step += 211) {
		assert_int_equal(list_in_steps(tar.data, tar.size, step), 0);
		assert_int_equal(listed_count, 3);
		assert_int_equal(listed[0].entry.data_size, 600);
		assert_int_equal(listed[1].entry.data_size, 600);
	}
	/* Smaller windows than a caller may offer: the body is taken for garbage, not for entries. */
	assert_int_equal(list_in_steps(tar.data, tar.size, 100), -EBADMSG);
	buffer_done(&tar);

	tar_text(tar_header(&tar, "short body at end", '1', 19), 157, "t");
	assert_int_equal(buffer_append(&tar, body, 19), 0);
	assert_int_equal(list_in_steps(tar.data, tar.size, SIZE_MAX), 0);
	assert_int_equal(listed[0].entry.data_size, 19);
	buffer_done(&tar);
}

static void test_ends(void **state _unused_)
{
	Buffer tar = { 0 };
	tar_file(&tar, "f", "abc", 3);
	tar.size -= 509; /* neither padding nor end marker */
	expect(&tar, 1);
	tar_file(&tar, "f", "abc", 3);
	tar.size -= 510;
	expect_error(&tar, -EBADMSG, "1 bytes before the end");
	tar_file(&tar, "f", "abc", 3);
	tar.size -= 100; /* part of the padding */
	expect(&tar, 1);
	tar_header(&tar, "f", '0', 0);
	tar.size -= 1;
	expect_error(&tar, -EBADMSG, "inside a header");
	tar_header(&tar, "x", 'x', 10);
	expect_error(&tar, -EBADMSG, "inside a header");
	tar_extension(&tar, 'L', "name", 5);
	expect_error(&tar, -EBADMSG, "inside a header");
	tar_extension(&tar, 'L', "name", 5);
	tar_end(&tar);
	expect_error(&tar, -EBADMSG, "without an entry");
	tar_file(&tar, "f", "", 0);
	tar_end(&tar);
	tar.size -= 700; /* part of a zero block */
	expect(&tar, 1);

	tar_file(&tar, "f", "", 0);
	tar_end(&tar);
	tar_file(&tar, "behind", "junk", 4);
	assert_int_equal(buffer_append(&tar, "more", 4), 0);
	expect(&tar, 1);
	/* A lone zero block. */
	tar_file(&tar, "f", "", 0);
	tar_end(&tar);
	tar.size -= 512;
	tar_file(&tar, "g", "", 0);
	tar_end(&tar);
	expect(&tar, 2);
	assert_int_equal(listed[1].entry.header_offset, 1024);
	/* Two of them, a header between, are no end marker. */
	for (size_t i = 0; i < 3; i++) {
		tar_file(&tar, "f", "", 0);
		tar_end(&tar);
		tar.size -= 512;
	}
	expect(&tar, 3);
	tar_file(&tar, "f", "", 0);
	tar_end(&tar);
	tar.size -= 512;
	tar_data(&tar, "garbage", 7);
	expect_error(&tar, -EBADMSG, "byte 1024 (after f)");
}

static void test_garbage(void **state _unused_)
{
	Buffer tar = { 0 };
	tar_file(&tar, "good\nname", "abc", 3);
	tar_data(&tar, "garbage", 7);
	tar_file(&tar, "never seen", "abc", 3);
	expect_error(&tar, -EBADMSG, "byte 1024 (after good?name)");
	assert_int_equal(listed_count, 1);
}

static void check_extents(const Listed *file, uint64_t first)
{
	assert_true(file->entry.sparse);
	assert_int_equal(file->entry.typeflag, '0');
	assert_int_equal(file->entry.size, 100000);
	assert_int_equal(file->entry.extent_count, 2);
	assert_int_equal(file->extents[0].file_offset, 512);
	assert_int_equal(file->extents[0].length, 1024);
	assert_int_equal(file->extents[0].tar_offset, first);
	assert_int_equal(file->extents[1].file_offset, 50000);
	assert_int_equal(file->extents[1].length, 100);
	assert_int_equal(file->extents[1].tar_offset, first + 1024);
}

static void test_sparse_pax_0(void **state _unused_)
{
	static const uint8_t data[1124];
	Buffer tar = { 0 }, records = { 0 };
	static const char *const numbers[] = { "512", "1024", "50000", "100", "100000", "0" };
	tar_record(&records, "GNU.sparse.size", "100000", 6);
	tar_record(&records, "GNU.sparse.numblocks", "3", 1);
	for (size_t i = 0; i < ELEMENTS(numbers); i++)
		tar_record(&records, i % 2 ? "GNU.sparse.numbytes" : "GNU.sparse.offset", numbers[i],
			   strlen(numbers[i]));
	tar_extension(&tar, 'x', records.data, records.size);
	tar_file(&tar, "sparse00", data, sizeof(data));
	records.size = 0;
	tar_record(&records, "GNU.sparse.size", "100000", 6);
	tar_record(&records, "GNU.sparse.name", "real/name", 9);
	tar_record(&records, "GNU.sparse.map", "512,1024,50000,100,100000,0", 27);
	tar_extension(&tar, 'x', records.data, records.size);
	tar_file(&tar, "GNUSparseFile.1/sparse01", data, sizeof(data));
	tar_file(&tar, "plain", "", 0);
	buffer_done(&records);
	expect(&tar, 3);
	check_extents(&listed[0], listed[0].entry.data_offset);
	check_extents(&listed[1], listed[1].entry.data_offset);
	assert_string_equal(listed[0].name, "sparse00");
	assert_string_equal(listed[1].name, "real/name");
	assert_false(listed[2].entry.sparse);
}

static void put_sparse_1(Buffer *tar, const char *map, size_t map_size, size_t data_size)
{
	Buffer records = { 0 };
	static const uint8_t data[2048];
	tar_record(&records, "GNU.sparse.major", "1", 1);
	tar_record(&records, "GNU.sparse.minor", "0", 1);
	tar_record(&records, "GNU.sparse.name", "real", 4);
	tar_record(&records, "GNU.sparse.realsize", "100000", 6);
	tar_extension(tar, 'x', records.data, records.size);
	tar_header(tar, "GNUSparseFile.1/s", '0', (map_size + 511) / 512 * 512 + data_size);
	tar_data(tar, map, map_size);
	tar_data(tar, data, data_size);
	buffer_done(&records);
}

static void test_sparse_pax_1(void **state _unused_)
{
	Buffer tar = { 0 };
	static const char map[] = "3\n512\n1024\n50000\n100\n100000\n0\n";
	put_sparse_1(&tar, map, strlen(map), 1124);
	put_sparse_1(&tar, "0\n", 2, 0);
	char long_map[1200];
	size_t size = (size_t)snprintf(long_map, sizeof(long_map), "50\n");
	for (unsigned i = 0; i < 50; i++)
		size += (size_t)snprintf(long_map + size, sizeof(long_map) - size, "%u\n%u\n", 1000 * i, 10u);
	put_sparse_1(&tar, long_map, size, 500);
	expect(&tar, 3);
	check_extents(&listed[0], listed[0].entry.data_offset + 512);
	assert_string_equal(listed[0].name, "real");
	assert_int_equal(listed[1].entry.extent_count, 0);
	assert_true(listed[1].entry.sparse);
	assert_int_equal(listed[2].entry.extent_count, 50);
	assert_int_equal(listed[2].extents[49].tar_offset, listed[2].entry.data_offset + 512 + 490);

	static const struct {
		const char *map;
		size_t data_size;
		int code;
	} bad[] = {
		{ "1\n0\n5\n", 4, -EBADMSG },
		{ "1\n0\n5\n", 6, -EBADMSG },
		{ "2\n0\n5\n4\n5\n", 10, -EBADMSG },
		{ "1\n99999\n2\n", 2, -EBADMSG },
		{ "1\n9999999999999999999\n2\n", 2, -EBADMSG },
		{ "1\n99999999999999999999\n2\n", 2, -EBADMSG },
		{ "1\n-5\n2\n", 2, -EBADMSG },
		{ "\n1\n2\n", 2, -EBADMSG },
		{ "2\n0\n", 0, -EBADMSG },
		{ "1048577\n0\n", 0, -EOPNOTSUPP },
	};
	for (size_t i = 0; i < ELEMENTS(bad); i++) {
		put_sparse_1(&tar, bad[i].map, strlen(bad[i].map), bad[i].data_size);
		tar_end(&tar);
		expect_error(&tar, bad[i].code, "sparse file");
	}
	put_sparse_1(&tar, "", 0, 0);
	expect_error(&tar, -EBADMSG, "has no map");
}

static void old_pair(uint8_t *at, uint64_t offset, uint64_t length)
{
	snprintf((char *)at, 12, "%011llo", (unsigned long long)offset);
	snprintf((char *)at + 12, 12, "%011llo", (unsigned long long)length);
}

static void test_sparse_old(void **state _unused_)
{
	static const uint8_t data[2048];
	Buffer tar = { 0 };
	uint8_t *header = tar_header(&tar, "old", 'S', 1124);
	old_pair(header + 386, 512, 1024);
	old_pair(header + 410, 50000, 100);
	old_pair(header + 434, 100000, 0);
	tar_octal(header, 483, 12, 100000);
	tar_make_gnu(header);
	tar_data(&tar, data, 1124);

	header = tar_header(&tar, "extended", 'S', 26 * 10);
	for (unsigned i = 0; i < 4; i++)
		old_pair(header + 386 + 24 * i, 100 * i, 10);
	header[482] = 1;
	tar_octal(header, 483, 12, 100000);
	tar_make_gnu(header);
	uint8_t blocks[1024] = { 0 };
	for (unsigned i = 0; i < 21; i++)
		old_pair(blocks + 24 * i, 100 * (4 + i), 10);
	blocks[504] = 1;
	old_pair(blocks + 512, 2500, 10);
	tar_data(&tar, blocks, sizeof(blocks));
	tar_data(&tar, data, 260);
	tar_file(&tar, "plain", "", 0);
	expect(&tar, 3);
	check_extents(&listed[0], listed[0].entry.data_offset);
	assert_int_equal(listed[1].entry.data_offset, 512 + 1536 + 3 * 512);
	assert_int_equal(listed[1].entry.extent_count, 26);
	assert_int_equal(listed[1].extents[25].file_offset, 2500);
	assert_false(listed[2].entry.sparse);

	header = tar_header(&tar, "bad", 'S', 10);
	old_pair(header + 386, 0, 11);
	tar_octal(header, 483, 12, 11);
	tar_make_gnu(header);
	expect_error(&tar, -EBADMSG, "less data than its map");
	header = tar_header(&tar, "star", 'S', 0);
	expect_error(&tar, -EOPNOTSUPP, "other than GNU's");
}

static void test_sparse_unknown(void **state _unused_)
{
	Buffer tar = { 0 }, records = { 0 };
	tar_record(&records, "GNU.sparse.major", "2", 1);
	tar_record(&records, "GNU.sparse.realsize", "5", 1);
	tar_extension(&tar, 'x', records.data, records.size);
	tar_file(&tar, "f", "abc", 3);
	expect_error(&tar, -EOPNOTSUPP, "unknown format 2.0");
	tar_extension(&tar, 'g', records.data, records.size);
	expect_error(&tar, -EOPNOTSUPP, "global");
	tar_pax(&tar, "GNU.sparse.size", "5");
	tar_file(&tar, "f", "abc", 3);
	expect_error(&tar, -EBADMSG, "no whole map");
	buffer_done(&records);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_empty),
		cmocka_unit_test(test_types),
		cmocka_unit_test(test_sizes_without_data),
		cmocka_unit_test(test_v7_and_star_prefix),
		cmocka_unit_test(test_checksums),
		cmocka_unit_test(test_base256),
		cmocka_unit_test(test_huge_file),
		cmocka_unit_test(test_bad_numbers),
		cmocka_unit_test(test_gnu_long_names),
		cmocka_unit_test(test_pax),
		cmocka_unit_test(test_pax_mtime),
		cmocka_unit_test(test_pax_precedence),
		cmocka_unit_test(test_bad_pax),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_global_comments),
		cmocka_unit_test(test_refused_types),
		cmocka_unit_test(test_hard_link_data),
		cmocka_unit_test(test_ends),
		cmocka_unit_test(test_garbage),
		cmocka_unit_test(test_sparse_pax_0),
		cmocka_unit_test(test_sparse_pax_1),
		cmocka_unit_test(test_sparse_old),
		cmocka_unit_test(test_sparse_unknown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
