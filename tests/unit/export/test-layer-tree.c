#include "tools/export/layer-tree.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "tests/unit/export/layer-fixture.h"
#include "tests/unit/export/tar-builder.h"

static const LayerOptions options = { .level = 1, .jobs = 1 };
static Layer layer;

static void open_tar(Buffer *tar)
{
	tar_end(tar);
	layer_open_tar(tar, &options, &layer);
	buffer_done(tar);
}

static TreeInode get(const char *path)
{
	TreeInode inode;
	if (!layer_lookup(&layer, path, &inode, NULL))
		fail_msg("%s is not there", path);
	return inode;
}

static uint32_t number_of(const char *path)
{
	TreeInode inode;
	uint32_t number;
	if (!layer_lookup(&layer, path, &inode, &number))
		fail_msg("%s is not there", path);
	return number;
}

static void expect_none(const char *path)
{
	TreeInode inode;
	if (layer_lookup(&layer, path, &inode, NULL))
		fail_msg("%s is there", path);
}

static void expect_target(const char *path, const char *target)
{
	TreeInode inode = get(path);
	TreeString found = tree_target(&layer.tree, &inode);
	assert_int_equal(found.size, strlen(target));
	assert_memory_equal(found.data, target, found.size);
}

static void expect_error(Buffer *tar, const char *part)
{
	tar_end(tar);
	int r = layer_write_tar(tar, &options, &layer);
	assert_int_equal(r, -EBADMSG);
	if (!strstr(layer.error.message, part))
		fail_msg("\"%s\" is not in \"%s\"", part, layer.error.message);
	layer_done(&layer);
	buffer_done(tar);
}

static void test_empty(void **state _unused_)
{
	Buffer tar = { 0 };
	open_tar(&tar);
	TreeInode root = get("");
	assert_int_equal(layer.tree.inode_count, 1);
	assert_int_equal(root.mode, S_IFDIR | 0755);
	assert_int_equal(root.nlink, 2);
	assert_int_equal(root.flags, TREE_IMPLIED);
	layer_done(&layer);
}

static void test_types(void **state _unused_)
{
	Buffer tar = { 0 };
	tar_directory(&tar, "./");
	tar_file(&tar, "./file", "abc", 3);
	tar_directory(&tar, "./dir/");
	tar_link(&tar, "./dir/sym", '2', "../x");
	uint8_t *device = tar_header(&tar, "./dir/dev", '4', 0);
	tar_octal(device, 329, 8, 8);
	tar_octal(device, 337, 8, 300);
	tar_header(&tar, "./dir/chr", '3', 0);
	tar_octal(tar_header(&tar, "./dir/fifo", '6', 0), 100, 8, 06755);
	tar_header(&tar, ".wh.gone", '0', 0);
	open_tar(&tar);
	assert_int_equal(get("").flags, 0);
	assert_int_equal(get("").nlink, 3);
	assert_int_equal(get("").mtime_sec, 3);
	assert_int_equal(get("file").mode, S_IFREG | 0644);
	assert_int_equal(get("file").uid, 1);
	assert_int_equal(get("file").gid, 2);
	assert_int_equal(get("file").size, 3);
	assert_int_equal(get("file").data, 1024);
	assert_int_equal(get("dir").mode, S_IFDIR | 0755);
	assert_int_equal(get("dir").nlink, 2);
	assert_int_equal(get("dir/sym").mode, S_IFLNK | 0644);
	assert_int_equal(get("dir/sym").size, 4);
	expect_target("dir/sym", "../x");
	assert_int_equal(get("dir/dev").mode, S_IFBLK | 0644);
	assert_int_equal(get("dir/dev").data, (uint64_t)8 << 32 | 300);
	assert_int_equal(get("dir/chr").mode, S_IFCHR | 0644);
	assert_int_equal(get("dir/fifo").mode, S_IFIFO | 06755);
	assert_int_equal(get(".wh.gone").size, 0);
	assert_int_equal(layer.result.entry_count, 8);
	/* In the order of the tar. */
	assert_int_equal(number_of("file"), 1);
	assert_int_equal(number_of("dir"), 2);
	assert_int_equal(number_of("dir/sym"), 3);
	assert_int_equal(number_of(".wh.gone"), 7);
	layer_done(&layer);
}

