/* Trees that must be refused: each row changes one field of the sample and names the sentence expected. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/base/bytes.h"
#include "fs/format/tree-layout.h"
#include "fs/format/tree.h"
#include "image-fixture.h"

typedef struct Damage {
	FormatSection section;
	uint32_t number; /* of the record */
	size_t record_size;
	size_t at; /* in the record */
	size_t width;
	uint64_t value;
	const char *sentence;
} Damage;

#define INODE(number, at, width, value, sentence)                                     \
	{                                                                             \
		FORMAT_SECTION_INODES, number, INODE_SIZE, at, width, value, sentence \
	}
#define DIRENT(number, at, width, value, sentence)                                      \
	{                                                                               \
		FORMAT_SECTION_DIRENTS, number, DIRENT_SIZE, at, width, value, sentence \
	}
#define EXTENT(number, at, width, value, sentence)                                      \
	{                                                                               \
		FORMAT_SECTION_EXTENTS, number, EXTENT_SIZE, at, width, value, sentence \
	}
#define SET(number, at, width, value, sentence)                                               \
	{                                                                                     \
		FORMAT_SECTION_XATTR_SETS, number, XATTR_SET_SIZE, at, width, value, sentence \
	}
#define ITEM(number, at, width, value, sentence)                                                \
	{                                                                                       \
		FORMAT_SECTION_XATTR_ITEMS, number, XATTR_ITEM_SIZE, at, width, value, sentence \
	}
#define STRING(offset, value, sentence)                                  \
	{                                                                \
		FORMAT_SECTION_STRINGS, offset, 1, 0, 1, value, sentence \
	}

