/* An image as text and back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/format/index-dump.h"
#include "fs/format/tree.h"
#include "image-fixture.h"

static char *dump(const uint8_t *data, size_t size)
{
	Image image;
	char *text = NULL;
	size_t text_size;
	FILE *file = open_memstream(&text, &text_size);
	assert_non_null(file);
	assert_int_equal(image_open(data, size, &image, NULL), 0);
	assert_int_equal(index_dump_write(&image, file), 0);
	assert_int_equal(fclose(file), 0);
	return text;
}

static int rebuild(const char *text, size_t text_size, uint8_t **ret_data, size_t *ret_size, Error *error)
{
	FILE *file = fmemopen((void *)(uintptr_t)text, text_size, "r");
	assert_non_null(file);
	int r = index_dump_read(file, ret_data, ret_size, error);
	assert_int_equal(fclose(file), 0);
	return r;
}

static void check_identity(const uint8_t *data, size_t size)
{
	_cleanup_free_ char *text = dump(data, size);
	_cleanup_free_ uint8_t *back = NULL;
	size_t back_size;
	Error error = { 0 };
	if (rebuild(text, strlen(text), &back, &back_size, &error) < 0)
		fail_msg("%s", error.message);
	assert_int_equal(back_size, size);
	assert_memory_equal(back, data, size);
}

static void test_samples(void **state)
{
	(void)state;
	const uint32_t kinds[] = { FORMAT_KIND_INDEX, FORMAT_KIND_VIEW };
	for (size_t i = 0; i < ELEMENTS(kinds); i++) {
		size_t size;
		_cleanup_free_ uint8_t *data = sample_image(kinds[i], &size);
		check_identity(data, size);
	}
}

static void test_text(void **state)
{
	(void)state;
	size_t size;
	_cleanup_free_ uint8_t *data = sample_image(FORMAT_KIND_INDEX, &size);
	_cleanup_free_ char *text = dump(data, size);
	const char *const lines[] = {
		"imgfs-index-dump 1\nheader kind=1 codec=1 tar=300000 chunks=6000 id=070809",
		"\nchunk tar=40000 frame=1000 digest=01000000",
		"\ninode 1 mode=0041777 uid=1 gid=2 nlink=2 mtime=-5 nsec=0 flags=0 size=0 data=0 parent=0 layer=0\n",
		"\ntarget \"../usr/issue\"\n",
		"\nextent file=8192 tar=20480 length=100\n",
		"\nxattr \"user.b\" \"\"\n",
		"\nxattr \"user.odd\" \"x\\x00\\x22\\x0a\\xff\\x5c\"\n",
		" data=4294967299 parent=0",
		"\nentries 8\nentry d 9 \"lib\"\nentries 0\nentry d 1 \"etc\"\nentry p 7 \"f\\x0a\\x22\\xc3\\xa9\"\n",
		"\nentry ? 10 \"zsh\"\n",
		"\npacked\ndigest 0d000000",
	};
	for (size_t i = 0; i < ELEMENTS(lines); i++)
		if (!strstr(text, lines[i]))
			fail_msg("no \"%s\" in:\n%s", lines[i], text);
}

/* Every byte a name or value may hold survives. */
static void test_all_bytes(void **state)
{
	(void)state;
	_cleanup_(tree_writer_free_p) TreeWriter *writer = NULL;
	char bytes[256];
	uint32_t number;
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (char)i;
	assert_int_equal(tree_writer_new(&writer), 0);
	TreeInode root = { .mode = S_IFDIR | 0755, .nlink = 2, .mtime_sec = INT64_MIN };
	TreeInode fifo = { .mode = S_IFIFO | 0644, .nlink = 1, .mtime_sec = INT64_MAX };
	TreeXattr xattr = { { bytes + 1, 255 }, { bytes, 256 } };
	TreeExtras extras = { .xattrs = &xattr, .xattr_count = 1 };
	assert_int_equal(tree_writer_add_inode(writer, &root, NULL, &number), 0);
	TreeDirent entries[253];
	size_t count = 0;
	for (size_t i = 1; i < 256; i++) {
		if (i == '/' || i == '.')
			continue;
		assert_int_equal(tree_writer_add_inode(writer, &fifo, &extras, &number), 0);
		entries[count++] = (TreeDirent){ number, DT_FIFO, { bytes + i, 1 } };
	}
	assert_int_equal(tree_writer_add_entries(writer, 0, entries, count), 0);
	size_t size;
	_cleanup_free_ uint8_t *data = tree_image(writer, 0, &size);
	check_identity(data, size);
}