static void test_names(void **state _unused_)
{
	Buffer tar = { 0 };
	tar_file(&tar, "/a", "", 0);
	tar_file(&tar, ".//b/./c", "", 0);
	tar_file(&tar, "d/", "", 0);
	tar_directory(&tar, "e//.");
	tar_file(&tar, "n\xff", "", 0);
	tar_directory(&tar, "/");
	open_tar(&tar);
	assert_true(S_ISREG(get("a").mode));
	assert_true(S_ISREG(get("b/c").mode));
	assert_int_equal(get("b").flags, TREE_IMPLIED);
	assert_int_equal(get("b").mode, S_IFDIR | 0755);
	assert_int_equal(get("b").uid, 0);
	assert_int_equal(get("b").mtime_sec, 0);
	assert_true(S_ISREG(get("d").mode));
	assert_true(S_ISDIR(get("e").mode));
	assert_true(S_ISREG(get("n\xff").mode));
	assert_int_equal(get("").uid, 1);
	layer_done(&layer);
	tar_file(&tar, "./.", "", 0);
	expect_error(&tar, "root");
	tar_file(&tar, "a", "", 0);
	tar_link(&tar, "./.", '1', "a");
	expect_error(&tar, "root");
}

static void test_implied_filled_later(void **state _unused_)
{
	Buffer tar = { 0 };
	tar_file(&tar, "a/b/c", "x", 1);
	tar_directory(&tar, "a");
	open_tar(&tar);
	assert_int_equal(get("a").flags, 0);
	assert_int_equal(get("a").uid, 1);
	assert_int_equal(get("a/b").flags, TREE_IMPLIED);
	assert_int_equal(get("a/b/c").size, 1);
	assert_int_equal(get("a").nlink, 3);
	assert_int_equal(number_of("a"), 1);
	layer_done(&layer);
}

static void test_last_wins(void **state _unused_)
{
	Buffer tar = { 0 };
	tar_file(&tar, "f", "old", 3);
	tar_link(&tar, "hard", '1', "f");
	tar_file(&tar, "f", "newer", 5);
	tar_directory(&tar, "d");
	tar_file(&tar, "d/kept", "", 0);
	tar_octal(tar_header(&tar, "d", '5', 0), 100, 8, 0700);
	tar_file(&tar, "e/sub/gone", "12", 2);
	tar_file(&tar, "e", "file", 4);
	tar_file(&tar, "g", "file", 4);
	tar_directory(&tar, "g");
	tar_file(&tar, "h", "file", 4);
	tar_file(&tar, "h/below", "file", 4);
	tar_file(&tar, "i/x", "", 0);
	tar_file(&tar, "i", "", 0);
	tar_directory(&tar, "i");
	open_tar(&tar);
	assert_int_equal(get("f").size, 5);
	assert_int_equal(get("f").nlink, 1);
	assert_int_equal(get("hard").size, 3);
	assert_int_equal(get("hard").nlink, 1);
	assert_int_equal(get("d").mode, S_IFDIR | 0700);
	assert_int_equal(get("d/kept").size, 0);
	assert_int_equal(get("e").size, 4);
	assert_true(S_ISDIR(get("g").mode));
	assert_int_equal(get("h").flags, TREE_IMPLIED);
	assert_int_equal(get("h/below").size, 4);
	expect_none("i/x");
	assert_int_equal(get("i").nlink, 2);
	/* root, hard, f, d, d/kept, e, g, h, h/below, i */
	assert_int_equal(layer.tree.inode_count, 10);
	layer_done(&layer);
}

