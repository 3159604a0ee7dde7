/* Two images made by hand, and what is told of them. */
#include "tools/export/image-diff.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "fs/base/bytes.h"
#include "tests/unit/export/image-fixture.h"
#include "tests/unit/export/tar-builder.h"

#define LARGE (300u << 10)

typedef struct DiffFixture {
	StoreFixture store;
	StoreImage left, right;
	ImageDiff diff;
} DiffFixture;

/* Compares images of these layers; takes the tars over. */
static int try_compare(DiffFixture *fixture, Buffer *left, size_t left_count, Buffer *right, size_t right_count,
		       Error *error)
{
	*fixture = (DiffFixture){ 0 };
	store_fixture_open(&fixture->store);
	image_fixture_put(&fixture->store, left, left_count, "left", "v1", &fixture->left);
	image_fixture_put(&fixture->store, right, right_count, "right", "v1", &fixture->right);
	int r = image_diff(fixture->store.store, &fixture->left, &fixture->right, &fixture->diff, error);
	for (size_t i = 0; i < left_count; i++)
		buffer_done(&left[i]);
	for (size_t i = 0; i < right_count; i++)
		buffer_done(&right[i]);
	return r;
}

static void compare(DiffFixture *fixture, Buffer *left, size_t left_count, Buffer *right, size_t right_count)
{
	Error error = { 0 };
	int r = try_compare(fixture, left, left_count, right, right_count, &error);
	if (r < 0)
		fail_msg("diff: %s", error_text(&error, r));
}

static void close_fixture(DiffFixture *fixture)
{
	image_diff_done(&fixture->diff);
	image_diff_done(&fixture->diff);
	store_image_done(&fixture->left);
	store_image_done(&fixture->right);
	store_fixture_close(&fixture->store);
}

static const DiffEntry *find(const DiffFixture *fixture, const char *path)
{
	for (size_t i = 0; i < fixture->diff.count; i++) {
		if (strcmp(fixture->diff.entries[i].path, path) == 0)
			return &fixture->diff.entries[i];
	}
	fail_msg("no entry for %s", path);
	return NULL;
}

static void random_file(Buffer *tar, const char *name, size_t size, uint32_t seed)
{
	uint8_t *data = malloc(size);
	assert_non_null(data);
	store_fixture_random(data, size, seed);
	tar_file(tar, name, data, size);
	free(data);
}

static void test_same(void **state _unused_)
{
	DiffFixture fixture;
	Buffer left = { 0 }, right = { 0 };
	random_file(&left, "large", LARGE, 1);
	tar_end(&left);
	random_file(&right, "large", LARGE, 1);
	tar_end(&right);
	compare(&fixture, &left, 1, &right, 1);
	assert_int_equal(fixture.diff.count, 0);
	assert_int_equal(fixture.diff.frames + fixture.diff.indexes + fixture.diff.documents + fixture.diff.layers, 0);
	close_fixture(&fixture);
}

