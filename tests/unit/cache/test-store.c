#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#include "cache-fixture.h"
#include "fs/base/fd.h"
#include "fs/cache/cache-store.h"

static char directory[PATH_MAX];

static int set_up(void **state)
{
	*state = cache_fixture_open(directory);
	return 0;
}

static int tear_down(void **state)
{
	cache_fixture_close(*state, directory);
	return 0;
}

static Digest digest(uint8_t byte)
{
	Digest value;
	memset(&value, byte, sizeof(value));
	return value;
}

static void path_of(const char *name, char ret_path[static PATH_MAX])
{
	int length = snprintf(ret_path, PATH_MAX, "%s/%s", directory, name);
	assert_in_range(length, 1, PATH_MAX - 1);
}

static void test_opens_again(void **state)
{
	CacheStore *again;
	Digest one = digest(1);
	int fd = -1;
	assert_int_equal(cache_store_put(*state, CACHE_VIEW, &one, "x", 1, NULL), 0);
	assert_int_equal(cache_store_open(directory, true, &again, NULL), 0);
	assert_int_equal(cache_store_get(again, CACHE_VIEW, &one, &fd), 0);
	(void)close(fd);
	assert_null(cache_store_free(again));
}

static void test_makes_its_directory(void **state _unused_)
{
	char path[PATH_MAX];
	CacheStore *store;
	struct stat status;
	path_of("blobs/a/b", path);
	assert_int_equal(cache_store_open(path, true, &store, NULL), 0);
	assert_null(cache_store_free(store));
	assert_int_equal(stat(path, &status), 0);
	assert_int_equal(status.st_mode & 0777, 0700);
}

static void test_refuses_what_is_no_cache(void **state _unused_)
{
	char path[PATH_MAX];
	CacheStore *store;
	Error error = { 0 };
	path_of("blobs", path);
	assert_int_equal(fd_make_directories(AT_FDCWD, path, 0700), 0);
	path_of("blobs/precious", path);
	assert_int_equal(fd_replace_file(AT_FDCWD, path, "x", 1, 0600), 0);
	path_of("blobs", path);
	assert_int_equal(cache_store_open(path, true, &store, &error), -EEXIST);
	assert_non_null(strstr(error.message, "not an imgfs cache"));
	/* Nothing was put there. */
	path_of("blobs/views", path);
	assert_int_equal(access(path, F_OK), -1);

	path_of("blobs/imgfs-cache", path);
	assert_int_equal(fd_replace_file(AT_FDCWD, path, "imgfs cache 2\n", 14, 0600), 0);
	assert_int_equal(cache_store_open(path, true, &store, &error), -ENOTDIR);
	path_of("blobs", path);
	assert_int_equal(cache_store_open(path, true, &store, &error), -EEXIST);
}

/* What says that it is a cache may rot, or be gone: it is one all the same. */
static void test_damaged_marker(void **state _unused_)
{
	static const char *const texts[] = { "", "imgfs cache 3\n", "\1mgfs cache 1\n", "imgfs", NULL };
	char path[PATH_MAX], cache[PATH_MAX];
	CacheStore *store;
	path_of("cache", cache);
	path_of("cache/imgfs-cache", path);
	assert_int_equal(cache_store_open(cache, true, &store, NULL), 0);
	assert_null(cache_store_free(store));
	for (size_t i = 0; i < ELEMENTS(texts); i++) {
		if (texts[i])
			assert_int_equal(fd_replace_file(AT_FDCWD, path, texts[i], strlen(texts[i]), 0600), 0);
		else
			assert_int_equal(unlink(path), 0);
		assert_int_equal(cache_store_open(cache, true, &store, NULL), 0);
		assert_null(cache_store_free(store));
		_cleanup_free_ char *text = NULL;
		size_t size;
		assert_int_equal(fd_read_file(AT_FDCWD, path, 64, &text, &size), 0);
		assert_string_equal(text, "imgfs cache 1\n");
	}
}

