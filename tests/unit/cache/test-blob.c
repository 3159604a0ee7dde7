#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#include "cache-fixture.h"
#include "fs/base/fd.h"
#include "fs/cache/cache-blob.h"

#define CHUNKS     20u
#define FRAME_SIZE 1000u

/* A table of chunks whose frames are any bytes: this room does not decode them. */
typedef struct TableFixture {
	uint8_t frames[CHUNKS][FRAME_SIZE];
	uint8_t *bytes;
	Image image;
	ChunkTable table;
	int data_fd, present_fd;
	CacheBlob *blob;
} TableFixture;

static void make_table(TableFixture *fixture)
{
	for (uint32_t i = 0; i < CHUNKS; i++)
		memset(fixture->frames[i], (int)i + 1, FRAME_SIZE);
	cache_fixture_table(fixture->frames[0], CHUNKS, FRAME_SIZE, 5000, &fixture->bytes, &fixture->image,
			    &fixture->table);
}

/* As after a restart of the server. */
static void reopen(TableFixture *fixture, bool writable)
{
	assert_null(cache_blob_free(fixture->blob));
	assert_int_equal(cache_blob_new(&fixture->table, dup(fixture->data_fd),
					writable ? dup(fixture->present_fd) : -1, &fixture->blob),
			 0);
}

static int set_up(void **state)
{
	TableFixture *fixture = calloc(1, sizeof(*fixture));
	assert_non_null(fixture);
	make_table(fixture);
	fixture->data_fd = memfd_create("data", MFD_CLOEXEC);
	fixture->present_fd = memfd_create("present", MFD_CLOEXEC);
	assert_int_equal(ftruncate(fixture->data_fd, CHUNKS * FRAME_SIZE), 0);
	assert_int_equal(ftruncate(fixture->present_fd, (CHUNKS + 7) / 8), 0);
	reopen(fixture, true);
	*state = fixture;
	return 0;
}

static int tear_down(void **state)
{
	TableFixture *fixture = *state;
	assert_null(cache_blob_free(fixture->blob));
	(void)close(fixture->data_fd);
	(void)close(fixture->present_fd);
	free(fixture->bytes);
	free(fixture);
	return 0;
}

static void put(TableFixture *fixture, uint32_t chunk)
{
	assert_int_equal(cache_blob_write(fixture->blob, chunk, fixture->frames[chunk], FRAME_SIZE), 0);
}

static int read_chunk(TableFixture *fixture, uint32_t chunk)
{
	static uint8_t frame[FORMAT_FRAME_MAX];
	uint32_t size = 0;
	int r = cache_blob_read(fixture->blob, chunk, frame, &size);
	if (r == 0) {
		assert_int_equal(size, FRAME_SIZE);
		assert_memory_equal(frame, fixture->frames[chunk], FRAME_SIZE);
	}
	return r;
}

static void spoil(TableFixture *fixture, uint32_t chunk)
{
	assert_int_equal(pwrite(fixture->data_fd, "rotten", 6, (off_t)chunk * FRAME_SIZE + 10), 6);
}

static uint8_t present_byte(const TableFixture *fixture, off_t at)
{
	uint8_t byte;
	assert_int_equal(pread(fixture->present_fd, &byte, 1, at), 1);
	return byte;
}

static void test_absent_at_first(void **state)
{
	TableFixture *fixture = *state;
	assert_true(cache_blob_writable(fixture->blob));
	assert_ptr_equal(cache_blob_table(fixture->blob), &fixture->table);
	for (uint32_t i = 0; i < CHUNKS; i++) {
		assert_false(cache_blob_has(fixture->blob, i));
		assert_int_equal(read_chunk(fixture, i), -ENODATA);
	}
}

static void test_written_is_there(void **state)
{
	TableFixture *fixture = *state;
	put(fixture, 3);
	put(fixture, 11);
	put(fixture, 8);
	assert_true(cache_blob_has(fixture->blob, 11));
	assert_int_equal(read_chunk(fixture, 11), 0);
	assert_int_equal(read_chunk(fixture, 10), -ENODATA);
	assert_int_equal(present_byte(fixture, 0), 1 << 3);
	assert_int_equal(present_byte(fixture, 1), 1 << 3 | 1);
	reopen(fixture, true);
	assert_int_equal(read_chunk(fixture, 3), 0);
	assert_int_equal(read_chunk(fixture, 8), 0);
	assert_int_equal(read_chunk(fixture, 9), -ENODATA);
}

static void test_wrong_size_is_refused(void **state)
{
	TableFixture *fixture = *state;
	assert_int_equal(cache_blob_write(fixture->blob, 1, fixture->frames[1], FRAME_SIZE - 1), -EINVAL);
	assert_false(cache_blob_has(fixture->blob, 1));
}

