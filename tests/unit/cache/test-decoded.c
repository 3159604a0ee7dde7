/* Decoded copies: written, read in any part, and never believed where they are not what was written. */
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
#include "fs/cache/cache-contents.h"
#include "fs/cache/cache-decoded.h"

#define PAGE      CACHE_DECODED_PAGE
#define TAR_SIZE  (20u * PAGE + 512)
#define PAGES     21u
#define FILE_SIZE (PAGES * (PAGE + 8) + CACHE_DECODED_FOOTER)

static char directory[PATH_MAX];
static uint8_t tar[TAR_SIZE], buffer[TAR_SIZE + 2];
static const Digest layer = { { 1 } };

static int set_up(void **state)
{
	for (size_t i = 0; i < sizeof(tar); i++)
		tar[i] = (uint8_t)(i * 2654435761u >> 13);
	*state = cache_fixture_open(directory);
	return 0;
}

static int tear_down(void **state)
{
	cache_fixture_close(*state, directory);
	return 0;
}

/* In parts of `part` bytes. */
static void make_copy(CacheStore *store, size_t tar_size, size_t part)
{
	CacheDecodedWriter *writer;
	int fd;
	assert_int_equal(cache_contents_remove(store, CACHE_DECODED, &layer), 0);
	assert_int_equal(cache_decoded_writer_new(store, &layer, tar_size, &writer, NULL), 0);
	for (size_t at = 0; at < tar_size; at += part)
		assert_int_equal(
			cache_decoded_writer_add(writer, tar + at, at + part < tar_size ? part : tar_size - at, NULL),
			0);
	assert_int_equal(cache_store_get(store, CACHE_DECODED, &layer, &fd), -ENOENT);
	assert_int_equal(cache_decoded_writer_finish(writer, NULL), 0);
	assert_null(cache_decoded_writer_free(writer));
}