static void test_put_and_get(void **state)
{
	static const CacheKind kinds[] = { CACHE_INDEX, CACHE_VIEW, CACHE_MANIFEST };
	CacheStore *store = *state;
	Digest one = digest(1), two = digest(2);
	for (size_t i = 0; i < ELEMENTS(kinds); i++) {
		int fd = -1;
		char text[8] = "";
		assert_int_equal(cache_store_get(store, kinds[i], &one, &fd), -ENOENT);
		assert_int_equal(cache_store_put(store, kinds[i], &one, "old", 3, NULL), 0);
		assert_int_equal(cache_store_get(store, kinds[i], &one, &fd), 0);
		assert_int_equal(cache_store_put(store, kinds[i], &one, "newer", 5, NULL), 0);
		/* Who has the old one open keeps it. */
		assert_int_equal(read(fd, text, sizeof(text)), 3);
		assert_int_equal(write(fd, "x", 1), -1);
		assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
		(void)close(fd);
		assert_int_equal(cache_store_get(store, kinds[i], &one, &fd), 0);
		assert_int_equal(read(fd, text, sizeof(text)), 5);
		assert_memory_equal(text, "newer", 5);
		(void)close(fd);
		assert_int_equal(cache_store_get(store, kinds[i], &two, &fd), -ENOENT);
	}
}

static void test_put_fails_with_a_sentence(void **state)
{
	CacheStore *store = *state;
	char path[PATH_MAX];
	Error error = { 0 };
	Digest one = digest(1);
	path_of("views", path);
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(cache_store_put(store, CACHE_VIEW, &one, "x", 1, &error), -ENOENT);
	assert_non_null(strstr(error.message, directory));
}

static void test_blob_files(void **state)
{
	CacheStore *store = *state;
	Digest one = digest(1);
	int data = -1, present = -1;
	struct stat status;
	assert_int_equal(cache_store_blob(store, &one, UINT64_C(5) << 30, 17, &data, &present, NULL), 0);
	assert_int_equal(fstat(data, &status), 0);
	assert_int_equal(status.st_size, UINT64_C(5) << 30);
	assert_int_equal(status.st_blocks, 0);
	assert_int_equal(fstat(present, &status), 0);
	assert_int_equal(status.st_size, 8 + 17 * 16);
	assert_int_equal(pwrite(data, "data", 4, 100), 4);
	assert_int_equal(pwrite(present, "\7", 1, 1), 1);
	(void)close(data);
	(void)close(present);

	char text[4];
	assert_int_equal(cache_store_blob(store, &one, UINT64_C(5) << 30, 17, &data, &present, NULL), 0);
	assert_int_equal(pread(data, text, 4, 100), 4);
	assert_memory_equal(text, "data", 4);
	assert_int_equal(pread(present, text, 1, 1), 1);
	assert_int_equal(text[0], 7);
	(void)close(data);
	(void)close(present);

	/* A bitmap as it was before there were marks stays; one of another length says nothing about these chunks. */
	assert_int_equal(cache_store_blob(store, &one, UINT64_C(5) << 30, 17, &data, &present, NULL), 0);
	assert_int_equal(ftruncate(present, 3), 0);
	(void)close(data);
	(void)close(present);
	assert_int_equal(cache_store_blob(store, &one, UINT64_C(5) << 30, 17, &data, &present, NULL), 0);
	assert_int_equal(pread(present, text, 1, 1), 1);
	assert_int_equal(text[0], 7);
	(void)close(data);
	(void)close(present);
	assert_int_equal(cache_store_blob(store, &one, UINT64_C(5) << 30, 30, &data, &present, NULL), 0);
	assert_int_equal(pread(present, text, 4, 0), 4);
	assert_memory_equal(text, "\0\0\0\0", 4);
	(void)close(data);
	(void)close(present);
	Error error = { 0 };
	assert_int_equal(cache_store_blob(store, &one, UINT64_MAX, 30, &data, &present, &error), -EFBIG);
}

static void test_tags(void **state)
{
	CacheStore *store = *state;
	Reference reference, other;
	Digest one = digest(1), two = digest(2), found;
	assert_int_equal(reference_parse_remote("[::1]:8500/whisk/invoker:v1", &reference, NULL), 0);
	assert_int_equal(reference_parse_remote("[::1]:8500/whisk/invoker:v2", &other, NULL), 0);
	assert_int_equal(cache_store_tag_get(store, &reference, &found), -ENOENT);
	assert_int_equal(cache_store_tag_put(store, &reference, &one, NULL), 0);
	assert_int_equal(cache_store_tag_put(store, &other, &two, NULL), 0);
	assert_int_equal(cache_store_tag_get(store, &reference, &found), 0);
	assert_memory_equal(&found, &one, sizeof(found));
	assert_int_equal(cache_store_tag_put(store, &reference, &two, NULL), 0);
	assert_int_equal(cache_store_tag_get(store, &reference, &found), 0);
	assert_memory_equal(&found, &two, sizeof(found));
}