/* Entries stand as usr: 0; root: 1 to 7; etc: 8 to 10. Strings begin with user.a, 1, user.b, ../usr/issue. */
static const Damage of_index[] = {
	INODE(SAMPLE_ROOT, INODE_AT_MODE, 4, S_IFREG | 0755, "inode 0 of the index is damaged: it is not a root"),
	INODE(SAMPLE_ROOT, INODE_AT_PARENT, 4, SAMPLE_ETC, "not a root"),
	INODE(SAMPLE_ROOT, INODE_AT_NLINK, 4, 5, "link count"),
	INODE(SAMPLE_ROOT, INODE_AT_DATA, 8, 5, "outside the table"),
	INODE(SAMPLE_ROOT, INODE_AT_DATA, 8, UINT64_MAX, "outside the table"),
	INODE(SAMPLE_ROOT, INODE_AT_DATA, 8, 0, "inode 9 of the index is damaged: its parent"),
	INODE(SAMPLE_ROOT, INODE_AT_COUNT, 4, 8, "out of order"),
	INODE(SAMPLE_ROOT, INODE_AT_COUNT, 4, 6, "some entries belong to no directory"),
	INODE(SAMPLE_ROOT, INODE_AT_SIZE, 8, 1, "outside the table"),
	INODE(SAMPLE_ROOT, INODE_AT_FLAGS, 4, 8, "flags"),
	INODE(SAMPLE_ROOT, INODE_AT_FLAGS, 4, TREE_SPARSE, "flags"),
	INODE(SAMPLE_ROOT, INODE_AT_FLAGS, 4, TREE_LOWER_LINK, "has a type"),
	INODE(SAMPLE_ROOT, INODE_AT_XATTR, 4, 3, "xattrs do not exist"),
	INODE(SAMPLE_ROOT, INODE_AT_LAYER, 4, 1, "layer does not exist"),
	INODE(SAMPLE_ETC, INODE_AT_PARENT, 4, SAMPLE_USR,
	      "inode 1 of the index is damaged: its parent does not name it"),
	INODE(SAMPLE_ETC, INODE_AT_NLINK, 4, 3, "link count"),
	INODE(SAMPLE_ETC, INODE_AT_DATA, 8, 0, "inode 9 of the index is damaged: its parent"),
	INODE(SAMPLE_LIB, INODE_AT_DATA, 8, 12, "outside the table"),
	INODE(SAMPLE_LIB, INODE_AT_COUNT, 4, 1, "another directory too"),
	INODE(SAMPLE_PASSWD, INODE_AT_MODE, 4, 0644, "impossible inode"),
	INODE(SAMPLE_PASSWD, INODE_AT_MODE, 4, S_IFMT | 0644, "impossible inode"),
	INODE(SAMPLE_PASSWD, INODE_AT_MODE, 4, S_IFREG | 0x10000, "unknown bits"),
	INODE(SAMPLE_PASSWD, INODE_AT_MODE, 4, S_IFBLK | 0644, "impossible inode"),
	INODE(SAMPLE_PASSWD, INODE_AT_NLINK, 4, 1, "more or fewer names"),
	INODE(SAMPLE_PASSWD, INODE_AT_NLINK, 4, 3, "more or fewer names"),
	INODE(SAMPLE_PASSWD, INODE_AT_NLINK, 4, 0, "more or fewer names"),
	INODE(SAMPLE_PASSWD, INODE_AT_MTIME_NSEC, 4, 1000000000, "mtime"),
	INODE(SAMPLE_PASSWD, INODE_AT_DATA, 8, SAMPLE_TAR_SIZE - 999, "outside the layer"),
	INODE(SAMPLE_PASSWD, INODE_AT_DATA, 8, UINT64_MAX, "outside the layer"),
	INODE(SAMPLE_PASSWD, INODE_AT_SIZE, 8, UINT64_MAX, "size is impossible"),
	INODE(SAMPLE_PASSWD, INODE_AT_SIZE, 8, INT64_MAX, "outside the layer"),
	INODE(SAMPLE_PASSWD, INODE_AT_SIZE, 8, 0, "digests of small files"),
	INODE(SAMPLE_PASSWD, INODE_AT_SIZE, 8, 4096, "digests of small files"),
	INODE(SAMPLE_SHADOW, INODE_AT_SIZE, 8, 4095, "digests of small files"),
	INODE(SAMPLE_PASSWD, INODE_AT_COUNT, 4, 1, "outside the layer"),
	INODE(SAMPLE_PASSWD, INODE_AT_PARENT, 4, 1, "no directory but has a parent"),
	INODE(SAMPLE_PASSWD, INODE_AT_FLAGS, 4, TREE_IMPLIED, "flags"),
	INODE(SAMPLE_PASSWD, INODE_AT_FLAGS, 4, TREE_SPARSE, "not the next ones"),
	INODE(SAMPLE_ISSUE, INODE_AT_SIZE, 8, 0, "link target"),
	INODE(SAMPLE_ISSUE, INODE_AT_SIZE, 8, FORMAT_TARGET_MAX + 1, "link target"),
	INODE(SAMPLE_ISSUE, INODE_AT_SIZE, 8, 2000, "link target"),
	INODE(SAMPLE_ISSUE, INODE_AT_DATA, 8, UINT64_MAX - 3, "link target"),
	INODE(SAMPLE_ISSUE, INODE_AT_COUNT, 4, 1, "does not use"),
	INODE(SAMPLE_SPARSE, INODE_AT_DATA, 8, 1, "not the next ones"),
	INODE(SAMPLE_SPARSE, INODE_AT_COUNT, 4, 3, "not the next ones"),
	INODE(SAMPLE_SPARSE, INODE_AT_COUNT, 4, 1, "some extents belong to no file"),
	INODE(SAMPLE_SPARSE, INODE_AT_SIZE, 8, 8291, "extents are impossible"),
	INODE(SAMPLE_SPARSE, INODE_AT_FLAGS, 4, 0, "outside the layer"),
	INODE(SAMPLE_NULL, INODE_AT_SIZE, 8, 1, "does not use"),
	INODE(SAMPLE_NULL, INODE_AT_COUNT, 4, 1, "does not use"),
	INODE(SAMPLE_FIFO, INODE_AT_DATA, 8, 1, "does not use"),
	INODE(SAMPLE_LOWER, INODE_AT_COUNT, 4, 0, "link target"),
	INODE(SAMPLE_LOWER, INODE_AT_COUNT, 4, FORMAT_TARGET_MAX + 1, "link target"),
	INODE(SAMPLE_LOWER, INODE_AT_SIZE, 8, 6, "does not belong here"),
	INODE(SAMPLE_LOWER, INODE_AT_DATA, 8, 13 + 2, "not relative"),
	INODE(SAMPLE_LOWER, INODE_AT_DATA, 8, 13 + 1, "not relative"),
	INODE(SAMPLE_LOWER, INODE_AT_FLAGS, 4, 0, "names no type"),
	INODE(SAMPLE_LOWER, INODE_AT_NLINK, 4, 0, "more or fewer names"),
	DIRENT(2, DIRENT_AT_INODE, 4, 0, "impossible inode"),
	DIRENT(2, DIRENT_AT_INODE, 4, SAMPLE_INODES, "impossible inode"),
	DIRENT(1, DIRENT_AT_INODE, 4, SAMPLE_LIB, "inode 9 of the index is damaged: its parent does not name it"),
	DIRENT(8, DIRENT_AT_TYPE, 1, DT_REG, "impossible inode"),
	DIRENT(8, DIRENT_AT_RESERVED, 1, 1, "impossible inode"),
	DIRENT(9, DIRENT_AT_INODE, 4, SAMPLE_SHADOW, "more or fewer names"),
	DIRENT(8, DIRENT_AT_LENGTH, 2, 0, "impossible name"),
	DIRENT(8, DIRENT_AT_LENGTH, 2, 256, "impossible name"),
	DIRENT(8, DIRENT_AT_NAME, 4, UINT32_MAX, "impossible name"),
	DIRENT(8, DIRENT_AT_NAME, 4, 13, "forbidden name"), /* ../us */
	DIRENT(9, DIRENT_AT_NAME, 4, 0, "inode 1 of the index is damaged: its entries are out of order"),
	EXTENT(0, EXTENT_AT_LENGTH, 8, 0, "extents are impossible"),
	EXTENT(0, EXTENT_AT_LENGTH, 8, 8193, "extents are impossible"),
	EXTENT(0, EXTENT_AT_LENGTH, 8, UINT64_MAX, "extents are impossible"),
	EXTENT(1, EXTENT_AT_FILE, 8, 4095, "extents are impossible"),
	EXTENT(1, EXTENT_AT_FILE, 8, 100000, "extents are impossible"),
	EXTENT(1, EXTENT_AT_TAR, 8, SAMPLE_TAR_SIZE - 99, "extents are impossible"),
	EXTENT(1, EXTENT_AT_TAR, 8, UINT64_MAX, "extents are impossible"),
	SET(0, XATTR_SET_AT_FIRST, 4, 1, "share out"),
	SET(0, XATTR_SET_AT_COUNT, 4, 0, "share out"),
	SET(1, XATTR_SET_AT_FIRST, 4, 1, "share out"),
	SET(1, XATTR_SET_AT_COUNT, 4, UINT32_MAX, "share out"),
	ITEM(0, XATTR_ITEM_AT_NAME, 4, UINT32_MAX, "impossible name or value"),
	ITEM(0, XATTR_ITEM_AT_NAME_LENGTH, 2, 0, "impossible name or value"),
	ITEM(0, XATTR_ITEM_AT_NAME_LENGTH, 2, 256, "impossible name or value"),
	ITEM(0, XATTR_ITEM_AT_VALUE, 4, UINT32_MAX, "impossible name or value"),
	ITEM(0, XATTR_ITEM_AT_VALUE_LENGTH, 4, FORMAT_XATTR_VALUE_MAX + 1, "impossible name or value"),
	ITEM(0, XATTR_ITEM_AT_RESERVED, 2, 1, "impossible name or value"),
	STRING(0, '\0', "impossible name or value"),
	STRING(13, '\0', "link target"),
};

