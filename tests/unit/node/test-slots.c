/* Numbers of slots: durable, never given out twice, whatever a crash left. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "fs/base/fd.h"
#include "fs/node/node-slots.h"

#define HEX "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static char directory[] = "/tmp/imgfs-slots-XXXXXX";
static int dirfd_of = -1;

static int set_up(_unused_ void **state)
{
	(void)strcpy(directory + strlen(directory) - 6, "XXXXXX");
	assert_non_null(mkdtemp(directory));
	dirfd_of = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return dirfd_of < 0;
}

static int tear_down(_unused_ void **state)
{
	(void)unlinkat(dirfd_of, "slots", 0);
	(void)close(dirfd_of);
	return rmdir(directory);
}

static void put(const char *text)
{
	assert_int_equal(fd_replace_file(dirfd_of, "slots", text, strlen(text), 0600), 0);
}

static char *get(void)
{
	char *text;
	size_t size;
	assert_int_equal(fd_read_file(dirfd_of, "slots", 1 << 24, &text, &size), 0);
	return text;
}

static void test_ascending(_unused_ void **state)
{
	Digest chain_id;
	assert_int_equal(digest_from_hex(HEX, &chain_id), 0);
	for (uint32_t turn = 0; turn < 3; turn++) {
		NodeSlots slots;
		assert_int_equal(node_slots_open(dirfd_of, &slots, NULL), 0);
		for (uint32_t i = 1; i <= 2; i++) {
			uint32_t slot;
			assert_int_equal(node_slots_take(&slots, &chain_id, &slot), 0);
			assert_int_equal(slot, 2 * turn + i);
		}
		node_slots_close(&slots);
	}
	_cleanup_free_ char *text = get();
	assert_memory_equal(text, "1 " HEX "\n2 " HEX "\n3 ", 136);
}

static void test_torn(_unused_ void **state)
{
	static const char *const rests[] = { "3", "3 ", "3 0123", ("3 " HEX), "\xff\xfe" };
	for (size_t i = 0; i < ELEMENTS(rests); i++) {
		char text[256];
		(void)snprintf(text, sizeof(text), "1 " HEX "\n2 " HEX "\n%s", rests[i]);
		put(text);
		NodeSlots slots;
		assert_int_equal(node_slots_open(dirfd_of, &slots, NULL), 0);
		assert_int_equal(slots.last, 2);
		node_slots_close(&slots);
		_cleanup_free_ char *left = get();
		assert_string_equal(left, "1 " HEX "\n2 " HEX "\n");
	}
}

/* Lines that are none, or stand where they cannot, cost themselves. */
static void test_damaged(_unused_ void **state)
{
	static const struct {
		const char *text;
		uint32_t last;
	} cases[] = {
		{ "hello\n", 0 },
		{ "1\n", 0 },
		{ "0 " HEX "\n", 0 },
		{ "-1 " HEX "\n", 0 },
		{ "1 " HEX "x\n", 0 },
		{ "2147483648 " HEX "\n", 0 },
		{ "\n", 0 },
		{ "7 " HEX "\n\1 " HEX "\n9 " HEX "\n", 9 },
		{ "11 " HEX "\n2 " HEX "\n", 11 },
		{ "11 " HEX "\n12 " HEX "\r13 " HEX "\n", 11 },
		{ "5 " HEX "\nx\n6 01", 5 },
	};
	for (size_t i = 0; i < ELEMENTS(cases); i++) {
		NodeSlots slots;
		Digest chain_id;
		uint32_t slot;
		assert_int_equal(digest_from_hex(HEX, &chain_id), 0);
		put(cases[i].text);
		assert_int_equal(node_slots_open(dirfd_of, &slots, NULL), 0);
		assert_true(slots.damaged);
		assert_int_equal(node_slots_take(&slots, &chain_id, &slot), 0);
		assert_int_equal(slot, cases[i].last + 1);
		node_slots_close(&slots);
		/* It is mended. */
		assert_int_equal(node_slots_open(dirfd_of, &slots, NULL), 0);
		assert_false(slots.damaged);
		assert_int_equal(slots.last, slot);
		node_slots_close(&slots);
	}
}

static void test_the_last(_unused_ void **state)
{
	Digest chain_id;
	uint32_t slot;
	NodeSlots slots;
	assert_int_equal(digest_from_hex(HEX, &chain_id), 0);
	put("2147483646 " HEX "\n");
	assert_int_equal(node_slots_open(dirfd_of, &slots, NULL), 0);
	assert_int_equal(node_slots_take(&slots, &chain_id, &slot), 0);
	assert_int_equal(slot, NODE_SLOT_MAX);
	assert_int_equal(node_slots_take(&slots, &chain_id, &slot), -ENOSPC);
	node_slots_close(&slots);
}

static void test_long_files_are_cut_down(_unused_ void **state)
{
	char *text = NULL;
	size_t size = 0;
	FILE *file = open_memstream(&text, &size);
	assert_non_null(file);
	for (unsigned i = 1; i <= 5000; i++)
		(void)fprintf(file, "%u " HEX "\n", i);
	(void)fclose(file);
	put(text);
	free(text);
	NodeSlots slots;
	assert_int_equal(node_slots_open(dirfd_of, &slots, NULL), 0);
	assert_int_equal(slots.last, 5000);
	node_slots_close(&slots);
	_cleanup_free_ char *left = get();
	assert_string_equal(left, "5000 " HEX "\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_ascending, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_torn, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_damaged, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_the_last, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_long_files_are_cut_down, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
