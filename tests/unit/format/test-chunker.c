/* The cutting rules against docs/format.md section 2, written a second time in the plainest way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "fs/base/cleanup.h"
#include "fs/format/chunker.h"
#include "fs/format/format.h"
#include "fs/format/gear-table.h"

#define DATA_SIZE (8u << 20)

static uint64_t splitmix(uint64_t *state)
{
	uint64_t z = *state += UINT64_C(0x9E3779B97F4A7C15);
	z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
	z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
	return z ^ z >> 31;
}

static uint8_t *random_data(size_t size, uint64_t seed)
{
	uint8_t *data = malloc(size);
	assert_non_null(data);
	for (size_t i = 0; i < size; i++)
		data[i] = (uint8_t)splitmix(&seed);
	return data;
}

/* The rule for large data, word by word: the hash of the last 64 bytes afresh at every byte. */
static size_t plain_cut(const uint8_t *data, size_t size)
{
	for (size_t length = 32768; length <= size && length < 262144; length++) {
		uint64_t hash = 0;
		for (size_t i = length - 64; i < length; i++)
			hash = hash * 2 + gear_table[data[i]];
		if (hash < UINT64_C(1) << (length <= 114688 ? 45 : 49))
			return length;
	}
	return size < 262144 ? size : 262144;
}

static void test_gear_table(void **state)
{
	(void)state;
	uint64_t seed = UINT64_C(0x696D676673763101);
	for (size_t i = 0; i < 256; i++)
		assert_true(gear_table[i] == splitmix(&seed));
}

static void test_cuts_follow_the_rule(void **state)
{
	(void)state;
	_cleanup_free_ uint8_t *data = random_data(DATA_SIZE, 1);
	size_t at = 0, chunks = 0, early = 0, long_ones = 0;
	while (at < DATA_SIZE) {
		size_t length = chunker_cut(data + at, DATA_SIZE - at, true);
		assert_int_equal(length, plain_cut(data + at, DATA_SIZE - at));
		early += length <= FORMAT_CHUNK_NORMAL;
		long_ones += length > FORMAT_CHUNK_NORMAL + 65536;
		at += length;
		chunks++;
	}
	assert_int_equal(at, DATA_SIZE);
	assert_in_range(chunks, 50, 80);           /* about 130 KiB on average */
	assert_in_range(early, 1, chunks / 3);     /* one in seven */
	assert_in_range(long_ones, 1, chunks / 3); /* one in nine: lengths stay close together */
}

/* Data of zeros, but for 64 bytes that end at `length` and after which the top `zeros` bits of the hash are 0, and the next is not. */
static void put_window(uint8_t *data, size_t length, unsigned int zeros)
{
	uint8_t *window = data + length - 64;
	uint64_t seed = zeros, hash;
	memset(data, 0, FORMAT_CHUNK_MAX);
	do {
		hash = 0;
		for (size_t i = 0; i < 64; i++) {
			window[i] = (uint8_t)splitmix(&seed);
			hash = hash * 2 + gear_table[window[i]];
		}
	} while (hash >> (63 - zeros) != 1);
}

static void test_rare_and_frequent(void **state)
{
	(void)state;
	static const struct {
		size_t length;
		unsigned int zeros;
		bool ends;
	} cases[] = {
		{ 32767, 19, false }, { 32768, 19, true },   { 32768, 18, false },  { 114688, 18, false },
		{ 114688, 19, true }, { 114689, 15, true },  { 114689, 14, false }, { 114688, 15, false },
		{ 262143, 15, true }, { 262143, 14, false },
	};
	_cleanup_free_ uint8_t *data = malloc(FORMAT_CHUNK_MAX);
	assert_non_null(data);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		put_window(data, cases[i].length, cases[i].zeros);
		size_t expected = cases[i].ends ? cases[i].length : FORMAT_CHUNK_MAX;
		assert_int_equal(chunker_cut(data, FORMAT_CHUNK_MAX, true), expected);
		assert_int_equal(plain_cut(data, FORMAT_CHUNK_MAX), expected);
	}
}

static void test_asks_for_more(void **state)
{
	(void)state;
	_cleanup_free_ uint8_t *data = random_data(FORMAT_CHUNK_MAX * 2, 2);
	size_t cut = chunker_cut(data, FORMAT_CHUNK_MAX, false);
	assert_in_range(cut, FORMAT_CHUNK_MIN, FORMAT_CHUNK_MAX);
	for (size_t size = 0; size < cut; size += size < 64 ? 1 : 997)
		assert_int_equal(chunker_cut(data, size, false), 0);
	assert_int_equal(chunker_cut(data, cut - 1, false), 0);
	assert_int_equal(chunker_cut(data, cut, false), cut);
	assert_int_equal(chunker_cut(data, FORMAT_CHUNK_MAX * 2, false), cut);
}