static const Damage of_view[] = {
	INODE(SAMPLE_SHADOW, INODE_AT_LAYER, 4, 2, "layer does not exist"),
	INODE(SAMPLE_PASSWD, INODE_AT_DATA, 8, (uint64_t)INT64_MAX - 999, "outside the layer"),
	INODE(SAMPLE_PASSWD, INODE_AT_SIZE, 8, (uint64_t)INT64_MAX + 1, "size is impossible"),
	EXTENT(1, EXTENT_AT_TAR, 8, INT64_MAX, "extents are impossible"),
};

static void damage_image(const Damage *damage, const Image *image, uint8_t *data)
{
	uint8_t bytes[8];
	size_t offset = (size_t)(image->sections[damage->section].data - data) +
			(size_t)damage->number * damage->record_size + damage->at;
	store_le64(bytes, damage->value);
	memcpy(data + offset, bytes, damage->width);
}

static void check_damages(uint32_t kind, const Damage *damages, size_t count)
{
	size_t failures = 0;
	for (size_t i = 0; i < count; i++) {
		size_t size;
		Image image;
		Tree tree;
		Error error = { 0 };
		_cleanup_free_ uint8_t *data = sample_image(kind, &size);
		assert_int_equal(image_open(data, size, &image, NULL), 0);
		damage_image(&damages[i], &image, data);
		int r = tree_open(&image, &tree, &error);
		if (r == -EBADMSG && strstr(error.message, damages[i].sentence))
			continue;
		print_error("row %zu: wanted \"%s\", got %d \"%s\"\n", i, damages[i].sentence, r, error.message);
		failures++;
	}
	assert_int_equal(failures, 0);
}

