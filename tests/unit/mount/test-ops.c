/* What each operation replies, down to the bytes that the kernel gets. */
#include "tests/unit/mount/mount-fixture.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <dirent.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

typedef struct State {
	MountFixture fixture;
	RunningMount running;
	Reply reply;
} State;

static int make(void **state, const MountFixtureOptions *options)
{
	State *made = calloc(1, sizeof(*made));
	if (!made)
		return -1;
	mount_fixture_make(&made->fixture, options);
	mount_fixture_start(&made->fixture, &made->running);
	*state = made;
	return 0;
}

static int setup(void **state)
{
	return make(state, &(MountFixtureOptions){ .xattrs = true });
}

static int setup_plain(void **state)
{
	return make(state, &(MountFixtureOptions){ .xattrs = false });
}

static int setup_absent(void **state)
{
	return make(state, &(MountFixtureOptions){ .absent = true });
}

static int teardown(void **state)
{
	State *made = *state;
	mount_fixture_stop(&made->fixture, &made->running);
	mount_fixture_done(&made->fixture);
	free(made);
	return 0;
}

static int lookup(State *s, uint64_t parent, const char *name)
{
	return request(&s->fixture, FUSE_LOOKUP, parent, name, strlen(name) + 1, &s->reply);
}

static struct fuse_entry_out entry_of(const State *s)
{
	struct fuse_entry_out entry;
	assert_int_equal(s->reply.size, sizeof(entry));
	memcpy(&entry, s->reply.body, sizeof(entry));
	return entry;
}

static void test_lookup(void **state)
{
	State *s = *state;
	assert_int_equal(lookup(s, NODE(ROOT), "file"), 0);
	struct fuse_entry_out entry = entry_of(s);
	assert_int_equal(entry.nodeid, NODE(FILE_INODE));
	assert_int_equal(entry.generation, 0);
	assert_int_equal(entry.entry_valid, 1000000000);
	assert_int_equal(entry.attr_valid, 1000000000);
	assert_int_equal(entry.attr.ino, NODE(FILE_INODE));
	assert_int_equal(entry.attr.mode, S_IFREG | 04755);
	assert_int_equal(entry.attr.uid, 1000);
	assert_int_equal(entry.attr.gid, 1001);
	assert_int_equal(entry.attr.mtime, 1234567890);
	assert_int_equal(entry.attr.mtimensec, 123456789);
	assert_int_equal(entry.attr.size, CHUNKS * CHUNK_SIZE - 1);
	assert_int_equal(entry.attr.blocks, (CHUNKS * CHUNK_SIZE - 1 + 511) / 512);
}

/* ENOENT would be asked for again and again; node 0 is remembered. */
static void test_lookup_missing(void **state)
{
	State *s = *state;
	static const char *const missing[] = { "nothing", "fil", "file2", "" };
	for (size_t i = 0; i < ELEMENTS(missing); i++) {
		assert_int_equal(lookup(s, NODE(ROOT), missing[i]), 0);
		struct fuse_entry_out entry = entry_of(s);
		assert_int_equal(entry.nodeid, 0);
		assert_int_equal(entry.entry_valid, 1000000000);
	}
}

static void test_lookup_dots(void **state)
{
	State *s = *state;
	assert_int_equal(lookup(s, NODE(DIRECTORY), "."), 0);
	assert_int_equal(entry_of(s).nodeid, NODE(DIRECTORY));
	assert_int_equal(lookup(s, NODE(FILE_INODE), "."), 0);
	assert_int_equal(entry_of(s).nodeid, NODE(FILE_INODE));
	assert_int_equal(lookup(s, NODE(DIRECTORY), ".."), 0);
	assert_int_equal(entry_of(s).nodeid, NODE(ROOT));
}

static void test_lookup_errors(void **state)
{
	State *s = *state;
	assert_int_equal(lookup(s, NODE(FILE_INODE), "x"), -ENOTDIR);
	assert_int_equal(lookup(s, NODE(FILE_INODE), ".."), -ENOTDIR);
	assert_int_equal(lookup(s, NODE(INODES), "x"), -ESTALE);
	assert_int_equal(lookup(s, UINT64_MAX, "x"), -ESTALE);
	assert_int_equal(lookup(s, 0, "x"), -ESTALE);
}

static struct fuse_attr getattr(State *s, unsigned inode)
{
	struct fuse_getattr_in body = { 0 };
	struct fuse_attr_out out;
	assert_int_equal(request(&s->fixture, FUSE_GETATTR, NODE(inode), &body, sizeof(body), &s->reply), 0);
	assert_int_equal(s->reply.size, sizeof(out));
	memcpy(&out, s->reply.body, sizeof(out));
	assert_int_equal(out.attr_valid, 1000000000);
	return out.attr;
}

