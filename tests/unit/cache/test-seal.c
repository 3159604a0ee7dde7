/* Seals of blobs: what is one and what is none, and who can write them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cache-fixture.h"
#include "fs/base/fd.h"
#include "fs/cache/cache-contents.h"
#include "fs/cache/cache-seal.h"

typedef struct Sealing {
	char path[PATH_MAX];
	CacheStore *store;
	Digest blob, layer, other;
} Sealing;

static void setup(Sealing *sealing)
{
	int data, present;
	sealing->store = cache_fixture_open(sealing->path);
	assert_int_equal(digest_of("blob", 4, &sealing->blob), 0);
	assert_int_equal(digest_of("layer", 5, &sealing->layer), 0);
	assert_int_equal(digest_of("other", 5, &sealing->other), 0);
	assert_int_equal(cache_store_blob(sealing->store, &sealing->blob, 1000, 3, &data, &present, NULL), 0);
	(void)close(data);
	(void)close(present);
}

static void teardown(Sealing *sealing)
{
	cache_fixture_close(sealing->store, sealing->path);
}

static void test_written_and_taken_back(void **state _unused_)
{
	Sealing sealing;
	setup(&sealing);
	_cleanup_close_ int fd = -1, again = -1;
	assert_int_equal(cache_seal_get(sealing.store, &sealing.blob, &fd), -ENOENT);
	assert_int_equal(cache_seal_open(sealing.store, &sealing.blob, &fd), 0);
	assert_false(cache_seal_is_valid(fd, &sealing.layer));
	assert_int_equal(cache_seal_write(fd, &sealing.layer), 0);
	assert_true(cache_seal_is_valid(fd, &sealing.layer));
	assert_false(cache_seal_is_valid(fd, &sealing.other));
	assert_int_equal(cache_seal_get(sealing.store, &sealing.blob, &again), 0);
	assert_true(cache_seal_is_valid(again, &sealing.layer));
	/* Who may only read it cannot change it. */
	assert_int_equal(cache_seal_write(again, &sealing.other), -EROFS);
	assert_int_equal(cache_seal_clear(again), -EROFS);
	assert_true(cache_seal_is_valid(fd, &sealing.layer));
	assert_int_equal(cache_seal_clear(fd), 0);
	assert_false(cache_seal_is_valid(again, &sealing.layer));
	/* It goes with its blob. */
	assert_int_equal(cache_contents_remove(sealing.store, CACHE_BLOB, &sealing.blob), 0);
	teardown(&sealing);
}

static void test_torn_ones_are_none(void **state _unused_)
{
	Sealing sealing;
	setup(&sealing);
	_cleanup_close_ int fd = -1;
	assert_int_equal(cache_seal_open(sealing.store, &sealing.blob, &fd), 0);
	assert_int_equal(cache_seal_write(fd, &sealing.layer), 0);
	const off_t size = lseek(fd, 0, SEEK_END), step = 20;
	for (off_t cut = 0; cut < size; cut += step) {
		assert_int_equal(cache_seal_write(fd, &sealing.layer), 0);
		assert_int_equal(ftruncate(fd, cut), 0);
		assert_false(cache_seal_is_valid(fd, &sealing.layer));
	}
	assert_int_equal(cache_seal_write(fd, &sealing.layer), 0);
	assert_int_equal(pwrite(fd, "x", 1, 5), 1);
	assert_false(cache_seal_is_valid(fd, &sealing.layer));
	teardown(&sealing);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_written_and_taken_back),
		cmocka_unit_test(test_torn_ones_are_none),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