static void test_index(void **state)
{
	(void)state;
	check_damages(FORMAT_KIND_INDEX, of_index, ELEMENTS(of_index));
}

static void test_view(void **state)
{
	(void)state;
	check_damages(FORMAT_KIND_VIEW, of_view, ELEMENTS(of_view));
}

static void check_section(uint32_t kind, FormatSection type, bool present, int64_t grow, const char *sentence)
{
	size_t size;
	Image image;
	Tree tree;
	Error error = { 0 };
	_cleanup_free_ uint8_t *data = sample_image(kind, &size);
	assert_int_equal(image_open(data, size, &image, NULL), 0);
	image.sections[type].present = present;
	image.sections[type].size += (uint64_t)grow;
	assert_int_equal(tree_open(&image, &tree, &error), -EBADMSG);
	if (!strstr(error.message, sentence))
		fail_msg("section %u: wanted \"%s\", got \"%s\"", type, sentence, error.message);
}

static void test_sections(void **state)
{
	(void)state;
	for (FormatSection type = FORMAT_SECTION_INODES; type <= FORMAT_SECTION_XATTR_ITEMS; type++) {
		check_section(FORMAT_KIND_INDEX, type, false, 0, "lacks section");
		if (type != FORMAT_SECTION_STRINGS)
			check_section(FORMAT_KIND_INDEX, type, true, -1, "wrong length");
	}
	check_section(FORMAT_KIND_INDEX, FORMAT_SECTION_INODES, true, -(int64_t)SAMPLE_INODES * INODE_SIZE, "no root");
	check_section(FORMAT_KIND_INDEX, FORMAT_SECTION_XATTR_SETS, true, -XATTR_SET_SIZE, "belong to no set");
	check_section(FORMAT_KIND_INDEX, FORMAT_SECTION_PACKED_DIGESTS, true, DIGEST_SIZE, "digests of small files");
	check_section(FORMAT_KIND_INDEX, FORMAT_SECTION_LAYERS, true, 0, "as a view does");
	check_section(FORMAT_KIND_VIEW, FORMAT_SECTION_LAYERS, false, 0, "lacks section 12");
	check_section(FORMAT_KIND_VIEW, FORMAT_SECTION_LAYERS, true, -2 * DIGEST_SIZE, "no layers");
	check_section(FORMAT_KIND_VIEW, FORMAT_SECTION_CHUNK_LENGTHS, true, 0, "of its own");
	check_section(FORMAT_KIND_VIEW, FORMAT_SECTION_PACKED_DIGESTS, true, 0, "of its own");
}

