/* The tree as it comes back from its image. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/format/tree-paths.h"
#include "fs/format/tree.h"
#include "image-fixture.h"

typedef struct Sample {
	uint8_t *data;
	size_t size;
	Image image;
	Tree tree;
} Sample;

static void sample_open(uint32_t kind, Sample *sample)
{
	sample->data = sample_image(kind, &sample->size);
	assert_int_equal(image_open(sample->data, sample->size, &sample->image, NULL), 0);
	Error error = { 0 };
	if (tree_open(&sample->image, &sample->tree, &error) < 0)
		fail_msg("%s", error.message);
}

static void sample_done(Sample *sample)
{
	free(sample->data);
}

static void assert_string(TreeString string, const char *expected, size_t size)
{
	assert_int_equal(string.size, size);
	assert_memory_equal(string.data, expected, size);
}

static void test_inodes(void **state)
{
	(void)state;
	_cleanup_(sample_done) Sample sample;
	TreeInode inode;
	sample_open(FORMAT_KIND_INDEX, &sample);
	assert_int_equal(sample.tree.inode_count, SAMPLE_INODES);
	assert_int_equal(sample.tree.dirent_count, 11);
	assert_int_equal(sample.tree.layer_count, 0);
	assert_int_equal(sample.tree.xattr_set_count, 2);

	tree_inode(&sample.tree, SAMPLE_ETC, &inode);
	assert_int_equal(inode.mode, S_IFDIR | 01777);
	assert_int_equal(inode.uid, 1);
	assert_int_equal(inode.gid, 2);
	assert_int_equal(inode.mtime_sec, -5);
	assert_int_equal(inode.count, 3);
	tree_inode(&sample.tree, SAMPLE_PASSWD, &inode);
	assert_int_equal(inode.nlink, 2);
	assert_int_equal(inode.size, 1000);
	assert_int_equal(inode.data, 1024);
	assert_int_equal(inode.mtime_nsec, 999999999);
	tree_inode(&sample.tree, SAMPLE_NULL, &inode);
	assert_true(inode.data == (UINT64_C(1) << 32 | 3));
	tree_inode(&sample.tree, SAMPLE_LIB, &inode);
	assert_int_equal(inode.parent, SAMPLE_USR);
	assert_int_equal(inode.count, 0);
	tree_inode(&sample.tree, SAMPLE_USR, &inode);
	assert_int_equal(inode.flags, TREE_IMPLIED);
}

static void test_targets(void **state)
{
	(void)state;
	_cleanup_(sample_done) Sample sample;
	TreeInode inode;
	sample_open(FORMAT_KIND_INDEX, &sample);
	tree_inode(&sample.tree, SAMPLE_ISSUE, &inode);
	assert_int_equal(inode.size, 12);
	assert_string(tree_target(&sample.tree, &inode), "../usr/issue", 12);
	tree_inode(&sample.tree, SAMPLE_LOWER, &inode);
	assert_int_equal(inode.flags, TREE_LOWER_LINK);
	assert_int_equal(inode.size, 0);
	assert_string(tree_target(&sample.tree, &inode), "bin/sh", 6);
}

static void test_extents(void **state)
{
	(void)state;
	_cleanup_(sample_done) Sample sample;
	TreeInode inode;
	TreeExtent extent;
	sample_open(FORMAT_KIND_INDEX, &sample);
	tree_inode(&sample.tree, SAMPLE_SPARSE, &inode);
	assert_int_equal(inode.count, 2);
	tree_extent(&sample.tree, &inode, 1, &extent);
	assert_int_equal(extent.file_offset, 8192);
	assert_int_equal(extent.tar_offset, 20480);
	assert_int_equal(extent.length, 100);
}

static void test_xattrs(void **state)
{
	(void)state;
	_cleanup_(sample_done) Sample sample;
	TreeInode shadow, sparse, fifo, root;
	TreeXattr xattr;
	sample_open(FORMAT_KIND_INDEX, &sample);
	tree_inode(&sample.tree, SAMPLE_SHADOW, &shadow);
	tree_inode(&sample.tree, SAMPLE_SPARSE, &sparse);
	tree_inode(&sample.tree, SAMPLE_FIFO, &fifo);
	tree_inode(&sample.tree, SAMPLE_ROOT, &root);
	assert_int_equal(shadow.xattr, sparse.xattr);
	assert_int_equal(tree_xattr_count(&sample.tree, &root), 0);
	assert_int_equal(tree_xattr_count(&sample.tree, &shadow), 2);
	tree_xattr(&sample.tree, &shadow, 0, &xattr);
	assert_string(xattr.name, "user.a", 6);
	assert_string(xattr.value, "1", 1);
	tree_xattr(&sample.tree, &shadow, 1, &xattr);
	assert_string(xattr.name, "user.b", 6);
	assert_int_equal(xattr.value.size, 0);
	assert_int_equal(tree_xattr_count(&sample.tree, &fifo), 1);
	tree_xattr(&sample.tree, &fifo, 0, &xattr);
	assert_string(xattr.value, "x\0\"\n\xff\\", 6);
}

static void test_lookup(void **state)
{
	(void)state;
	_cleanup_(sample_done) Sample sample;
	TreeInode root;
	TreeDirent entry;
	sample_open(FORMAT_KIND_INDEX, &sample);
	tree_inode(&sample.tree, SAMPLE_ROOT, &root);
	for (uint64_t i = root.data; i < root.data + root.count; i++) {
		TreeDirent found;
		tree_dirent(&sample.tree, i, &entry);
		assert_int_equal(tree_lookup(&sample.tree, &root, entry.name.data, entry.name.size, &found), 0);
		assert_int_equal(found.inode, entry.inode);
		assert_int_equal(found.type, entry.type);
	}
	assert_int_equal(tree_lookup(&sample.tree, &root, "passwd", 6, &entry), 0);
	assert_int_equal(entry.inode, SAMPLE_PASSWD);
	assert_int_equal(entry.type, DT_REG);
	const char *const missing[] = { "", "a", "passw", "passwd2", "passwc", "zzz", "issue", "." };
	for (size_t i = 0; i < ELEMENTS(missing); i++)
		assert_int_equal(tree_lookup(&sample.tree, &root, missing[i], strlen(missing[i]), &entry), -ENOENT);
	TreeInode lib;
	tree_inode(&sample.tree, SAMPLE_LIB, &lib);
	assert_int_equal(tree_lookup(&sample.tree, &lib, "etc", 3, &entry), -ENOENT);
}

/* Each inode has a path, and what is at it is that inode. */
static void test_paths(void **state)
{
	Sample sample;
	TreePaths *paths;
	uint32_t found;
	(void)state;
	sample_open(FORMAT_KIND_INDEX, &sample);
	assert_int_equal(tree_paths_new(&sample.tree, &paths), 0);
	for (uint32_t i = 0; i < sample.tree.inode_count; i++) {
		_cleanup_free_ char *path = NULL;
		assert_int_equal(tree_paths_get(paths, i, &path), 0);
		assert_int_equal(path[0], '/');
		assert_int_equal(tree_paths_find(&sample.tree, path, &found), 0);
		assert_int_equal(found, i);
	}
	char *path;
	assert_int_equal(tree_paths_get(paths, SAMPLE_ROOT, &path), 0);
	assert_string_equal(path, "/");
	free(path);
	assert_int_equal(tree_paths_get(paths, SAMPLE_LIB, &path), 0);
	assert_string_equal(path, "/usr/lib");
	free(path);
	assert_int_equal(tree_paths_get(paths, sample.tree.inode_count, &path), -ENOENT);
	assert_int_equal(tree_paths_find(&sample.tree, "/etc/shadow", &found), 0);
	assert_int_equal(found, SAMPLE_SHADOW);
	assert_int_equal(tree_paths_find(&sample.tree, "//etc//", &found), 0);
	assert_int_equal(found, SAMPLE_ETC);
	assert_int_equal(tree_paths_find(&sample.tree, "/etc/nothing", &found), -ENOENT);
	assert_int_equal(tree_paths_find(&sample.tree, "/etc/shadow/x", &found), -ENOTDIR);
	tree_paths_free(paths);
	sample_done(&sample);
}

