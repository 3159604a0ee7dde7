#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "fs/fetch/fetch-recent.h"

static void test_keeps_and_finds(void **state _unused_)
{
	FetchRecent recent;
	uint8_t frame[100], found[100];
	uint32_t size;
	fetch_recent_init(&recent);
	memset(frame, 7, sizeof(frame));
	assert_false(fetch_recent_has(&recent, 1, 5));
	fetch_recent_put(&recent, 1, 5, frame, sizeof(frame));
	assert_true(fetch_recent_has(&recent, 1, 5));
	assert_false(fetch_recent_has(&recent, 2, 5));
	assert_false(fetch_recent_has(&recent, 1, 6));
	assert_int_equal(fetch_recent_get(&recent, 1, 5, found, &size), 0);
	assert_int_equal(size, sizeof(frame));
	assert_memory_equal(found, frame, size);
	assert_int_equal(fetch_recent_get(&recent, 2, 5, found, &size), -ENODATA);
	fetch_recent_done(&recent);
}

static void test_memory_is_bounded(void **state _unused_)
{
	static uint8_t frame[100000];
	FetchRecent recent;
	uint32_t fit = FETCH_RECENT_BYTES / sizeof(frame);
	fetch_recent_init(&recent);
	for (uint32_t i = 0; i < 3 * fit; i++) {
		fetch_recent_put(&recent, 1, i, frame, sizeof(frame));
		assert_in_range(recent.bytes, sizeof(frame), FETCH_RECENT_BYTES);
	}
	assert_false(fetch_recent_has(&recent, 1, 2 * fit - 1));
	assert_true(fetch_recent_has(&recent, 1, 2 * fit));
	assert_true(fetch_recent_has(&recent, 1, 3 * fit - 1));
	fetch_recent_done(&recent);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_keeps_and_finds),
		cmocka_unit_test(test_memory_is_bounded),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