/* `a` and `b` name each other as parent and child, away from the root. */
static void test_circle(void **state)
{
	(void)state;
	_cleanup_(tree_writer_free_p) TreeWriter *writer = NULL;
	const TreeInode root = { .mode = S_IFDIR | 0755, .nlink = 2 };
	const TreeInode a = { .mode = S_IFDIR | 0755, .nlink = 3, .parent = 2 };
	const TreeInode b = { .mode = S_IFDIR | 0755, .nlink = 3, .parent = 1 };
	const TreeDirent in_a = { 2, DT_DIR, { "b", 1 } }, in_b = { 1, DT_DIR, { "a", 1 } };
	uint32_t number;
	assert_int_equal(tree_writer_new(&writer), 0);
	assert_int_equal(tree_writer_add_inode(writer, &root, NULL, &number), 0);
	assert_int_equal(tree_writer_add_inode(writer, &a, NULL, &number), 0);
	assert_int_equal(tree_writer_add_inode(writer, &b, NULL, &number), 0);
	assert_int_equal(tree_writer_add_entries(writer, 1, &in_a, 1), 0);
	assert_int_equal(tree_writer_add_entries(writer, 2, &in_b, 1), 0);

	size_t size;
	Image image;
	Tree tree;
	Error error = { 0 };
	_cleanup_free_ uint8_t *data = tree_image(writer, 0, &size);
	assert_int_equal(image_open(data, size, &image, NULL), 0);
	assert_int_equal(tree_open(&image, &tree, &error), -EBADMSG);
	assert_non_null(strstr(error.message, "circle"));
}

static void check_name(const char *name, size_t size, bool good)
{
	_cleanup_(tree_writer_free_p) TreeWriter *writer = NULL;
	const TreeInode root = { .mode = S_IFDIR | 0755, .nlink = 2 }, fifo = { .mode = S_IFIFO, .nlink = 1 };
	const TreeDirent entry = { 1, DT_FIFO, { name, size } };
	uint32_t number;
	assert_int_equal(tree_writer_new(&writer), 0);
	assert_int_equal(tree_writer_add_inode(writer, &root, NULL, &number), 0);
	assert_int_equal(tree_writer_add_inode(writer, &fifo, NULL, &number), 0);
	assert_int_equal(tree_writer_add_entries(writer, 0, &entry, 1), 0);
	size_t image_size;
	Image image;
	Tree tree;
	_cleanup_free_ uint8_t *data = tree_image(writer, 0, &image_size);
	assert_int_equal(image_open(data, image_size, &image, NULL), 0);
	assert_int_equal(tree_open(&image, &tree, NULL), good ? 0 : -EBADMSG);
}

static void test_names(void **state)
{
	(void)state;
	char longest[FORMAT_NAME_MAX + 1];
	memset(longest, 'n', sizeof(longest));
	check_name("a", 1, true);
	check_name("...", 3, true);
	check_name("..a", 3, true);
	check_name("\xff\n", 2, true);
	check_name(longest, FORMAT_NAME_MAX, true);
	check_name(longest, FORMAT_NAME_MAX + 1, false);
	check_name("", 0, false);
	check_name(".", 1, false);
	check_name("..", 2, false);
	check_name("a/b", 3, false);
	check_name("a\0b", 3, false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_index),  cmocka_unit_test(test_view),  cmocka_unit_test(test_sections),
		cmocka_unit_test(test_circle), cmocka_unit_test(test_names),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