static void test_view(void **state)
{
	(void)state;
	_cleanup_(sample_done) Sample sample;
	Digest diff_id;
	TreeInode shadow;
	sample_open(FORMAT_KIND_VIEW, &sample);
	assert_int_equal(sample.tree.layer_count, 2);
	tree_layer(&sample.tree, 1, &diff_id);
	assert_int_equal(diff_id.bytes[0], 12);
	tree_inode(&sample.tree, SAMPLE_SHADOW, &shadow);
	assert_int_equal(shadow.layer, 1);
}

static void test_compare_names(void **state)
{
	(void)state;
	const TreeString a = { "a", 1 }, ab = { "ab", 2 }, high = { "\xff", 1 };
	assert_true(tree_compare_names(a, ab) < 0);
	assert_true(tree_compare_names(ab, a) > 0);
	assert_true(tree_compare_names(a, a) == 0);
	assert_true(tree_compare_names(ab, high) < 0);
}

static void test_bare_root(void **state)
{
	(void)state;
	_cleanup_(tree_writer_free_p) TreeWriter *writer = NULL;
	Image image;
	Tree tree;
	uint32_t number;
	size_t size;
	assert_int_equal(tree_writer_new(&writer), 0);
	assert_int_equal(
		tree_writer_add_inode(writer, &(TreeInode){ .mode = S_IFDIR | 0755, .nlink = 2 }, NULL, &number), 0);
	assert_int_equal(number, 0);
	assert_int_equal(tree_writer_add_entries(writer, 0, NULL, 0), 0);
	assert_int_equal(tree_writer_add_entries(writer, 1, NULL, 0), -EINVAL);
	_cleanup_free_ uint8_t *data = tree_image(writer, 0, &size);
	assert_int_equal(image_open(data, size, &image, NULL), 0);
	assert_int_equal(tree_open(&image, &tree, NULL), 0);
	assert_int_equal(tree.inode_count, 1);
}