/* The longest line there can be: an xattr of bytes that are all escaped. */
static void test_longest_line(void **state)
{
	(void)state;
	_cleanup_(tree_writer_free_p) TreeWriter *writer = NULL;
	_cleanup_free_ char *bytes = malloc(FORMAT_XATTR_VALUE_MAX);
	uint32_t number;
	size_t size;
	memset(bytes, 0xff, FORMAT_XATTR_VALUE_MAX);
	TreeXattr xattr = { { bytes, FORMAT_XATTR_NAME_MAX }, { bytes, FORMAT_XATTR_VALUE_MAX } };
	TreeExtras extras = { .xattrs = &xattr, .xattr_count = 1 };
	assert_int_equal(tree_writer_new(&writer), 0);
	assert_int_equal(tree_writer_add_inode(writer, &(TreeInode){ .mode = S_IFDIR, .nlink = 2 }, &extras, &number),
			 0);
	_cleanup_free_ uint8_t *data = tree_image(writer, 0, &size);
	check_identity(data, size);
}

#define TITLE  "imgfs-index-dump 1\n"
#define ID     "0000000000000000000000000000000000000000000000000000000000000000"
#define HEADER "header kind=1 codec=1 tar=0 chunks=0 id=" ID "\n"
#define ROOT   "inode 0 mode=0040755 uid=0 gid=0 nlink=2 mtime=0 nsec=0 flags=0 size=0 data=0 parent=0 layer=0\n"
#define LINK   "inode 1 mode=0120777 uid=0 gid=0 nlink=1 mtime=0 nsec=0 flags=0 size=0 data=0 parent=0 layer=0\n"

static const struct {
	const char *text;
	const char *sentence;
} bad[] = {
	{ "", "line 0 of the dump: the dump ends without a header" },
	{ TITLE, "line 1 of the dump: the dump ends without a header" },
	{ "imgfs-index-dump 2\n", "line 1 of the dump: it is not" },
	{ TITLE HEADER HEADER, "line 3 of the dump: a second header" },
	{ TITLE "header kind=1 codec=1 tar=0 id=" ID "\n", "line 2 of the dump: a field" },
	{ TITLE "header kind=1 codec=1 tar=0 chunks=0 id=00\n", "line 2 of the dump: it does not end in a digest" },
	{ TITLE "header kind=1 codec=1 tar=0 chunks=0 id=" ID " \n",
	  "line 2 of the dump: it does not end in a digest" },
	{ TITLE "header kind=4294967296 codec=1", "line 2 of the dump: it is too long, cut short" },
	{ TITLE "header kind=4294967296 codec=1\n", "line 2 of the dump: a number is too large" },
	{ TITLE "header kind=1 codec=1 tar=18446744073709551616\n", "line 2 of the dump: a number is too large" },
	{ TITLE "header kind=-1 codec=1\n", "line 2 of the dump: a field" },
	{ TITLE HEADER "nonsense\n", "line 3 of the dump: it begins with no word known" },
	{ TITLE HEADER "\n", "line 3 of the dump: it begins with no word known" },
	{ TITLE HEADER "inodes 0\n", "line 3 of the dump: it begins with no word known" },
	{ TITLE HEADER "chunk tar=0 frame=1 digest=" ID "\n", "line 3 of the dump: a chunk of impossible length" },
	{ TITLE HEADER "chunk tar=1 frame=1 digest=X\n", "line 3 of the dump: it does not end in a digest" },
	{ TITLE HEADER LINK, "line 3 of the dump: an inode out of order" },
	{ TITLE HEADER ROOT ROOT, "line 4 of the dump: an inode out of order" },
	{ TITLE HEADER "inode 0 mode=0049755 uid=0\n", "line 3 of the dump: a field" },
	{ TITLE HEADER "target \"x\"\n", "line 3 of the dump: a target without a link" },
	{ TITLE HEADER ROOT "target \"x\"\n", "line 4 of the dump: a target without a link" },
	{ TITLE HEADER ROOT LINK "target x\n", "line 5 of the dump: a quoted string is missing" },
	{ TITLE HEADER ROOT LINK "target \"x\n", "line 5 of the dump: a quoted string does not end" },
	{ TITLE HEADER ROOT LINK "target \"\\x0\"\n", "line 5 of the dump: a quoted string does not end" },
	{ TITLE HEADER ROOT LINK "target \"\\x0G\"\n", "line 5 of the dump: a quoted string does not end" },
	{ TITLE HEADER ROOT LINK "target \"\xc3\"\n", "line 5 of the dump: a quoted string does not end" },
	{ TITLE HEADER ROOT LINK "target \"x\" \n", "line 5 of the dump: it goes on after its last field" },
	{ TITLE HEADER ROOT "extent file=0 tar=0 length=1\n", "line 4 of the dump: an extent without a sparse inode" },
	{ TITLE HEADER "xattr \"a\" \"b\"\n", "line 3 of the dump: an xattr without an inode" },
	{ TITLE HEADER ROOT "xattr \"a\"\"b\"\n", "line 4 of the dump: a quoted string is missing" },
	{ TITLE HEADER ROOT "entries 1\n", "line 4 of the dump: entries of an inode that does not exist" },
	{ TITLE HEADER ROOT "entry - 1 \"a\"\n", "line 4 of the dump: an entry without \"entries\"" },
	{ TITLE HEADER ROOT "entries 0\nentry x 1 \"a\"\n", "line 5 of the dump: an entry without a type" },
	{ TITLE HEADER ROOT "entries 0\nentry   1 \"a\"\n", "line 5 of the dump: an entry without a type" },
	{ TITLE HEADER ROOT "entries 0\nentry\n", "line 5 of the dump: an entry without a type" },
	{ TITLE HEADER ROOT "digest " ID "\n", "line 4 of the dump: a digest without \"packed\"" },
	/* Each line is right, the whole is not. */
	{ TITLE HEADER, "what the dump describes is not valid: the tree of the index is damaged: it has no root" },
	{ TITLE HEADER ROOT "entries 0\nentry - 1 \"a\"\n", "what the dump describes is not valid: inode 0" },
	{ TITLE HEADER ROOT "chunk tar=1 frame=1 digest=" ID "\n",
	  "what the dump describes is not valid: the chunks add" },
	{ TITLE "header kind=3 codec=1 tar=0 chunks=0 id=" ID "\n" ROOT, "is of kind 3" },
};

