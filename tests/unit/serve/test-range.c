#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "fs/base/cleanup.h"
#include "tools/serve/serve-range.h"

#define ETAG "\"sha256:ab\""

static void expect(const char *header, uint64_t size, ServeRangeKind kind, uint64_t offset, uint64_t length)
{
	ServeRanges ranges;
	serve_range_parse(header, size, &ranges);
	ServeRange range = ranges.count > 0 ? ranges.ranges[0] : (ServeRange){ 0 };
	if (ranges.kind != kind || range.offset != offset || range.length != length ||
	    ranges.count != (kind == SERVE_RANGE_UNSATISFIABLE ? 0 : 1))
		fail_msg("%s of %ju: kind %d, %ju+%ju", header ?: "(none)", (uintmax_t)size, ranges.kind,
			 (uintmax_t)range.offset, (uintmax_t)range.length);
}

static void expect_parts(const char *header, uint64_t size, const ServeRange *wanted, size_t count)
{
	ServeRanges ranges;
	serve_range_parse(header, size, &ranges);
	if (ranges.kind != SERVE_RANGE_PARTS || ranges.count != count)
		fail_msg("%s of %ju: kind %d, %zu ranges", header, (uintmax_t)size, ranges.kind, ranges.count);
	for (size_t i = 0; i < count; i++) {
		assert_int_equal(ranges.ranges[i].offset, wanted[i].offset);
		assert_int_equal(ranges.ranges[i].length, wanted[i].length);
	}
}

static void test_several(void **state _unused_)
{
	static const ServeRange two[] = { { 1, 2 }, { 4, 2 } }, turned[] = { { 90, 10 }, { 0, 1 } };
	static const ServeRange suffix[] = { { 0, 10 }, { 95, 5 } };
	expect_parts("bytes=1-2,4-5", 100, two, 2);
	expect_parts("bytes= 1-2 ,, \t4-5 , ", 100, two, 2);
	expect_parts("bytes=90-,0-0", 100, turned, 2);
	expect_parts("bytes=0-9,-5", 100, suffix, 2);
	expect_parts("bytes=1-2,100-,4-5,-0", 100, two, 2); /* what lies beyond the end is left out */
	expect("bytes=1-2,100-", 100, SERVE_RANGE_PART, 1, 2);
	expect("bytes=1-2,", 100, SERVE_RANGE_PART, 1, 2);
	expect("bytes=100-,-0,200-300", 100, SERVE_RANGE_UNSATISFIABLE, 0, 0);
}

static void test_sets_that_are_abusive(void **state _unused_)
{
	char header[2048] = "bytes=";
	ServeRanges ranges;
	expect("bytes=0-5,5-6", 100, SERVE_RANGE_WHOLE, 0, 100);
	expect("bytes=5-6,0-5", 100, SERVE_RANGE_WHOLE, 0, 100);
	expect("bytes=0-,-1", 100, SERVE_RANGE_WHOLE, 0, 100);
	expect("bytes=0-0,0-0", 100, SERVE_RANGE_WHOLE, 0, 100);
	for (unsigned i = 0; i < SERVE_RANGES_MAX; i++)
		(void)snprintf(header + strlen(header), sizeof(header) - strlen(header), "%u-%u,", 2 * i, 2 * i);
	serve_range_parse(header, 1000, &ranges);
	assert_int_equal(ranges.kind, SERVE_RANGE_PARTS);
	assert_int_equal(ranges.count, SERVE_RANGES_MAX);
	(void)strcat(header, "500-500");
	expect(header, 1000, SERVE_RANGE_WHOLE, 0, 1000);
}

static void test_parts(void **state _unused_)
{
	expect("bytes=0-0", 100, SERVE_RANGE_PART, 0, 1);
	expect("bytes=10-19", 100, SERVE_RANGE_PART, 10, 10);
	expect("bytes=10-", 100, SERVE_RANGE_PART, 10, 90);
	expect("bytes=99-", 100, SERVE_RANGE_PART, 99, 1);
	expect("bytes=-1", 100, SERVE_RANGE_PART, 99, 1);
	expect("bytes=-100", 100, SERVE_RANGE_PART, 0, 100);
	expect("BYTES= 5-6 ", 100, SERVE_RANGE_PART, 5, 2);
}