static void test_getattr(void **state)
{
	State *s = *state;
	assert_int_equal(getattr(s, ROOT).nlink, 3);
	assert_int_equal(getattr(s, DIRECTORY).uid, 5);
	assert_int_equal(getattr(s, EMPTY).nlink, MANY);
	assert_int_equal(getattr(s, LINK).size, 9);
	assert_int_equal(getattr(s, DEVICE).rdev, makedev(5, 300));
	assert_int_equal(getattr(s, DEVICE).size, 0);
	struct fuse_attr sparse = getattr(s, SPARSE);
	assert_int_equal(sparse.size, SPARSE_SIZE);
	assert_int_equal(sparse.blocks, (2 * SPARSE_LENGTH + 511) / 512);
	assert_int_equal(sparse.blksize, 4096);
	struct fuse_getattr_in body = { 0 };
	assert_int_equal(request(&s->fixture, FUSE_GETATTR, NODE(INODES), &body, sizeof(body), &s->reply), -ESTALE);
}

static void test_readlink(void **state)
{
	State *s = *state;
	assert_int_equal(request(&s->fixture, FUSE_READLINK, NODE(LINK), NULL, 0, &s->reply), 0);
	assert_int_equal(s->reply.size, 9);
	assert_memory_equal(s->reply.body, "some/file", 9);
	assert_int_equal(request(&s->fixture, FUSE_READLINK, NODE(FILE_INODE), NULL, 0, &s->reply), -EINVAL);
}

static void test_statfs(void **state)
{
	State *s = *state;
	struct fuse_statfs_out out;
	assert_int_equal(request(&s->fixture, FUSE_STATFS, NODE(ROOT), NULL, 0, &s->reply), 0);
	memcpy(&out, s->reply.body, sizeof(out));
	assert_int_equal(out.st.blocks, (123456789 + 4095) / 4096);
	assert_int_equal(out.st.bfree, 0);
	assert_int_equal(out.st.files, INODES);
	assert_int_equal(out.st.namelen, 255);
}

/* ENOSYS makes the kernel open by itself from then on; what would change something never gets here but in error. */
static void test_not_implemented(void **state)
{
	State *s = *state;
	struct fuse_open_in open = { 0 };
	assert_int_equal(request(&s->fixture, FUSE_OPEN, NODE(FILE_INODE), &open, sizeof(open), &s->reply), -ENOSYS);
	assert_int_equal(request(&s->fixture, FUSE_OPENDIR, NODE(ROOT), &open, sizeof(open), &s->reply), -ENOSYS);
	struct fuse_flush_in flush = { 0 };
	assert_int_equal(request(&s->fixture, FUSE_FLUSH, NODE(FILE_INODE), &flush, sizeof(flush), &s->reply), -ENOSYS);
	assert_int_equal(request(&s->fixture, FUSE_UNLINK, NODE(ROOT), "file", 5, &s->reply), -ENOSYS);
	assert_int_equal(request(&s->fixture, 4000, NODE(ROOT), NULL, 0, &s->reply), -ENOSYS);
}

/* ---- directories ---- */

static int list(State *s, uint32_t opcode, uint64_t node, uint64_t offset, uint32_t size)
{
	struct fuse_read_in body = { .offset = offset, .size = size };
	int r = request(&s->fixture, opcode, node, &body, sizeof(body), &s->reply);
	assert_true(s->reply.size <= size);
	return r;
}

/* Checks the entries of a reply from entry `at` on; returns how many there were, and where to go on. `filled`: they have attributes. */
static unsigned check_entries(State *s, bool plus, bool filled, unsigned at, uint64_t *offset)
{
	unsigned count = 0;
	for (size_t used = 0; used < s->reply.size; count++) {
		struct fuse_entry_out entry = { 0 };
		struct fuse_dirent dirent;
		if (plus)
			memcpy(&entry, s->reply.body + used, sizeof(entry));
		size_t start = used + (plus ? sizeof(entry) : 0);
		memcpy(&dirent, s->reply.body + start, FUSE_NAME_OFFSET);
		const char *name = (const char *)s->reply.body + start + FUSE_NAME_OFFSET;
		unsigned index = at + count;
		if (index < 2) {
			assert_int_equal(dirent.namelen, index + 1);
			assert_int_equal(dirent.type, DT_DIR);
			assert_int_equal(dirent.ino, index == 0 ? NODE(DIRECTORY) : NODE(ROOT));
			assert_int_equal(entry.nodeid, 0);
		} else {
			char number[16];
			(void)snprintf(number, sizeof(number), "%04u", index - 2);
			assert_memory_equal(name, number, 4);
			assert_int_equal(dirent.namelen, 4 + (index - 2) % 250 + 1);
			assert_int_equal(dirent.type, DT_REG);
			assert_int_equal(dirent.ino, NODE(EMPTY));
			assert_int_equal(entry.nodeid, filled ? NODE(EMPTY) : 0);
			assert_int_equal(entry.attr.nlink, filled ? MANY : 0);
		}
		*offset = dirent.off;
		used = start + FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + dirent.namelen);
	}
	return count;
}