/* What a mirror said is told from what the host said, which takes its place also if it is the same. */
static void test_hearsay(void **state)
{
	CacheStore *store = *state;
	Reference reference;
	Digest one = digest(1), two = digest(2), found;
	assert_int_equal(reference_parse_remote("build:8500/a:v1", &reference, NULL), 0);
	assert_false(cache_store_tag_is_hearsay(store, &reference));
	assert_int_equal(cache_store_tag_put_hearsay(store, &reference, &one, NULL), 0);
	assert_int_equal(cache_store_tag_get(store, &reference, &found), 0);
	assert_memory_equal(&found, &one, sizeof(found));
	assert_true(cache_store_tag_is_hearsay(store, &reference));
	assert_int_equal(cache_store_tag_put(store, &reference, &one, NULL), 0);
	assert_false(cache_store_tag_is_hearsay(store, &reference));
	assert_int_equal(cache_store_tag_put_hearsay(store, &reference, &two, NULL), 0);
	assert_int_equal(cache_store_tag_get(store, &reference, &found), 0);
	assert_memory_equal(&found, &two, sizeof(found));
}

static void test_rotten_tag_is_none(void **state)
{
	static const char *const rotten[] = { "", "sha256:12\n", "rubbish", "sha256:" };
	CacheStore *store = *state;
	Reference reference;
	Digest one = digest(1), found;
	char path[PATH_MAX];
	assert_int_equal(reference_parse_remote("build:8500/a:v1", &reference, NULL), 0);
	assert_int_equal(cache_store_tag_put(store, &reference, &one, NULL), 0);
	path_of("tags/build:8500/a/_tags/v1", path);
	for (size_t i = 0; i < ELEMENTS(rotten); i++) {
		assert_int_equal(fd_replace_file(AT_FDCWD, path, rotten[i], strlen(rotten[i]), 0600), 0);
		assert_int_equal(cache_store_tag_get(store, &reference, &found), -ENOENT);
	}
}

/* References made by hand, past the parser, cannot leave the directory. */
static void test_tags_stay_inside(void **state)
{
	static const Reference bad[] = {
		{ .host = "..", .name = "a", .tag = "v1" },      { .host = "a/b", .name = "a", .tag = "v1" },
		{ .host = "", .name = "a", .tag = "v1" },        { .host = "h", .name = "../a", .tag = "v1" },
		{ .host = "h", .name = "a", .tag = "../../v1" }, { .host = "h", .name = "a", .tag = "" },
	};
	CacheStore *store = *state;
	Digest one = digest(1), found;
	for (size_t i = 0; i < ELEMENTS(bad); i++) {
		assert_int_equal(cache_store_tag_put(store, &bad[i], &one, NULL), -EINVAL);
		assert_int_equal(cache_store_tag_get(store, &bad[i], &found), -ENOENT);
	}
}

static void test_sweeps_old_temporaries(void **state _unused_)
{
	char old[PATH_MAX], young[PATH_MAX];
	CacheStore *again;
	path_of("views/.tmp-old", old);
	path_of("views/.tmp-young", young);
	assert_int_equal(fd_replace_file(AT_FDCWD, old, "x", 1, 0600), 0);
	assert_int_equal(fd_replace_file(AT_FDCWD, young, "x", 1, 0600), 0);
	struct timespec times[2] = { { .tv_sec = 1000 }, { .tv_sec = 1000 } };
	assert_int_equal(utimensat(AT_FDCWD, old, times, 0), 0);
	assert_int_equal(cache_store_open(directory, true, &again, NULL), 0);
	assert_null(cache_store_free(again));
	assert_int_equal(access(old, F_OK), -1);
	assert_int_equal(access(young, F_OK), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_opens_again, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_makes_its_directory, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_refuses_what_is_no_cache, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_damaged_marker, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_put_and_get, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_put_fails_with_a_sentence, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_blob_files, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_tags, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_hearsay, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_rotten_tag_is_none, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_tags_stay_inside, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_sweeps_old_temporaries, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