static void test_sorted(void **state _unused_)
{
	static const char *const names[] = { "b", "a", "ab", "a.b", "\xff", "A", "aa", "a-b" };
	static const char *const sorted[] = { "A", "a", "a-b", "a.b", "aa", "ab", "b", "\xff" };
	Buffer tar = { 0 };
	for (size_t i = 0; i < ELEMENTS(names); i++)
		tar_file(&tar, names[i], "", 0);
	open_tar(&tar);
	TreeInode root = get("");
	assert_int_equal(root.count, ELEMENTS(sorted));
	for (size_t i = 0; i < ELEMENTS(sorted); i++) {
		TreeDirent dirent;
		tree_dirent(&layer.tree, root.data + i, &dirent);
		assert_int_equal(dirent.name.size, strlen(sorted[i]));
		assert_memory_equal(dirent.name.data, sorted[i], dirent.name.size);
	}
	layer_done(&layer);
}

static void test_hard_links(void **state _unused_)
{
	Buffer tar = { 0 };
	tar_file(&tar, "dir/f", "abc", 3);
	tar_link(&tar, "one", '1', "./dir//f");
	tar_link(&tar, "two", '1', "/one");
	tar_link(&tar, "one", '1', "./one"); /* itself: nothing */
	tar_link(&tar, "early", '1', "late");
	tar_link(&tar, "earlier", '1', "early");
	tar_file(&tar, "late", "late!", 5);
	tar_link(&tar, "sym", '2', "dir");
	tar_link(&tar, "tosym", '1', "sym");
	tar_link(&tar, "through", '1', "sym/f");
	tar_link(&tar, "lower", '1', "./usr//bin/perl");
	tar_link(&tar, "lower2", '1', "lower");
	tar_link(&tar, "self", '1', "self");
	tar_link(&tar, "gone", '1', "nowhere");
	tar_file(&tar, "gone", "", 0);
	open_tar(&tar);
	assert_int_equal(get("dir/f").nlink, 4);
	assert_int_equal(number_of("one"), number_of("dir/f"));
	assert_int_equal(number_of("two"), number_of("dir/f"));
	assert_int_equal(number_of("through"), number_of("dir/f"));
	assert_int_equal(number_of("early"), number_of("late"));
	assert_int_equal(number_of("earlier"), number_of("late"));
	assert_int_equal(get("late").nlink, 3);
	assert_int_equal(get("late").size, 5);
	assert_int_equal(number_of("tosym"), number_of("sym"));
	assert_int_equal(get("lower").mode, 0644);
	assert_int_equal(get("lower").flags, TREE_LOWER_LINK);
	assert_int_equal(get("lower").nlink, 2);
	assert_int_equal(number_of("lower2"), number_of("lower"));
	expect_target("lower", "usr/bin/perl");
	expect_none("self");
	assert_true(S_ISREG(get("gone").mode));
	layer_done(&layer);
}

/* Each link names the next: whoever resolves them one by one goes half a billion steps. */
static void test_hard_link_chain(void **state _unused_)
{
	enum { LINKS = 30000 };
	Buffer tar = { 0 };
	char name[16], target[16];
	for (unsigned i = 0; i < LINKS; i++) {
		(void)snprintf(name, sizeof(name), "l%u", i);
		(void)snprintf(target, sizeof(target), "l%u", i + 1);
		tar_link(&tar, name, '1', target);
	}
	(void)snprintf(name, sizeof(name), "l%u", LINKS);
	tar_file(&tar, name, "end", 3);
	open_tar(&tar);
	assert_int_equal(get("l0").nlink, LINKS + 1);
	assert_int_equal(number_of("l0"), number_of(name));
	assert_int_equal(number_of("l777"), number_of(name));
	layer_done(&layer);
}