static void test_kinds(void **state _unused_)
{
	DiffFixture fixture;
	Buffer left[2] = { 0 }, right = { 0 };
	tar_file(&left[0], "hidden", "x", 1);
	random_file(&left[0], "same", LARGE, 1);
	tar_file(&left[0], "small", "one", 3);
	tar_file(&left[0], "mode", "one", 3);
	tar_link(&left[0], "link", '2', "a");
	tar_directory(&left[0], "gone");
	tar_file(&left[0], "gone/file", "x", 1);
	tar_file(&left[0], "type", "x", 1);
	random_file(&left[0], "large", LARGE, 2);
	tar_end(&left[0]);
	tar_file(&left[1], ".wh.hidden", "", 0);
	tar_end(&left[1]);

	random_file(&right, "same", LARGE, 1);
	tar_file(&right, "small", "two", 3);
	uint8_t *header = tar_header(&right, "mode", '0', 3);
	tar_octal(header, 100, 8, 0755);
	tar_octal(header, 108, 8, 7);
	tar_data(&right, "one", 3);
	tar_link(&right, "link", '2', "b");
	tar_directory(&right, "type");
	tar_file(&right, "type/new", "x", 1);
	random_file(&right, "large", LARGE, 3);
	tar_link(&right, "other-name", '1', "large");
	tar_end(&right);
	compare(&fixture, left, 2, &right, 1);

	const ImageDiff *diff = &fixture.diff;
	assert_string_equal(diff->entries[0].path, "large");
	assert_int_equal(diff->entries[0].kind, DIFF_CHANGED);
	/* Bytes that do not compress move whole, and once for both names. */
	assert_true(diff->entries[0].moved >= LARGE && diff->entries[0].moved < LARGE + 1000);
	assert_int_equal(diff->entries[0].wasted, 0);
	assert_false(diff->entries[0].is_zip);
	assert_int_equal(find(&fixture, "other-name")->moved, 0);
	assert_int_equal(find(&fixture, "other-name")->kind, DIFF_ADDED);
	assert_int_equal(find(&fixture, "small")->kind, DIFF_CHANGED);
	assert_int_equal(find(&fixture, "small")->fields, 0);
	assert_int_equal(find(&fixture, "mode")->kind, DIFF_METADATA);
	assert_int_equal(find(&fixture, "mode")->fields, FILE_MODE | FILE_OWNER);
	assert_int_equal(find(&fixture, "link")->kind, DIFF_CHANGED);
	assert_int_equal(find(&fixture, "gone")->kind, DIFF_REMOVED);
	assert_int_equal(find(&fixture, "gone/file")->kind, DIFF_REMOVED);
	assert_int_equal(find(&fixture, "gone/file")->old_size, 1);
	assert_int_equal(find(&fixture, "type/new")->kind, DIFF_ADDED);
	size_t types = 0;
	for (size_t i = 0; i < diff->count; i++) {
		types += strcmp(diff->entries[i].path, "type") == 0;
		assert_string_not_equal(diff->entries[i].path, "same");
		assert_string_not_equal(diff->entries[i].path, "hidden");
	}
	assert_int_equal(types, 2);

	const ManifestLayer *layer = &fixture.right.manifest.layers[0];
	assert_int_equal(diff->indexes, layer->index_size);
	assert_int_equal(diff->layers, layer->blob_size);
	assert_int_equal(diff->documents, fixture.right.json_size + fixture.right.manifest.config_size);
	uint64_t sum = diff->other;
	for (size_t i = 0; i < diff->count; i++)
		sum += diff->entries[i].moved;
	assert_int_equal(sum, diff->frames);
	assert_true(diff->frames < layer->index_offset - LARGE);
	close_fixture(&fixture);
}

/* Small files move when a neighbour in their chunk changes; the same content twice moves once. */
static void test_waste(void **state _unused_)
{
	DiffFixture fixture;
	Buffer left = { 0 }, right = { 0 };
	random_file(&left, "a", 4000, 1);
	random_file(&left, "b", 4000, 2);
	tar_end(&left);
	random_file(&right, "a", 4000, 1);
	random_file(&right, "b", 4000, 3);
	random_file(&right, "c", LARGE, 4);
	random_file(&right, "d", LARGE, 4);
	tar_end(&right);
	compare(&fixture, &left, 1, &right, 1);
	const DiffEntry *same = find(&fixture, "a");
	assert_int_equal(same->kind, DIFF_SAME);
	assert_true(same->moved > 3000 && same->wasted == same->moved);
	assert_int_equal(fixture.diff.wasted, same->wasted);
	assert_true(find(&fixture, "c")->moved >= LARGE);
	assert_int_equal(find(&fixture, "d")->moved, 0);
	close_fixture(&fixture);
}

