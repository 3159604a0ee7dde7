/* Loads, stores and the range check. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fs/base/bytes.h"
#include "fs/base/cleanup.h"

static void test_little_endian(void **state)
{
	(void)state;
	const uint8_t bytes[] = { 0xff, 1, 2, 3, 4, 5, 6, 7, 8 };
	uint8_t out[9] = { 0xff };
	assert_int_equal(load_le16(bytes + 1), 0x0201);
	assert_int_equal(load_le32(bytes + 1), 0x04030201);
	assert_true(load_le64(bytes + 1) == UINT64_C(0x0807060504030201));
	store_le64(out + 1, UINT64_C(0x0807060504030201));
	assert_memory_equal(out, bytes, sizeof(out));
	store_le32(out + 1, 0x14131211);
	store_le16(out + 5, 0x1615);
	assert_memory_equal(out + 1, "\x11\x12\x13\x14\x15\x16\x07\x08", 8);
}

static void test_range(void **state)
{
	(void)state;
	assert_true(range_within(0, 0, 0));
	assert_true(range_within(0, 10, 10));
	assert_true(range_within(10, 0, 10));
	assert_true(range_within(4, 6, 10));
	assert_false(range_within(4, 7, 10));
	assert_false(range_within(11, 0, 10));
	assert_false(range_within(UINT64_MAX, 2, 10));
	assert_false(range_within(2, UINT64_MAX, 10));
	assert_false(range_within(UINT64_MAX, UINT64_MAX, UINT64_MAX));
	assert_true(range_within(0, UINT64_MAX, UINT64_MAX));
}

static void test_take(void **state)
{
	(void)state;
	char *pointer = malloc(1), *taken = TAKE_PTR(pointer);
	int fd = 5, taken_fd = TAKE_FD(fd);
	assert_null(pointer);
	assert_non_null(taken);
	assert_int_equal(fd, -1);
	assert_int_equal(taken_fd, 5);
	free(taken);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_little_endian),
		cmocka_unit_test(test_range),
		cmocka_unit_test(test_take),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