static void test_rot_is_found_at_first_use(void **state)
{
	TableFixture *fixture = *state;
	put(fixture, 4);
	put(fixture, 5);
	reopen(fixture, true);
	spoil(fixture, 4);
	assert_true(cache_blob_has(fixture->blob, 4));
	assert_int_equal(read_chunk(fixture, 4), -ENODATA);
	assert_false(cache_blob_has(fixture->blob, 4));
	assert_int_equal(present_byte(fixture, 0), 1 << 5);
	assert_int_equal(read_chunk(fixture, 5), 0);
	put(fixture, 4);
	assert_int_equal(read_chunk(fixture, 4), 0);
}

/* Bits that nobody set rightly: a hint is not believed. */
static void test_wrong_bitmap(void **state)
{
	TableFixture *fixture = *state;
	uint8_t bits[3] = { 255, 255, 255 };
	assert_int_equal(pwrite(fixture->present_fd, bits, 3, 0), 3);
	reopen(fixture, true);
	for (uint32_t i = 0; i < CHUNKS; i++) {
		assert_true(cache_blob_has(fixture->blob, i));
		assert_int_equal(read_chunk(fixture, i), -ENODATA);
		assert_false(cache_blob_has(fixture->blob, i));
	}
	assert_int_equal(present_byte(fixture, 0), 0);
	assert_int_equal(ftruncate(fixture->present_fd, 0), 0);
	reopen(fixture, true);
	assert_false(cache_blob_has(fixture->blob, 0));
}

/* The bitmap is a hint; a bad sector in it costs fetches. */
static void test_unreadable_bitmap(void **state)
{
	TableFixture *fixture = *state;
	char path[64];
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fixture->present_fd);
	_cleanup_(cache_blob_free_p) CacheBlob *blob = NULL;
	assert_int_equal(
		cache_blob_new(&fixture->table, dup(fixture->data_fd), open(path, O_WRONLY | O_CLOEXEC), &blob), 0);
	for (uint32_t i = 0; i < CHUNKS; i++)
		assert_false(cache_blob_has(blob, i));
}

static void test_truncated_data(void **state)
{
	TableFixture *fixture = *state;
	put(fixture, 19);
	assert_int_equal(ftruncate(fixture->data_fd, 10000), 0);
	assert_int_equal(read_chunk(fixture, 19), -ENODATA);
	assert_false(cache_blob_has(fixture->blob, 19));
}

static void test_forget(void **state)
{
	TableFixture *fixture = *state;
	put(fixture, 7);
	cache_blob_forget(fixture->blob, 7);
	assert_false(cache_blob_has(fixture->blob, 7));
	assert_int_equal(read_chunk(fixture, 7), -ENODATA);
	assert_int_equal(present_byte(fixture, 0), 0);
}

static void test_failed_write_stays_absent(void **state)
{
	TableFixture *fixture = *state;
	char path[64];
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fixture->data_fd);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	CacheBlob *blob;
	assert_int_equal(cache_blob_new(&fixture->table, fd, dup(fixture->present_fd), &blob), 0);
	assert_int_equal(cache_blob_write(blob, 2, fixture->frames[2], FRAME_SIZE), -EROFS);
	assert_false(cache_blob_has(blob, 2));
	assert_null(cache_blob_free(blob));
}

static void test_whole_blob(void **state)
{
	TableFixture *fixture = *state;
	for (uint32_t i = 0; i < CHUNKS; i++)
		put(fixture, i);
	spoil(fixture, 9);
	reopen(fixture, false);
	assert_false(cache_blob_writable(fixture->blob));
	assert_int_equal(read_chunk(fixture, 8), 0);
	assert_int_equal(read_chunk(fixture, 9), -ENODATA);
	assert_int_equal(cache_blob_write(fixture->blob, 9, fixture->frames[9], FRAME_SIZE), -EROFS);
	/* The store may be repaired, and is looked at again. */
	assert_int_equal(fd_pwrite_all(fixture->data_fd, fixture->frames[9], FRAME_SIZE, 9 * FRAME_SIZE), 0);
	assert_int_equal(read_chunk(fixture, 9), 0);
}

/* Two servers of one blob keep each other's bits. */
static void test_two_writers(void **state)
{
	TableFixture *fixture = *state;
	CacheBlob *other;
	assert_int_equal(cache_blob_new(&fixture->table, dup(fixture->data_fd), dup(fixture->present_fd), &other), 0);
	put(fixture, 0);
	assert_int_equal(cache_blob_write(other, 1, fixture->frames[1], FRAME_SIZE), 0);
	put(fixture, 2);
	cache_blob_forget(other, 1);
	assert_int_equal(present_byte(fixture, 0), 1 | 1 << 2);
	assert_null(cache_blob_free(other));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_absent_at_first, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_written_is_there, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_wrong_size_is_refused, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_rot_is_found_at_first_use, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_wrong_bitmap, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_unreadable_bitmap, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_truncated_data, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_forget, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_failed_write_stays_absent, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_whole_blob, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_two_writers, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