/* A sparse file against the same one with its hole written out. */
static void test_sparse(void **state _unused_)
{
	DiffFixture fixture;
	Buffer left = { 0 }, right = { 0 };
	uint8_t data[3 * BLOCK];
	memset(data, 0, sizeof(data));
	memset(data, 'x', BLOCK);
	memset(data + 2 * BLOCK, 'y', BLOCK);
	uint8_t *header = tar_header(&left, "sparse", 'S', 2 * BLOCK);
	tar_make_gnu(header);
	tar_octal(header, 386, 12, 0);
	tar_octal(header, 398, 12, BLOCK);
	tar_octal(header, 410, 12, 2 * BLOCK);
	tar_octal(header, 422, 12, BLOCK);
	tar_octal(header, 483, 12, 3 * BLOCK);
	tar_data(&left, data, BLOCK);
	tar_data(&left, data + 2 * BLOCK, BLOCK);
	tar_end(&left);
	tar_file(&right, "sparse", data, sizeof(data));
	tar_end(&right);
	compare(&fixture, &left, 1, &right, 1);
	assert_int_equal(fixture.diff.count, 1);
	assert_int_equal(fixture.diff.entries[0].kind, DIFF_SAME);
	close_fixture(&fixture);
}

/* A file of 2^63 - 1 bytes, with a block of data at `offset` and one at its end. */
static void vast_file(Buffer *tar, const char *name, uint64_t offset, char content)
{
	uint8_t data[BLOCK];
	memset(data, content, sizeof(data));
	uint8_t *header = tar_header(tar, name, 'S', 2 * BLOCK);
	const uint64_t size = INT64_MAX, numbers[] = { offset, BLOCK, size - BLOCK, BLOCK };
	tar_make_gnu(header);
	for (size_t i = 0; i < ELEMENTS(numbers); i++) {
		header[386 + 12 * i] = 0x80;
		store_le64(header + 390 + 12 * i, __builtin_bswap64(numbers[i]));
	}
	header[483] = 0x80;
	store_le64(header + 487, __builtin_bswap64(size));
	tar_seal(header);
	tar_data(tar, data, BLOCK);
	tar_data(tar, data, BLOCK);
}

/* Holes are not read. */
static void test_vast(void **state _unused_)
{
	DiffFixture fixture;
	Buffer left = { 0 }, right = { 0 };
	vast_file(&left, "same", 1u << 30, 'x');
	vast_file(&left, "changed", 1u << 30, 'x');
	vast_file(&left, "moved", 1u << 30, 'x');
	tar_end(&left);
	tar_directory(&right, "first");
	vast_file(&right, "same", 1u << 30, 'x');
	vast_file(&right, "changed", 1u << 30, 'y');
	vast_file(&right, "moved", UINT64_C(1) << 62, 'x');
	tar_end(&right);
	compare(&fixture, &left, 1, &right, 1);
	assert_int_equal(find(&fixture, "same")->kind, DIFF_SAME);
	assert_int_equal(find(&fixture, "changed")->kind, DIFF_CHANGED);
	assert_int_equal(find(&fixture, "moved")->kind, DIFF_CHANGED);
	close_fixture(&fixture);
}

/* An archive of one stored entry. */
static void zip_file(Buffer *tar, const char *name, uint16_t time, uint32_t crc, uint32_t size)
{
	uint8_t *zip = calloc(1, 31 + size + 47 + 22);
	assert_non_null(zip);
	memcpy(zip, "PK\003\004", 4);
	store_le16(zip + 10, time);
	store_fixture_random(zip + 31, size, time);
	uint8_t *record = zip + 31 + size, *end = record + 47;
	memcpy(record, "PK\001\002", 4);
	store_le16(record + 12, time);
	store_le32(record + 16, crc);
	store_le32(record + 20, size);
	store_le32(record + 24, size);
	store_le16(record + 28, 1);
	record[46] = 'x';
	memcpy(end, "PK\005\006", 4);
	store_le16(end + 10, 1);
	store_le32(end + 12, 47);
	store_le32(end + 16, 31 + size);
	tar_file(tar, name, zip, 31 + size + 47 + 22);
	free(zip);
}

