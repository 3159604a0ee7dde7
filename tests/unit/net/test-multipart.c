#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "fs/net/net-multipart.h"

static const NetSpan spans[] = { { .offset = 3, .size = 4 }, { .offset = 100, .size = 2 } };

/* Feeds `body` in pieces of `step` bytes; what it gives is appended to `got`, which has room. */
static int feed(const char *body, size_t step, char *got, NetPartState *ret_state)
{
	NetMultipart parts;
	Error error = { 0 };
	size_t left = strlen(body);
	net_multipart_init(&parts, spans, ELEMENTS(spans), "b-b");
	*got = '\0';
	while (left > 0) {
		size_t size = step < left ? step : left;
		const uint8_t *data = (const uint8_t *)body, *part;
		size_t part_size;
		body += size;
		left -= size;
		while (size > 0) {
			int r = net_multipart_next(&parts, &data, &size, &part, &part_size, &error);
			assert_int_equal(r < 0, error.message[0] != '\0');
			if (r < 0)
				return r;
			if (part_size > 0)
				(void)strncat(got, (const char *)part, part_size);
		}
	}
	*ret_state = parts.state;
	return 0;
}

/* However it is cut into pieces. */
static void expect(const char *body, int code, const char *bytes, bool whole)
{
	for (size_t step = 1; step < 200; step++) {
		char got[64];
		NetPartState state = NET_PART_BOUNDARY;
		int r = feed(body, step, got, &state);
		if (r != code)
			print_error("%zu bytes at a time of \"%s\"\n", step, body);
		assert_int_equal(r, code);
		assert_string_equal(got, bytes);
		if (r == 0)
			assert_int_equal(state == NET_PART_END, whole);
	}
}

#define FIRST  "--b-b\r\nContent-Type: a/b\r\nContent-Range: bytes 3-6/200\r\n\r\nABCD\r\n"
#define SECOND "--b-b\r\nContent-Range: bytes 100-101/200\r\n\r\nEF"

static void test_good_bodies(void **state _unused_)
{
	expect(FIRST SECOND "\r\n--b-b--\r\n", 0, "ABCDEF", true);
	/* Some begin with a line end; a part may hold the boundary; what comes behind the last one does not matter. */
	expect("\r\n" FIRST SECOND "EFGH", 0, "ABCDEF", true);
	expect("--b-b\r\ncontent-range: bytes 3-6/*\r\n\r\n--b-\r\n" SECOND, 0, "--b-EF", true);
	expect("--b-b \t\r\nContent-Range: bytes 3-6/200\r\nX: y\r\n\r\nABCD\n" SECOND, 0, "ABCDEF", true);
	expect(FIRST "--b-b\r\nContent-Range: bytes 100-101/200\r\n\r\nE", 0, "ABCDE", false);
	expect(FIRST, 0, "ABCD", false);
}

static void test_bad_bodies(void **state _unused_)
{
	expect(SECOND, -EOPNOTSUPP, "", false);
	expect(FIRST FIRST, -EOPNOTSUPP, "ABCD", false);
	expect(FIRST "--b-b--\r\n", -EOPNOTSUPP, "ABCD", false);
	expect(FIRST "--b-bx\r\n", -EOPNOTSUPP, "ABCD", false);
	expect("preamble\r\n" FIRST SECOND, -EOPNOTSUPP, "", false);
	expect("--b-b\r\n\r\nABCD\r\n", -EOPNOTSUPP, "", false);
	expect("--b-b\r\nContent-Range: bytes 3-7/200\r\n\r\nABCDE\r\n", -EOPNOTSUPP, "", false);
	expect("--b-b\r\nContent-Range: bytes 3-6/200\r\nContent-Range: bytes 3-6/200\r\n\r\nABCD\r\n", -EOPNOTSUPP, "",
	       false);
	expect("--b-b\r\nContent-Range: bytes 6-3/200\r\n\r\nABCD\r\n", -EOPNOTSUPP, "", false);
	expect("--b-b\r\nContent-Range: bytes 3-6/200\r\n\r\nABCDX\r\n" SECOND, -EOPNOTSUPP, "ABCD", false);
}

static void test_too_much_text(void **state _unused_)
{
	static char body[8192];
	for (size_t i = 0; i + 3 < sizeof(body); i += 2)
		memcpy(body + i, "\r\n", 3);
	expect(body, -EOPNOTSUPP, "", false);
	memset(body, 'x', sizeof(body) - 1);
	memcpy(body, "--b-b\r\n", 7);
	expect(body, -EOPNOTSUPP, "", false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good_bodies),
		cmocka_unit_test(test_bad_bodies),
		cmocka_unit_test(test_too_much_text),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