/* Links that name one another and nothing else stay links to a lower layer. */
static void test_hard_link_circles(void **state _unused_)
{
	Buffer tar = { 0 };
	tar_link(&tar, "a", '1', "b");
	tar_link(&tar, "c", '1', "d");
	tar_link(&tar, "b", '1', "c");
	tar_link(&tar, "d", '1', "a");
	tar_link(&tar, "e", '1', "f");
	tar_link(&tar, "f", '1', "e");
	open_tar(&tar);
	assert_int_equal(get("a").flags, TREE_LOWER_LINK);
	assert_int_equal(number_of("a"), number_of("c"));
	assert_int_equal(get("a").nlink, 4);
	assert_int_equal(get("e").nlink, 2);
	layer_done(&layer);
}

static void test_hard_link_errors(void **state _unused_)
{
	Buffer tar = { 0 };
	tar_directory(&tar, "dir");
	tar_link(&tar, "link", '1', "dir");
	expect_error(&tar, "hard link to directory dir");
	tar_link(&tar, "link", '1', "/");
	expect_error(&tar, "hard link to directory");
	tar_link(&tar, "link", '1', "dir");
	tar_directory(&tar, "dir");
	expect_error(&tar, "names directory dir");
	/* One that has been replaced offends nobody. */
	tar_link(&tar, "link", '1', "dir");
	tar_directory(&tar, "dir");
	tar_file(&tar, "link", "", 0);
	open_tar(&tar);
	layer_done(&layer);
}

static void test_symlink_parents(void **state _unused_)
{
	Buffer tar = { 0 };
	tar_directory(&tar, "usr/lib");
	tar_link(&tar, "lib", '2', "usr/lib");
	tar_link(&tar, "usr/abs", '2', "/usr/lib/.//");
	tar_link(&tar, "usr/up", '2', "../../../lib");
	tar_file(&tar, "lib/one", "1", 1);
	tar_file(&tar, "usr/abs/two", "1", 1);
	tar_file(&tar, "usr/up/sub/three", "1", 1);
	tar_directory(&tar, "lib");
	tar_file(&tar, "lib/new", "1", 1);
	open_tar(&tar);
	assert_int_equal(get("usr/lib/one").size, 1);
	assert_int_equal(get("usr/lib/two").size, 1);
	assert_int_equal(get("usr/lib/sub").flags, TREE_IMPLIED);
	assert_int_equal(get("usr/lib/sub/three").size, 1);
	assert_true(S_ISDIR(get("lib").mode));
	assert_int_equal(get("lib/new").size, 1);
	expect_none("usr/lib/new");
	layer_done(&layer);

	tar_link(&tar, "lib", '2', "usr/lib");
	tar_file(&tar, "lib/one", "1", 1);
	expect_error(&tar, "does not have (at usr");
	tar_link(&tar, "lib", '2', "usr/lib");
	tar_file(&tar, "usr/lib", "", 0);
	tar_file(&tar, "lib/one", "1", 1);
	expect_error(&tar, "leads through a file");
	tar_link(&tar, "loop", '2', "./loop");
	tar_file(&tar, "loop/one", "1", 1);
	expect_error(&tar, "follows more than 40");
	/* A symlink out of reach of a hard link is no error: its target may lie below. */
	tar_link(&tar, "loop", '2', "loop");
	tar_link(&tar, "link", '1', "loop/x");
	open_tar(&tar);
	assert_int_equal(get("link").flags, TREE_LOWER_LINK);
	layer_done(&layer);
}

static void test_symlink_text_too_long(void **state _unused_)
{
	Buffer tar = { 0 };
	static char target[4096];
	memset(target, 'a', 4095);
	for (size_t i = 100; i < 4095; i += 101)
		target[i] = '/';
	memcpy(target, "x/", 2);
	tar_extension(&tar, 'K', target, 4095);
	tar_link(&tar, "x", '2', "");
	tar_file(&tar, "x/y", "", 0);
	expect_error(&tar, "too long");
}

