/* Files in a directory of the test's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/base/fd.h"

typedef struct Place {
	char path[32];
	int fd;
} Place;

static int setup(void **state)
{
	static Place place;
	memcpy(place.path, "/tmp/imgfs-fd-XXXXXX", sizeof("/tmp/imgfs-fd-XXXXXX"));
	if (!mkdtemp(place.path))
		return -1;
	place.fd = open(place.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	*state = &place;
	return place.fd < 0 ? -1 : 0;
}

/* Removes what the tests leave: files at most one directory deep. */
static int teardown(void **state)
{
	Place *place = *state;
	static const char *const files[] = { "a", "empty", "pipe", "sub/b", "sub/deep/c" };
	static const char *const directories[] = { "sub/deep", "sub" };
	for (size_t i = 0; i < ELEMENTS(files); i++)
		(void)unlinkat(place->fd, files[i], 0);
	for (size_t i = 0; i < ELEMENTS(directories); i++)
		(void)unlinkat(place->fd, directories[i], AT_REMOVEDIR);
	(void)close(place->fd);
	return rmdir(place->path);
}

static void assert_file(const Place *place, const char *path, const char *expected)
{
	_cleanup_free_ char *data = NULL;
	size_t size;
	assert_int_equal(fd_read_file(place->fd, path, 1000, &data, &size), 0);
	assert_int_equal(size, strlen(expected));
	assert_string_equal(data, expected);
}

static void test_replace(void **state)
{
	const Place *place = *state;
	struct stat status;
	assert_int_equal(fd_replace_file(place->fd, "a", "one", 3, 0640), 0);
	assert_file(place, "a", "one");
	assert_int_equal(fd_replace_file(place->fd, "a", "second", 6, 0600), 0);
	assert_file(place, "a", "second");
	assert_int_equal(fstatat(place->fd, "a", &status, 0), 0);
	assert_int_equal(status.st_mode & 07777, 0600);
	assert_int_equal(fd_replace_file(place->fd, "none/b", "x", 1, 0600), -ENOENT);
}

/* A failed replacement leaves the old file and no temporary. */
static void test_replace_fails(void **state)
{
	const Place *place = *state;
	assert_int_equal(fd_make_directories(place->fd, "sub", 0755), 0);
	assert_int_equal(fd_replace_file(place->fd, "sub/b", "b", 1, 0600), 0);
	assert_int_equal(fd_replace_file(place->fd, "sub", "x", 1, 0600), -EISDIR);
	assert_file(place, "sub/b", "b");
	_cleanup_closedir_ DIR *directory = opendir(place->path);
	assert_non_null(directory);
	for (struct dirent *entry; (entry = readdir(directory));)
		assert_int_not_equal(strncmp(entry->d_name, ".tmp-", 5), 0);
}

static void test_read_limits(void **state)
{
	const Place *place = *state;
	char *data = NULL;
	size_t size;
	assert_int_equal(fd_replace_file(place->fd, "a", "12345", 5, 0600), 0);
	assert_int_equal(fd_read_file(place->fd, "a", 4, &data, &size), -EFBIG);
	assert_int_equal(fd_read_file(place->fd, "a", 5, &data, &size), 0);
	free(data);
	assert_int_equal(fd_read_file(place->fd, "missing", 5, &data, &size), -ENOENT);
	assert_int_equal(fd_read_file(place->fd, ".", 5, &data, &size), -EISDIR);
	assert_int_equal(fd_replace_file(place->fd, "empty", "", 0, 0600), 0);
	assert_file(place, "empty", "");
}