static void test_bad_lines(void **state)
{
	(void)state;
	size_t failures = 0;
	for (size_t i = 0; i < ELEMENTS(bad); i++) {
		_cleanup_free_ uint8_t *data = NULL;
		size_t size;
		Error error = { 0 };
		int r = rebuild(bad[i].text, strlen(bad[i].text), &data, &size, &error);
		int wanted = strstr(bad[i].sentence, "kind 3") ? -EPROTONOSUPPORT : -EBADMSG;
		if (r == wanted && strstr(error.message, bad[i].sentence))
			continue;
		print_error("row %zu: wanted \"%s\", got %d \"%s\"\n", i, bad[i].sentence, r, error.message);
		failures++;
	}
	assert_int_equal(failures, 0);
}

static void test_odd_lines(void **state)
{
	(void)state;
	const char nul[] = TITLE "header\0\n";
	_cleanup_free_ uint8_t *data = NULL;
	_cleanup_free_ char *longest = malloc(1 << 20);
	size_t size;
	Error error = { 0 };
	assert_int_equal(rebuild(nul, sizeof(nul) - 1, &data, &size, &error), -EBADMSG);
	assert_non_null(strstr(error.message, "line 2 of the dump: it is too long, cut short, or holds a NUL"));
	memset(longest, 'x', 1 << 20);
	assert_int_equal(rebuild(longest, 1 << 20, &data, &size, &error), -EBADMSG);
	assert_non_null(strstr(error.message, "line 1 of the dump: it is too long"));
}

static void test_failing_streams(void **state)
{
	(void)state;
	size_t size;
	Image image;
	_cleanup_free_ uint8_t *data = sample_image(FORMAT_KIND_INDEX, &size), *back = NULL;
	assert_int_equal(image_open(data, size, &image, NULL), 0);
	_cleanup_fclose_ FILE *full = fopen("/dev/full", "w"), *directory = fopen("/", "r");
	assert_non_null(full);
	assert_non_null(directory);
	assert_int_equal(index_dump_write(&image, full), -ENOSPC);
	assert_int_equal(index_dump_read(directory, &back, &size, NULL), -EISDIR);
	image.sections[FORMAT_SECTION_INODES].present = false;
	assert_int_equal(index_dump_write(&image, full), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_samples),         cmocka_unit_test(test_text),
		cmocka_unit_test(test_all_bytes),       cmocka_unit_test(test_longest_line),
		cmocka_unit_test(test_bad_lines),       cmocka_unit_test(test_odd_lines),
		cmocka_unit_test(test_failing_streams),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