static void list_all(State *s, uint32_t opcode, bool filled, uint32_t size)
{
	uint64_t offset = 0;
	unsigned at = 0;
	for (;;) {
		assert_int_equal(list(s, opcode, NODE(DIRECTORY), offset, size), 0);
		if (s->reply.size == 0)
			break;
		at += check_entries(s, opcode == FUSE_READDIRPLUS, filled, at, &offset);
	}
	assert_int_equal(at, MANY + 2);
}

static void test_readdir(void **state)
{
	static const uint32_t sizes[] = { 500, 4096, 32768 };
	for (size_t i = 0; i < ELEMENTS(sizes); i++) {
		list_all(*state, FUSE_READDIR, false, sizes[i]);
		list_all(*state, FUSE_READDIRPLUS, true, sizes[i]);
	}
}

/* Who only lists gets names, and the nodes of directories; who looks at what he has listed gets all from the next listing on. */
static void test_readdir_fills_for_who_looks(void **state)
{
	State *s = *state;
	const uint32_t first = 1000, other = 1001;
	struct fuse_entry_out entry;
	request_thread = first;
	list_all(s, FUSE_READDIRPLUS, false, 4096);
	/* Of no interest: a directory, what is not there, what nobody listed. */
	assert_int_equal(list(s, FUSE_READDIRPLUS, NODE(ROOT), 4, 4096), 0);
	memcpy(&entry, s->reply.body, sizeof(entry));
	assert_int_equal(entry.nodeid, NODE(DIRECTORY));
	assert_int_equal(entry.attr.uid, 5);
	assert_int_equal(lookup(s, NODE(ROOT), "directory"), 0);
	assert_int_equal(lookup(s, NODE(DIRECTORY), "nothing"), 0);
	list_all(s, FUSE_READDIRPLUS, false, 4096);
	/* Whoever it is that looks: a program may have one thread that lists and others that look. */
	request_thread = other;
	assert_int_equal(lookup(s, NODE(DIRECTORY), "00000"), 0);
	list_all(s, FUSE_READDIRPLUS, false, 4096);
	request_thread = first;
	list_all(s, FUSE_READDIRPLUS, true, 4096);
	/* Somebody whom the kernel cannot name. */
	request_thread = 0;
	list_all(s, FUSE_READDIRPLUS, true, 4096);
}

static void test_readdir_errors(void **state)
{
	State *s = *state;
	assert_int_equal(list(s, FUSE_READDIR, NODE(FILE_INODE), 0, 4096), -ENOTDIR);
	assert_int_equal(list(s, FUSE_READDIR, NODE(INODES), 0, 4096), -ESTALE);
	assert_int_equal(list(s, FUSE_READDIR, NODE(ROOT), UINT64_MAX, 4096), -EINVAL);
	assert_int_equal(list(s, FUSE_READDIR, NODE(ROOT), INT64_MAX, 4096), 0);
	assert_int_equal(s->reply.size, 0);
}

/* ---- data ---- */

static void test_read(void **state)
{
	State *s = *state;
	const uint8_t *data = s->fixture.blob.tar + 1;
	const uint64_t size = CHUNKS * CHUNK_SIZE - 1;
	static const struct {
		uint64_t offset;
		uint32_t size;
	} ranges[] = { { 0, 1 }, { 0, 131072 }, { 39990, 4096 }, { 100000, 100000 }, { 319998, 4096 }, { 319998, 1 } };
	for (size_t i = 0; i < ELEMENTS(ranges); i++) {
		uint64_t left = size - ranges[i].offset;
		assert_int_equal(
			request_read(&s->fixture, NODE(FILE_INODE), ranges[i].offset, ranges[i].size, &s->reply), 0);
		assert_int_equal(s->reply.size, left < ranges[i].size ? left : ranges[i].size);
		assert_memory_equal(s->reply.body, data + ranges[i].offset, s->reply.size);
	}
}