static void test_ends_beyond_the_end_are_cut(void **state _unused_)
{
	expect("bytes=10-100", 100, SERVE_RANGE_PART, 10, 90);
	expect("bytes=0-18446744073709551615", 100, SERVE_RANGE_PART, 0, 100);
	expect("bytes=0-99999999999999999999999", 100, SERVE_RANGE_PART, 0, 100);
	expect("bytes=-101", 100, SERVE_RANGE_PART, 0, 100);
	expect("bytes=-99999999999999999999999", 100, SERVE_RANGE_PART, 0, 100);
}

static void test_unsatisfiable(void **state _unused_)
{
	expect("bytes=100-", 100, SERVE_RANGE_UNSATISFIABLE, 0, 0);
	expect("bytes=100-200", 100, SERVE_RANGE_UNSATISFIABLE, 0, 0);
	expect("bytes=99999999999999999999999-", 100, SERVE_RANGE_UNSATISFIABLE, 0, 0);
	expect("bytes=-0", 100, SERVE_RANGE_UNSATISFIABLE, 0, 0);
	expect("bytes=0-", 0, SERVE_RANGE_UNSATISFIABLE, 0, 0);
	expect("bytes=-5", 0, SERVE_RANGE_UNSATISFIABLE, 0, 0);
}

static void test_what_is_ignored(void **state _unused_)
{
	static const char *const headers[] = {
		NULL,         "",           "bytes",      "bytes=",      "bytes=-",
		"bytes=a-b",  "bytes=1",    "bytes=2-1",  "bytes=1-2,x", "bytes=,",
		"bytes=1-2x", "bytes=0x1-", "bytes=--5",  "bytes=1--5",  "bytes= - ",
		"items=1-2",  "bytes 1-2",  "bytes=+1-2", "bytes=1 -2",
	};
	for (size_t i = 0; i < ELEMENTS(headers); i++)
		expect(headers[i], 100, SERVE_RANGE_WHOLE, 0, 100);
}

static void test_if_range(void **state _unused_)
{
	assert_true(serve_range_if_range(NULL, ETAG));
	assert_true(serve_range_if_range(ETAG, ETAG));
	assert_true(serve_range_if_range(" " ETAG " ", ETAG));
	assert_false(serve_range_if_range("\"sha256:cd\"", ETAG));
	assert_false(serve_range_if_range("W/" ETAG, ETAG));
	assert_false(serve_range_if_range(ETAG "x", ETAG));
	assert_false(serve_range_if_range("\"sha256:a", ETAG));
	assert_false(serve_range_if_range("Sat, 29 Oct 1994 19:43:31 GMT", ETAG));
	assert_false(serve_range_if_range("", ETAG));
}

static void test_none_match(void **state _unused_)
{
	assert_false(serve_range_none_match(NULL, ETAG));
	assert_false(serve_range_none_match("", ETAG));
	assert_true(serve_range_none_match("*", ETAG));
	assert_true(serve_range_none_match(ETAG, ETAG));
	assert_true(serve_range_none_match("W/" ETAG, ETAG));
	assert_true(serve_range_none_match("\"other\", W/\"x,y\", " ETAG, ETAG));
	assert_false(serve_range_none_match("\"other\"", ETAG));
	assert_false(serve_range_none_match("\"other", ETAG));
	assert_false(serve_range_none_match("\"", ETAG));
	assert_false(serve_range_none_match("W/", ETAG));
	assert_false(serve_range_none_match("sha256:ab", ETAG));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_several),       cmocka_unit_test(test_sets_that_are_abusive),
		cmocka_unit_test(test_parts),         cmocka_unit_test(test_ends_beyond_the_end_are_cut),
		cmocka_unit_test(test_unsatisfiable), cmocka_unit_test(test_what_is_ignored),
		cmocka_unit_test(test_if_range),      cmocka_unit_test(test_none_match),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