static void test_positions(void **state)
{
	const Place *place = *state;
	char buffer[8];
	_cleanup_close_ int fd = openat(place->fd, "a", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(fd_pwrite_all(fd, "world", 5, 6), 0);
	assert_int_equal(fd_write_all(fd, "hello ", 6), 0);
	assert_int_equal(fd_pread_all(fd, buffer, 5, 3), 0);
	assert_memory_equal(buffer, "lo wo", 5);
	assert_int_equal(fd_pread_all(fd, buffer, 5, 7), -ENODATA);
	assert_int_equal(fd_pread_all(fd, buffer, 0, 100), 0);
	assert_int_equal(fd_pread_all(-1, buffer, 1, 0), -EBADF);
	assert_int_equal(fd_pwrite_all(-1, buffer, 1, 0), -EBADF);
	assert_int_equal(fd_write_all(-1, buffer, 1), -EBADF);
}

/* A pipe hands bytes out in pieces. */
static void test_read_full(void **state)
{
	(void)state;
	int ends[2];
	char buffer[8];
	assert_int_equal(pipe2(ends, O_CLOEXEC | O_DIRECT), 0);
	assert_int_equal(write(ends[1], "abc", 3), 3);
	assert_int_equal(write(ends[1], "de", 2), 2);
	assert_int_equal(close(ends[1]), 0);
	assert_int_equal(fd_read_full(ends[0], buffer, sizeof(buffer)), 5);
	assert_memory_equal(buffer, "abcde", 5);
	assert_int_equal(fd_read_full(ends[0], buffer, sizeof(buffer)), 0);
	assert_int_equal(close(ends[0]), 0);
	assert_int_equal(fd_read_full(-1, buffer, 1), -EBADF);
}

static void test_directories(void **state)
{
	const Place *place = *state;
	char longest[5000];
	assert_int_equal(fd_make_directories(place->fd, "sub/deep", 0755), 0);
	assert_int_equal(fd_make_directories(place->fd, "sub/deep", 0755), 0);
	assert_int_equal(fd_replace_file(place->fd, "sub/deep/c", "c", 1, 0600), 0);
	assert_int_equal(fd_make_directories(place->fd, "sub/deep/c/d", 0755), -ENOTDIR);
	memset(longest, 'a', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	assert_int_equal(fd_make_directories(place->fd, longest, 0755), -ENAMETOOLONG);
}

static void test_publish(void **state)
{
	const Place *place = *state;
	_cleanup_close_ int fd = openat(place->fd, ".tmp-x", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(fd_write_all(fd, "published", 9), 0);
	assert_int_equal(fd_publish_file(place->fd, fd, ".tmp-x", "a"), 0);
	assert_file(place, "a", "published");
	assert_int_equal(fd_publish_file(place->fd, fd, ".tmp-x", "a"), -ENOENT);
}

static void test_map(void **state)
{
	const Place *place = *state;
	FdMap map;
	assert_int_equal(fd_replace_file(place->fd, "a", "mapped", 6, 0600), 0);
	_cleanup_close_ int fd = openat(place->fd, "a", O_RDONLY | O_CLOEXEC);
	assert_int_equal(fd_map(fd, &map), 0);
	assert_int_equal(map.size, 6);
	assert_memory_equal(map.data, "mapped", 6);
	fd_unmap(&map);
	fd_unmap(&map);
	assert_int_equal(fd_replace_file(place->fd, "empty", "", 0, 0600), 0);
	_cleanup_close_ int empty = openat(place->fd, "empty", O_RDONLY | O_CLOEXEC);
	assert_int_equal(fd_map(empty, &map), 0);
	assert_null(map.data);
	assert_int_equal(map.size, 0);
	fd_unmap(&map);
	assert_int_equal(fd_map(-1, &map), -EBADF);
}

static void test_load(void **state)
{
	const Place *place = *state;
	static char bytes[3 * 4096 + 100];
	memset(bytes, 'x', sizeof(bytes));
	FdMap map;
	assert_int_equal(fd_replace_file(place->fd, "a", bytes, sizeof(bytes), 0600), 0);
	_cleanup_close_ int fd = openat(place->fd, "a", O_RDWR | O_CLOEXEC);
	assert_int_equal(fd_load_begin(fd, &map), 0);
	assert_int_equal(map.size, sizeof(bytes));
	assert_int_equal(fd_load_part(fd, &map, 5000, 10), 0);
	assert_int_equal(map.data[4999] + map.data[5010], 0);
	assert_memory_equal(map.data + 5000, bytes, 10);
	assert_int_equal(fd_load_part(fd, &map, 5000, sizeof(bytes) - 4999), -EINVAL);
	assert_int_equal(fd_load_part(fd, &map, 0, map.size), 0);
	assert_int_equal(fd_load_end(&map), 0);
	assert_memory_equal(map.data, bytes, sizeof(bytes));
	fd_unmap(&map);
	assert_int_equal(fd_load(fd, &map), 0);
	assert_int_equal(ftruncate(fd, 10), 0);
	assert_int_equal(map.size, sizeof(bytes));
	assert_memory_equal(map.data, bytes, sizeof(bytes));
	fd_shrink(&map, sizeof(bytes));
	assert_int_equal(map.size, sizeof(bytes));
	fd_shrink(&map, 4097);
	assert_int_equal(map.size, 8192);
	assert_memory_equal(map.data, bytes, map.size);
	fd_shrink(&map, 0);
	assert_null(map.data);

	assert_int_equal(fd_replace_file(place->fd, "empty", "", 0, 0600), 0);
	_cleanup_close_ int empty = openat(place->fd, "empty", O_RDONLY | O_CLOEXEC);
	assert_int_equal(fd_load(empty, &map), 0);
	assert_null(map.data);
	assert_int_equal(fd_load(-1, &map), -EBADF);
	_cleanup_close_ int unreadable = openat(place->fd, "a", O_WRONLY | O_CLOEXEC);
	assert_int_equal(fd_load(unreadable, &map), -EBADF);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_replace),     cmocka_unit_test(test_replace_fails),
		cmocka_unit_test(test_read_limits), cmocka_unit_test(test_positions),
		cmocka_unit_test(test_read_full),   cmocka_unit_test(test_directories),
		cmocka_unit_test(test_publish),     cmocka_unit_test(test_map),
		cmocka_unit_test(test_load),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