static void test_read_nothing(void **state)
{
	State *s = *state;
	static const uint64_t offsets[] = { CHUNKS * CHUNK_SIZE - 1, CHUNKS * CHUNK_SIZE, INT64_MAX };
	for (size_t i = 0; i < ELEMENTS(offsets); i++) {
		assert_int_equal(request_read(&s->fixture, NODE(FILE_INODE), offsets[i], 4096, &s->reply), 0);
		assert_int_equal(s->reply.size, 0);
	}
	assert_int_equal(request_read(&s->fixture, NODE(EMPTY), 0, 4096, &s->reply), 0);
	assert_int_equal(s->reply.size, 0);
}

static void test_read_sparse(void **state)
{
	State *s = *state;
	_cleanup_free_ uint8_t *expected = calloc(1, SPARSE_SIZE);
	assert_non_null(expected);
	memcpy(expected + SPARSE_FIRST, s->fixture.blob.tar + 7, SPARSE_LENGTH);
	memcpy(expected + SPARSE_SECOND, s->fixture.blob.tar + 70000, SPARSE_LENGTH);
	for (uint64_t offset = 0; offset < SPARSE_SIZE; offset += 12345) {
		assert_int_equal(request_read(&s->fixture, NODE(SPARSE), offset, 12345, &s->reply), 0);
		assert_int_equal(s->reply.size, SPARSE_SIZE - offset < 12345 ? SPARSE_SIZE - offset : 12345);
		assert_memory_equal(s->reply.body, expected + offset, s->reply.size);
	}
}

static void test_read_errors(void **state)
{
	State *s = *state;
	assert_int_equal(request_read(&s->fixture, NODE(ROOT), 0, 4096, &s->reply), -EISDIR);
	assert_int_equal(request_read(&s->fixture, NODE(LINK), 0, 4096, &s->reply), -EINVAL);
	assert_int_equal(request_read(&s->fixture, NODE(INODES), 0, 4096, &s->reply), -ESTALE);
	assert_int_equal(request_read(&s->fixture, NODE(FILE_INODE), UINT64_MAX, 1, &s->reply), -EINVAL);
	assert_int_equal(request_read(&s->fixture, NODE(FILE_INODE), 0, (1 << 20) + 1, &s->reply), -EINVAL);
	/* Its data would end after the tar. */
	assert_int_equal(request_read(&s->fixture, NODE(BEYOND), 0, 4096, &s->reply), -EIO);
	assert_int_equal(request_read(&s->fixture, NODE(BEYOND), 0, 50, &s->reply), 0);
}

/* No bytes, and nobody to ask: EIO, at once. */
static void test_read_absent(void **state)
{
	State *s = *state;
	assert_int_equal(request_read(&s->fixture, NODE(FILE_INODE), 0, 4096, &s->reply), -EIO);
	assert_int_equal(request_read(&s->fixture, NODE(SPARSE), 0, 4096, &s->reply), 0);
	assert_int_equal(request_read(&s->fixture, NODE(SPARSE), 8192, 4096, &s->reply), -EIO);
	assert_int_equal(lookup(s, NODE(ROOT), "file"), 0);
}

static int64_t seek(State *s, unsigned inode, uint64_t offset, uint32_t whence)
{
	struct fuse_lseek_in body = { .offset = offset, .whence = whence };
	struct fuse_lseek_out out;
	int r = request(&s->fixture, FUSE_LSEEK, NODE(inode), &body, sizeof(body), &s->reply);
	if (r < 0)
		return r;
	memcpy(&out, s->reply.body, sizeof(out));
	return (int64_t)out.offset;
}

static void test_lseek(void **state)
{
	State *s = *state;
	const int64_t first_end = SPARSE_FIRST + SPARSE_LENGTH, second_end = SPARSE_SECOND + SPARSE_LENGTH;
	const uint64_t end = CHUNKS * CHUNK_SIZE - 1;
	assert_int_equal(seek(s, FILE_INODE, 5, SEEK_DATA), 5);
	assert_int_equal(seek(s, FILE_INODE, 5, SEEK_HOLE), end);
	assert_int_equal(seek(s, FILE_INODE, end, SEEK_DATA), -ENXIO);
	assert_int_equal(seek(s, SPARSE, 0, SEEK_DATA), SPARSE_FIRST);
	assert_int_equal(seek(s, SPARSE, 0, SEEK_HOLE), 0);
	assert_int_equal(seek(s, SPARSE, SPARSE_FIRST + 1, SEEK_DATA), SPARSE_FIRST + 1);
	assert_int_equal(seek(s, SPARSE, SPARSE_FIRST + 1, SEEK_HOLE), first_end);
	assert_int_equal(seek(s, SPARSE, (uint64_t)first_end, SEEK_DATA), SPARSE_SECOND);
	assert_int_equal(seek(s, SPARSE, SPARSE_SECOND, SEEK_HOLE), second_end);
	assert_int_equal(seek(s, SPARSE, (uint64_t)second_end, SEEK_DATA), -ENXIO);
	assert_int_equal(seek(s, SPARSE, SPARSE_SIZE, SEEK_HOLE), -ENXIO);
	assert_int_equal(seek(s, SPARSE, 0, SEEK_END), -EINVAL);
	assert_int_equal(seek(s, ROOT, 0, SEEK_DATA), -EISDIR);
}