static void test_archives(void **state _unused_)
{
	DiffFixture fixture;
	Buffer left = { 0 }, right = { 0 };
	zip_file(&left, "times.jar", 1, 5, LARGE);
	zip_file(&left, "content.jar", 1, 5, LARGE);
	tar_file(&left, "no.jar", "PK\003\004 and so on", 14);
	tar_end(&left);
	zip_file(&right, "times.jar", 2, 5, LARGE);
	zip_file(&right, "content.jar", 3, 6, LARGE);
	tar_file(&right, "no.jar", "PK\003\004 and no more", 15);
	tar_end(&right);
	compare(&fixture, &left, 1, &right, 1);
	const DiffEntry *times = find(&fixture, "times.jar"), *content = find(&fixture, "content.jar");
	assert_true(times->is_zip);
	assert_int_equal(times->zip.differ, 0);
	assert_true(times->zip.times_differ);
	assert_true(times->wasted == times->moved && times->moved > LARGE);
	assert_true(content->is_zip);
	assert_int_equal(content->zip.differ, 1);
	assert_int_equal(content->wasted, 0);
	assert_false(find(&fixture, "no.jar")->is_zip);
	assert_int_equal(fixture.diff.wasted, times->wasted);
	close_fixture(&fixture);
}

static void test_damage(void **state _unused_)
{
	DiffFixture fixture;
	Buffer left = { 0 }, right = { 0 };
	ImageDiff diff;
	Error error = { 0 };
	zip_file(&left, "x.jar", 1, 5, LARGE);
	tar_end(&left);
	zip_file(&right, "x.jar", 2, 5, LARGE);
	tar_end(&right);
	compare(&fixture, &left, 1, &right, 1);
	char blob[128];
	const ManifestLayer *layer = &fixture.right.manifest.layers[0];
	(void)snprintf(blob, sizeof(blob), "%s", image_fixture_object("blobs/sha256", &layer->blob));
	image_fixture_flip(&fixture.store, blob, 2000);
	assert_int_equal(image_diff(fixture.store.store, &fixture.left, &fixture.right, &diff, &error), -EBADMSG);
	assert_non_null(strstr(error.message, "chunk "));
	image_fixture_flip(&fixture.store, blob, 2000);
	image_fixture_flip(&fixture.store, blob, (long)layer->index_offset + 20);
	assert_int_equal(image_diff(fixture.store.store, &fixture.left, &fixture.right, &diff, &error), -EBADMSG);
	assert_non_null(strstr(error.message, "index"));
	close_fixture(&fixture);
}

/* Directories in one another, the lower half of them below a symlink that leads down the upper half. */
static void deep_file(Buffer *tar, const char *content)
{
	enum { LEVELS = 2000 };
	char path[2 * LEVELS + 8] = "";
	for (size_t i = 0; i < LEVELS; i++)
		memcpy(path + 2 * i, "d/", 3);
	tar_pax(tar, "path", path);
	tar_directory(tar, "d");
	tar_pax(tar, "linkpath", path);
	tar_link(tar, "n", '2', "d");
	memmove(path + 2, path, 2 * LEVELS);
	memcpy(path, "n/", 2);
	memcpy(path + 2 + 2 * LEVELS, "f", 2);
	tar_pax(tar, "path", path);
	tar_file(tar, "f", content, strlen(content));
	tar_end(tar);
}

static void test_deep(void **state _unused_)
{
	DiffFixture fixture;
	Error error = { 0 };
	Buffer left = { 0 }, right = { 0 };
	deep_file(&left, "one");
	deep_file(&right, "two");
	assert_int_equal(try_compare(&fixture, &left, 1, &right, 1, &error), -ENAMETOOLONG);
	assert_non_null(strstr(error.message, "a path of more than 4095 bytes"));
	close_fixture(&fixture);
	deep_file(&left, "one");
	tar_end(&right);
	assert_int_equal(try_compare(&fixture, &left, 1, &right, 1, &error), -ENAMETOOLONG);
	close_fixture(&fixture);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_same),   cmocka_unit_test(test_kinds), cmocka_unit_test(test_waste),
		cmocka_unit_test(test_sparse), cmocka_unit_test(test_vast),  cmocka_unit_test(test_archives),
		cmocka_unit_test(test_damage), cmocka_unit_test(test_deep),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