/* A hundred thousand directories, each in the one before, and as many files, open without recursion. */
static void test_deep(void **state)
{
	(void)state;
	enum { DEPTH = 100000 };
	_cleanup_(tree_writer_free_p) TreeWriter *writer = NULL;
	uint32_t number;
	assert_int_equal(tree_writer_new(&writer), 0);
	for (uint32_t i = 0; i <= DEPTH; i++) {
		TreeInode directory = { .mode = S_IFDIR | 0755, .nlink = i < DEPTH ? 3 : 2, .parent = i ? i - 1 : 0 };
		assert_int_equal(tree_writer_add_inode(writer, &directory, NULL, &number), 0);
	}
	for (uint32_t i = 0; i < DEPTH; i++) {
		TreeDirent entry = { .inode = i + 1, .type = DT_DIR, .name = { "d", 1 } };
		assert_int_equal(tree_writer_add_entries(writer, i, &entry, 1), 0);
	}
	Image image;
	Tree tree;
	size_t size;
	_cleanup_free_ uint8_t *data = tree_image(writer, 0, &size);
	assert_int_equal(image_open(data, size, &image, NULL), 0);
	assert_int_equal(tree_open(&image, &tree, NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_inodes), cmocka_unit_test(test_targets),       cmocka_unit_test(test_extents),
		cmocka_unit_test(test_xattrs), cmocka_unit_test(test_lookup),        cmocka_unit_test(test_paths),
		cmocka_unit_test(test_view),   cmocka_unit_test(test_compare_names), cmocka_unit_test(test_bare_root),
		cmocka_unit_test(test_deep),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