/* ---- extended attributes ---- */

static int getxattr(State *s, unsigned inode, const char *name, uint32_t size)
{
	char body[64];
	struct fuse_getxattr_in in = { .size = size };
	memcpy(body, &in, sizeof(in));
	strcpy(body + sizeof(in), name);
	return request(&s->fixture, FUSE_GETXATTR, NODE(inode), body, sizeof(in) + strlen(name) + 1, &s->reply);
}

static int listxattr(State *s, unsigned inode, uint32_t size)
{
	struct fuse_getxattr_in in = { .size = size };
	return request(&s->fixture, FUSE_LISTXATTR, NODE(inode), &in, sizeof(in), &s->reply);
}

static uint32_t size_of(const State *s)
{
	struct fuse_getxattr_out out;
	assert_int_equal(s->reply.size, sizeof(out));
	memcpy(&out, s->reply.body, sizeof(out));
	return out.size;
}

static void test_getxattr(void **state)
{
	State *s = *state;
	assert_int_equal(getxattr(s, FILE_INODE, "user.name", 0), 0);
	assert_int_equal(size_of(s), 10);
	assert_int_equal(getxattr(s, FILE_INODE, "user.name", 10), 0);
	assert_int_equal(s->reply.size, 10);
	assert_memory_equal(s->reply.body, "some value", 10);
	assert_int_equal(getxattr(s, FILE_INODE, "user.name", 9), -ERANGE);
	assert_int_equal(getxattr(s, FILE_INODE, "user.nam", 10), -ENODATA);
	assert_int_equal(getxattr(s, FILE_INODE, "user.name2", 10), -ENODATA);
	assert_int_equal(getxattr(s, ROOT, "user.name", 10), -ENODATA);
	assert_int_equal(getxattr(s, INODES, "user.name", 10), -ESTALE);
}

static void test_listxattr(void **state)
{
	static const char names[] = "trusted.overlay.opaque\0user.name";
	State *s = *state;
	assert_int_equal(listxattr(s, FILE_INODE, 0), 0);
	assert_int_equal(size_of(s), sizeof(names));
	assert_int_equal(listxattr(s, FILE_INODE, 100), 0);
	assert_int_equal(s->reply.size, sizeof(names));
	assert_memory_equal(s->reply.body, names, sizeof(names));
	assert_int_equal(listxattr(s, FILE_INODE, sizeof(names) - 1), -ERANGE);
	assert_int_equal(listxattr(s, ROOT, 0), 0);
	assert_int_equal(size_of(s), 0);
	assert_int_equal(listxattr(s, ROOT, 100), 0);
	assert_int_equal(s->reply.size, 0);
}

static void test_no_xattrs(void **state)
{
	State *s = *state;
	assert_int_equal(getxattr(s, FILE_INODE, "user.name", 10), -ENOSYS);
	assert_int_equal(listxattr(s, FILE_INODE, 10), -ENOSYS);
}

#define TEST(name)           cmocka_unit_test_setup_teardown(name, setup, teardown)
#define TEST_WITH(name, how) cmocka_unit_test_setup_teardown(name, how, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_lookup),         TEST(test_lookup_missing),
		TEST(test_lookup_dots),    TEST(test_lookup_errors),
		TEST(test_getattr),        TEST(test_readlink),
		TEST(test_statfs),         TEST(test_not_implemented),
		TEST(test_readdir),        TEST(test_readdir_fills_for_who_looks),
		TEST(test_readdir_errors), TEST(test_read),
		TEST(test_read_nothing),   TEST(test_read_sparse),
		TEST(test_read_errors),    TEST_WITH(test_read_absent, setup_absent),
		TEST(test_lseek),          TEST(test_getxattr),
		TEST(test_listxattr),      TEST_WITH(test_no_xattrs, setup_plain),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