/* The file, for reading and writing. */
static int open_file(void)
{
	char path[PATH_MAX + 128], hex[DIGEST_HEX_SIZE];
	(void)snprintf(path, sizeof(path), "%s/decoded/%s", directory, digest_hex(&layer, hex));
	int fd = open(path, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	return fd;
}

static int open_copy(const Digest *diff_id, uint64_t tar_size, CacheDecoded **ret_copy)
{
	return cache_decoded_open(open_file(), diff_id, tar_size, ret_copy);
}

static unsigned files(CacheStore *store)
{
	CacheObject *objects = NULL;
	size_t count = 0;
	assert_int_equal(cache_contents_list(store, CACHE_DECODED, &objects, &count), 0);
	free(objects);
	return (unsigned)count;
}

static unsigned all_names(void)
{
	char path[PATH_MAX + 16];
	unsigned count = 0;
	(void)snprintf(path, sizeof(path), "%s/decoded", directory);
	_cleanup_closedir_ DIR *names = opendir(path);
	assert_non_null(names);
	for (struct dirent *entry; (entry = readdir(names));)
		count += entry->d_name[0] != '.' || strlen(entry->d_name) > 2;
	return count;
}

static void test_reads_any_part(void **state)
{
	static const size_t sizes[] = { 0, 1, 512, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE, TAR_SIZE };
	static const size_t parts[] = { 100, 512, PAGE, PAGE + 512, 5 * PAGE, TAR_SIZE };
	for (size_t i = 0; i < ELEMENTS(sizes) * ELEMENTS(parts); i++) {
		size_t tar_size = sizes[i / ELEMENTS(parts)];
		CacheDecoded *copy;
		make_copy(*state, tar_size, parts[i % ELEMENTS(parts)]);
		assert_int_equal(open_copy(&layer, tar_size, &copy), 0);
		assert_int_equal(cache_decoded_check(copy), 0);
		for (size_t from = 0; from <= tar_size; from += 509) {
			for (size_t size = 0; from + size <= tar_size; size += 1021) {
				memset(buffer, 0xee, size + 2);
				assert_int_equal(cache_decoded_read(copy, from, size, buffer + 1), 0);
				assert_memory_equal(buffer + 1, tar + from, size);
				assert_int_equal(buffer[0], 0xee);
				assert_int_equal(buffer[size + 1], 0xee);
			}
		}
		for (size_t from = 0; from + PAGE <= tar_size; from += PAGE) {
			assert_int_equal(cache_decoded_read(copy, from, PAGE, buffer), 0);
			assert_memory_equal(buffer, tar + from, PAGE);
			assert_int_equal(cache_decoded_read(copy, from, tar_size - from, buffer), 0);
			assert_memory_equal(buffer, tar + from, tar_size - from);
		}
		assert_null(cache_decoded_free(copy));
	}
	assert_int_equal(files(*state), 1);
}

static void test_layout(void **state)
{
	make_copy(*state, TAR_SIZE, TAR_SIZE);
	_cleanup_close_ int fd = open_file();
	struct stat status;
	char magic[9] = "";
	assert_int_equal(fstat(fd, &status), 0);
	assert_int_equal(status.st_size, FILE_SIZE);
	assert_int_equal(fd_pread_all(fd, buffer, TAR_SIZE, 0), 0);
	assert_memory_equal(buffer, tar, TAR_SIZE);
	assert_int_equal(fd_pread_all(fd, magic, 8, FILE_SIZE - CACHE_DECODED_FOOTER), 0);
	assert_string_equal(magic, "imgfsdec");
}

static void test_nothing_is_left_of_half_a_copy(void **state)
{
	CacheDecodedWriter *writer;
	Error error = { 0 };
	assert_int_equal(cache_decoded_writer_new(*state, &layer, TAR_SIZE, &writer, NULL), 0);
	assert_int_equal(cache_decoded_writer_add(writer, tar, 5000, NULL), 0);
	assert_int_equal(cache_decoded_writer_finish(writer, &error), -EINVAL);
	assert_non_null(strstr(error.message, "decoded copy"));
	assert_int_equal(cache_decoded_writer_add(writer, tar, TAR_SIZE - 4999, NULL), -EINVAL);
	assert_int_equal(all_names(), 1);
	assert_null(cache_decoded_writer_free(writer));
	assert_int_equal(all_names(), 0);
	assert_int_equal(cache_decoded_writer_new(*state, &layer, UINT64_MAX, &writer, NULL), -EFBIG);
	assert_int_equal(all_names(), 0);
}

static void test_no_room(void **state)
{
	CacheDecodedWriter *writer;
	Error error = { 0 };
	/* More than any file system of a test has room for. */
	assert_int_equal(cache_decoded_writer_new(*state, &layer, UINT64_C(1) << 60, &writer, &error), -ENOSPC);
	assert_non_null(strstr(error.message, "free some space"));
	assert_int_equal(all_names(), 0);
}

static void flip(int fd, uint64_t at)
{
	uint8_t byte;
	assert_int_equal(fd_pread_all(fd, &byte, 1, at), 0);
	byte ^= 0x10;
	assert_int_equal(fd_pwrite_all(fd, &byte, 1, at), 0);
}

/* Which pages can be read? */
static void check_pages(const CacheDecoded *copy, unsigned first_bad, unsigned last_bad)
{
	for (unsigned i = 0; i < PAGES; i++) {
		size_t from = i * PAGE, size = TAR_SIZE - from < PAGE ? TAR_SIZE - from : PAGE;
		int wanted = i >= first_bad && i <= last_bad ? -EBADMSG : 0;
		assert_int_equal(cache_decoded_read(copy, from, size, buffer), wanted);
		assert_int_equal(cache_decoded_read(copy, from + 1, 1, buffer), wanted);
		/* From the page before, and into the page behind. */
		if (i > 0 && wanted)
			assert_int_equal(cache_decoded_read(copy, from - 1, 2, buffer), -EBADMSG);
		if (i + 1 < PAGES && wanted)
			assert_int_equal(cache_decoded_read(copy, from + size - 1, 2, buffer), -EBADMSG);
	}
	assert_int_equal(cache_decoded_read(copy, 0, TAR_SIZE, buffer), first_bad < PAGES ? -EBADMSG : 0);
	assert_int_equal(cache_decoded_check(copy), first_bad < PAGES ? -EBADMSG : 0);
}

static void test_bits_flipped(void **state)
{
	CacheDecoded *copy;
	make_copy(*state, TAR_SIZE, TAR_SIZE);
	_cleanup_close_ int fd = open_file();
	assert_int_equal(open_copy(&layer, TAR_SIZE, &copy), 0);
	check_pages(copy, PAGES, PAGES);
	for (unsigned i = 0; i < PAGES; i++) {
		uint64_t at = (uint64_t)i * PAGE + (i * 797 + 17) % 512;
		flip(fd, at);
		check_pages(copy, i, i);
		flip(fd, at);
	}
	assert_null(cache_decoded_free(copy));
	/* The sums and the footer, each byte of them. */
	for (uint64_t at = (uint64_t)PAGES * PAGE; at < FILE_SIZE; at++) {
		flip(fd, at);
		assert_int_equal(open_copy(&layer, TAR_SIZE, &copy), -EBADMSG);
		flip(fd, at);
	}
	assert_int_equal(open_copy(&layer, TAR_SIZE, &copy), 0);
	check_pages(copy, PAGES, PAGES);
	assert_null(cache_decoded_free(copy));
}

static void test_torn_swapped_cut(void **state)
{
	uint8_t pages[2 * PAGE];
	CacheDecoded *copy;
	make_copy(*state, TAR_SIZE, TAR_SIZE);
	_cleanup_close_ int fd = open_file();
	assert_int_equal(open_copy(&layer, TAR_SIZE, &copy), 0);
	memset(pages, 0, sizeof(pages));
	assert_int_equal(fd_pwrite_all(fd, pages, sizeof(pages), 7 * PAGE), 0);
	check_pages(copy, 7, 8);
	assert_int_equal(fd_pwrite_all(fd, tar + 8 * PAGE, PAGE, 7 * PAGE), 0);
	assert_int_equal(fd_pwrite_all(fd, tar + 7 * PAGE, PAGE, 8 * PAGE), 0);
	check_pages(copy, 7, 8);
	assert_int_equal(fd_pwrite_all(fd, tar + 7 * PAGE, 2 * PAGE, 7 * PAGE), 0);
	check_pages(copy, PAGES, PAGES);
	assert_int_equal(fd_pwrite_all(fd, tar + 7 * PAGE, 100, 7 * PAGE + 50), 0); /* half a write */
	check_pages(copy, 7, 7);
	assert_int_equal(ftruncate(fd, 9 * PAGE + 100), 0);
	assert_int_equal(cache_decoded_read(copy, 9 * PAGE, 10, pages), -ENODATA);
	assert_int_equal(cache_decoded_read(copy, 8 * PAGE, 2 * PAGE, pages), -EBADMSG);
	assert_int_equal(cache_decoded_read(copy, 8 * PAGE, PAGE, pages), 0);
	assert_null(cache_decoded_free(copy));
	assert_int_equal(open_copy(&layer, TAR_SIZE, &copy), -EBADMSG);
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_int_equal(open_copy(&layer, TAR_SIZE, &copy), -EBADMSG);
	assert_int_equal(ftruncate(fd, FILE_SIZE), 0);
	assert_int_equal(open_copy(&layer, TAR_SIZE, &copy), -EBADMSG);
}

static void test_another_layer(void **state)
{
	static const Digest other = { { 2 } };
	CacheDecoded *copy;
	make_copy(*state, TAR_SIZE, TAR_SIZE);
	assert_int_equal(open_copy(&other, TAR_SIZE, &copy), -EBADMSG);
	assert_int_equal(open_copy(&layer, TAR_SIZE - 1, &copy), -EBADMSG);
	assert_int_equal(open_copy(&layer, TAR_SIZE + 1, &copy), -EBADMSG);
	assert_int_equal(open_copy(&layer, UINT64_MAX, &copy), -EBADMSG);
	assert_int_equal(open_copy(&layer, 0, &copy), -EBADMSG);
}

/* Who has a place finds the copy in it once it is whole, and never before. */
static void test_made_in_a_place(void **state)
{
	CacheDecodedWriter *writer, *second;
	CacheDecoded *copy;
	int fd, other, found;
	assert_int_equal(cache_decoded_reserve(*state, &layer, &fd), 0);
	assert_true(cache_decoded_is_place(fd));
	assert_int_equal(cache_decoded_reserve(*state, &layer, &other), 0);
	assert_int_equal(cache_decoded_writer_in(fd, &layer, TAR_SIZE, 0, &writer, NULL), 0);
	assert_int_equal(cache_decoded_writer_in(other, &layer, TAR_SIZE, 0, &second, NULL), -EBUSY);
	assert_int_equal(cache_decoded_writer_add(writer, tar, TAR_SIZE, NULL), 0);
	assert_true(cache_decoded_is_place(other));
	assert_int_equal(open_copy(&layer, TAR_SIZE, &copy), -EBADMSG);
	assert_int_equal(cache_decoded_writer_finish(writer, NULL), 0);
	assert_null(cache_decoded_writer_free(writer));
	assert_false(cache_decoded_is_place(other));
	assert_int_equal(cache_decoded_writer_in(other, &layer, TAR_SIZE, 0, &second, NULL), -EEXIST);
	assert_int_equal(open_copy(&layer, TAR_SIZE, &copy), 0);
	assert_int_equal(cache_decoded_check(copy), 0);
	assert_int_equal(cache_decoded_read(copy, 0, TAR_SIZE, buffer), 0);
	assert_memory_equal(buffer, tar, TAR_SIZE);
	assert_null(cache_decoded_free(copy));
	assert_int_equal(cache_decoded_reserve(*state, &layer, &found), 0);
	assert_int_equal(fcntl(found, F_GETFL) & O_ACCMODE, O_RDONLY);
	(void)close(found);
	(void)close(other);
	(void)close(fd);
}

/* Half a copy gives its room back; a place that somebody took away is not written to; a spare part of the disk is left. */
static void test_left_places(void **state)
{
	CacheDecodedWriter *writer;
	int fd;
	assert_int_equal(cache_decoded_reserve(*state, &layer, &fd), 0);
	assert_int_equal(cache_decoded_writer_in(fd, &layer, TAR_SIZE, UINT64_MAX / 2, &writer, NULL), -ENOSPC);
	assert_int_equal(lseek(fd, 0, SEEK_END), 0);
	assert_int_equal(cache_decoded_writer_in(fd, &layer, TAR_SIZE, 0, &writer, NULL), 0);
	assert_int_equal(cache_decoded_writer_add(writer, tar, PAGE, NULL), 0);
	assert_int_equal(cache_decoded_writer_finish(writer, NULL), -EINVAL);
	assert_null(cache_decoded_writer_free(writer));
	assert_int_equal(lseek(fd, 0, SEEK_END), 0);
	assert_int_equal(cache_decoded_writer_in(fd, &layer, TAR_SIZE, 0, &writer, NULL), 0);
	assert_int_equal(cache_decoded_writer_add(writer, tar, TAR_SIZE, NULL), 0);
	assert_int_equal(cache_contents_remove(*state, CACHE_DECODED, &layer), 0);
	assert_int_equal(cache_decoded_writer_finish(writer, NULL), -ESTALE);
	assert_null(cache_decoded_writer_free(writer));
	assert_int_equal(lseek(fd, 0, SEEK_END), 0);
	assert_int_equal(cache_decoded_writer_in(fd, &layer, TAR_SIZE, 0, &writer, NULL), -ESTALE);
	(void)close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_reads_any_part, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_layout, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_nothing_is_left_of_half_a_copy, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_no_room, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_bits_flipped, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_torn_swapped_cut, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_another_layer, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_made_in_a_place, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_left_places, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