static void test_ends_of_data(void **state)
{
	(void)state;
	_cleanup_free_ uint8_t *zeros = calloc(1, FORMAT_CHUNK_MAX + 1);
	assert_non_null(zeros);
	assert_int_equal(chunker_cut(zeros, 0, true), 0);
	assert_int_equal(chunker_cut(zeros, 0, false), 0);
	assert_int_equal(chunker_cut(zeros, 1, true), 1);
	assert_int_equal(chunker_cut(zeros, FORMAT_CHUNK_MIN, true), FORMAT_CHUNK_MIN);
	/* Data of one byte has one hash, which is no cut: the maximum cuts it. */
	assert_int_equal(chunker_cut(zeros, FORMAT_CHUNK_MAX - 1, false), 0);
	assert_int_equal(chunker_cut(zeros, FORMAT_CHUNK_MAX, false), FORMAT_CHUNK_MAX);
	assert_int_equal(chunker_cut(zeros, FORMAT_CHUNK_MAX + 1, true), FORMAT_CHUNK_MAX);
}

static void test_a_change_moves_few_cuts(void **state)
{
	(void)state;
	_cleanup_free_ uint8_t *data = random_data(DATA_SIZE + 3, 3);
	bool cuts[DATA_SIZE / 4096 + 1] = { false };
	size_t same = 0, all = 0;
	for (size_t at = 3; at < DATA_SIZE + 3; at += chunker_cut(data + at, DATA_SIZE + 3 - at, true))
		cuts[at / 4096] = true;
	for (size_t at = 0; at < DATA_SIZE + 3; at += chunker_cut(data + at, DATA_SIZE + 3 - at, true)) {
		same += cuts[at / 4096];
		all++;
	}
	assert_in_range(same, all * 3 / 4, all);
}

static void test_run_lengths(void **state)
{
	(void)state;
	assert_false(chunker_run_ends(0, UINT64_MAX, "a", 1));
	assert_false(chunker_run_ends(1, FORMAT_CHUNK_MAX - 1, "a", 1));
	assert_true(chunker_run_ends(1, FORMAT_CHUNK_MAX, "a", 1));
	assert_true(chunker_run_ends(1, UINT64_MAX, "a", 1));
	assert_true(chunker_run_ends(FORMAT_CHUNK_MAX, 1, "a", 1));
	assert_true(chunker_run_ends(FORMAT_CHUNK_MAX + 1, 0, "a", 1));
}

static void test_run_names(void **state)
{
	(void)state;
	unsigned int ends = 0;
	for (unsigned int i = 0; i < 3200; i++) {
		char name[200];
		int length = snprintf(name, sizeof(name), "usr/share/doc/package-%u/copyright", i);
		uint64_t hash = 0;
		for (int at = 0; at < length; at++)
			hash = hash * 2 + gear_table[(uint8_t)name[at]];
		bool expected = hash >> 59 == 0;
		assert_int_equal(chunker_run_ends(FORMAT_CHUNK_MIN, 512, name, (size_t)length), expected);
		assert_false(chunker_run_ends(FORMAT_CHUNK_MIN - 1, 512, name, (size_t)length));
		ends += expected;
	}
	assert_in_range(ends, 60, 140); /* one in 32 */

	/* Only the last 64 bytes of a long name count. */
	char long_name[300];
	for (unsigned int i = 0; i < 320; i++) {
		memset(long_name, 'd', sizeof(long_name));
		(void)snprintf(long_name + 290, 10, "%09u", i);
		bool whole = chunker_run_ends(FORMAT_CHUNK_MIN, 512, long_name, sizeof(long_name));
		assert_int_equal(whole, chunker_run_ends(FORMAT_CHUNK_MIN, 512, long_name + 236, 64));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_gear_table),        cmocka_unit_test(test_cuts_follow_the_rule),
		cmocka_unit_test(test_rare_and_frequent), cmocka_unit_test(test_asks_for_more),
		cmocka_unit_test(test_ends_of_data),      cmocka_unit_test(test_a_change_moves_few_cuts),
		cmocka_unit_test(test_run_lengths),       cmocka_unit_test(test_run_names),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