static void test_xattrs(void **state _unused_)
{
	Buffer tar = { 0 }, records = { 0 };
	tar_record(&records, "SCHILY.xattr.security.capability", "\1\0\0\2\0", 5);
	tar_record(&records, "SCHILY.xattr.user.e", "", 0);
	for (size_t i = 0; i < 2; i++) {
		tar_extension(&tar, 'x', records.data, records.size);
		tar_file(&tar, i ? "b" : "a", "", 0);
	}
	tar_extension(&tar, 'x', records.data, records.size);
	tar_directory(&tar, "./");
	tar_file(&tar, "none", "", 0);
	buffer_done(&records);
	open_tar(&tar);
	assert_int_equal(layer.tree.xattr_set_count, 1);
	TreeInode a = get("a");
	TreeXattr xattr;
	assert_int_equal(a.xattr, get("b").xattr);
	assert_int_equal(tree_xattr_count(&layer.tree, &a), 2);
	tree_xattr(&layer.tree, &a, 0, &xattr);
	assert_int_equal(xattr.name.size, 19);
	assert_memory_equal(xattr.name.data, "security.capability", 19);
	assert_int_equal(xattr.value.size, 5);
	assert_memory_equal(xattr.value.data, "\1\0\0\2\0", 5);
	assert_int_equal(get("none").xattr, 0);
	assert_true(get("").xattr != 0);
	layer_done(&layer);
}

static void test_sparse(void **state _unused_)
{
	Buffer tar = { 0 }, records = { 0 };
	static uint8_t data[9000];
	tar_record(&records, "GNU.sparse.major", "1", 1);
	tar_record(&records, "GNU.sparse.minor", "0", 1);
	tar_record(&records, "GNU.sparse.name", "sparse", 6);
	tar_record(&records, "GNU.sparse.realsize", "1000000", 7);
	tar_extension(&tar, 'x', records.data, records.size);
	memcpy(data, "2\n0\n4096\n999000\n1000\n", 21);
	tar_file(&tar, "GNUSparseFile.0/sparse", data, 512 + 5096);
	tar_file(&tar, "small", "abc", 3);
	buffer_done(&records);
	open_tar(&tar);
	TreeInode inode = get("sparse");
	TreeExtent extent;
	assert_int_equal(inode.flags, TREE_SPARSE);
	assert_int_equal(inode.size, 1000000);
	assert_int_equal(inode.count, 2);
	tree_extent(&layer.tree, &inode, 1, &extent);
	assert_int_equal(extent.file_offset, 999000);
	assert_int_equal(extent.length, 1000);
	assert_int_equal(extent.tar_offset, 512 + 512 + 512 + 512 + 4096);
	layer_done(&layer);
}

/* As many names as make every table grow several times. */
static void test_many(void **state _unused_)
{
	Buffer tar = { 0 };
	char name[64];
	for (unsigned i = 0; i < 20000; i++) {
		snprintf(name, sizeof(name), "d%u/e%u/f%u", i % 7, i % 100, i);
		tar_file(&tar, name, "x", i % 3 ? 1 : 0);
	}
	open_tar(&tar);
	assert_int_equal(layer.result.entry_count, 20000);
	assert_int_equal(layer.tree.inode_count, 1 + 7 + 700 + 20000);
	for (unsigned i = 0; i < 20000; i++) {
		snprintf(name, sizeof(name), "d%u/e%u/f%u", i % 7, i % 100, i);
		assert_int_equal(get(name).size, i % 3 ? 1 : 0);
	}
	layer_done(&layer);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_empty),
		cmocka_unit_test(test_types),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_implied_filled_later),
		cmocka_unit_test(test_last_wins),
		cmocka_unit_test(test_sorted),
		cmocka_unit_test(test_hard_links),
		cmocka_unit_test(test_hard_link_chain),
		cmocka_unit_test(test_hard_link_circles),
		cmocka_unit_test(test_hard_link_errors),
		cmocka_unit_test(test_symlink_parents),
		cmocka_unit_test(test_symlink_text_too_long),
		cmocka_unit_test(test_xattrs),
		cmocka_unit_test(test_sparse),
		cmocka_unit_test(test_many),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
