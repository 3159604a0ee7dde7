#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "fs/net/net-headers.h"

static int parse(const char *text, NetContentRange *range)
{
	return net_content_range_parse(text, strlen(text), range);
}

static void test_good_ranges(void **state _unused_)
{
	NetContentRange range;
	assert_int_equal(parse("bytes 0-0/1", &range), 0);
	assert_true(range.first == 0 && range.last == 0 && range.total == 1 && range.total_known);
	assert_int_equal(parse("Bytes 100-18446744073709551615/*", &range), 0);
	assert_true(range.first == 100 && range.last == UINT64_MAX && !range.total_known);
	assert_int_equal(parse("bytes 007-8/9", &range), 0);
	assert_true(range.first == 7 && range.last == 8 && range.total == 9);
}

static void test_bad_ranges(void **state _unused_)
{
	static const char *const bad[] = {
		"",
		"bytes",
		"bytes ",
		"bytes */10",
		"bytes 1-2",
		"bytes 1-2/",
		"bytes 2-1/10",
		"bytes 1-2/2",
		"bytes 1-2/3 ",
		"bytes 1-2/3,4-5/6",
		"bytes -1-2/3",
		"bytes 1--2/3",
		"bytes +1-2/3",
		"bytes  1-2/3",
		"bytes 0x1-2/3",
		"bytes 1-18446744073709551616/*",
		"bytes 1-2/99999999999999999999",
		"items 1-2/3",
		"bytes 1-2/**",
	};
	for (size_t i = 0; i < ELEMENTS(bad); i++) {
		NetContentRange range = { .first = 77 };
		assert_int_equal(parse(bad[i], &range), -EBADMSG);
		assert_int_equal(range.first, 77);
	}
}

static void add(NetHeaders *headers, const char *line)
{
	net_headers_add(headers, line, strlen(line));
}

static int check(const char *const *lines, uint64_t offset, uint64_t size)
{
	NetHeaders headers = { 0 };
	Error error = { 0 };
	for (; *lines; lines++)
		add(&headers, *lines);
	int r = net_headers_check_range(&headers, offset, size, &error);
	assert_int_equal(r < 0, error.message[0] != '\0');
	return r;
}

#define LINES(...) ((const char *const[]){ __VA_ARGS__, NULL })

static void test_range_answers(void **state _unused_)
{
	assert_int_equal(check(LINES("HTTP/1.1 206 Partial\r\n", "Content-Range: bytes 5-9/100\r\n", "\r\n"), 5, 5), 0);
	assert_int_equal(check(LINES("HTTP/2 206\r\n", "content-range:\tbytes 5-9/*  \r\n", "\r\n"), 5, 5), 0);
	assert_int_equal(check(LINES("HTTP/1.1 206 P", "Content-Range: bytes 6-9/100", ""), 5, 5), -EPROTO);
	assert_int_equal(check(LINES("HTTP/1.1 206 P", "Content-Range: bytes 5-8/100", ""), 5, 5), -EPROTO);
	assert_int_equal(check(LINES("HTTP/1.1 206 P", "Content-Range: bytes 5-10/100", ""), 5, 5), -EPROTO);
	assert_int_equal(check(LINES("HTTP/1.1 206 P", "Content-Range: rubbish", ""), 5, 5), -EPROTO);
	assert_int_equal(check(LINES("HTTP/1.1 206 P", "X-Content-Range: bytes 5-9/100", ""), 5, 5), -EPROTO);
	assert_int_equal(
		check(LINES("HTTP/1.1 206 P", "Content-Range: bytes 5-9/100", "Content-Range: bytes 5-9/100", ""), 5,
		      5),
		-EPROTO);
	assert_int_equal(check(LINES("HTTP/1.1 200 OK", "Content-Range: bytes 5-9/100", ""), 5, 5), -EPROTO);
	assert_int_equal(check(LINES("HTTP/1.1 404 No", ""), 5, 5), -ENOENT);
	assert_int_equal(check(LINES("HTTP/1.1 401 No", ""), 5, 5), -EACCES);
	assert_int_equal(check(LINES("HTTP/1.1 503 No", ""), 5, 5), -EREMOTEIO);
	assert_int_equal(check(LINES("HTTP/1.1 429 No", ""), 5, 5), -EREMOTEIO);
	assert_int_equal(check(LINES("HTTP/1.1 416 No", ""), 5, 5), -ERANGE);
	assert_int_equal(check(LINES("HTTP/1.1", ""), 5, 5), -EPROTO);
	assert_int_equal(check(LINES(""), 5, 5), -EPROTO);
}

/* What a redirect or an interim answer said does not count for the answer that follows. */
static void test_last_answer_counts(void **state _unused_)
{
	NetHeaders headers = { 0 };
	add(&headers, "HTTP/1.1 307 Temporary\r\n");
	add(&headers, "Content-Range: bytes 5-9/100\r\n");
	add(&headers, "\r\n");
	assert_true(headers.complete);
	add(&headers, "HTTP/1.1 206 Partial\r\n");
	assert_false(headers.complete);
	assert_false(headers.has_range);
	assert_int_equal(headers.status, 206);
}

static void test_digest_header(void **state _unused_)
{
	char line[128] = "Docker-Content-Digest: sha256:";
	NetHeaders headers = { 0 };
	add(&headers, line);
	assert_false(headers.has_digest);
	memset(line + strlen(line), 'a', 64);
	add(&headers, line);
	assert_true(headers.has_digest);
	assert_int_equal(headers.digest.bytes[31], 0xaa);
	memcpy(line, "docker-content-digest", 21);
	line[strlen(line) - 1] = 'g';
	add(&headers, line);
	assert_false(headers.has_digest);
}

static const char *boundary_of(NetHeaders *headers, const char *type)
{
	char line[256];
	*headers = (NetHeaders){ 0 };
	add(headers, "HTTP/1.1 206 Partial Content");
	(void)snprintf(line, sizeof(line), "content-type: %s\r\n", type);
	add(headers, line);
	add(headers, "\r\n");
	return headers->boundary;
}

static void test_boundaries(void **state _unused_)
{
	static const char *const bad[] = {
		"multipart/byteranges",
		"multipart/byteranges; boundary=",
		"multipart/byteranges; boundary=\"\"",
		"multipart/byteranges; boundary=\"ab",
		"multipart/byteranges; boundary=\"ab \"",
		"multipart/byteranges; boundary=a<b",
		"multipart/form-data; boundary=ab",
		"application/octet-stream",
	};
	NetHeaders headers;
	Error error = { 0 };
	assert_string_equal(boundary_of(&headers, "multipart/byteranges; boundary=00000000000000000001"),
			    "00000000000000000001");
	assert_int_equal(net_headers_check_parts(&headers, &error), 0);
	assert_string_equal(boundary_of(&headers, "Multipart/ByteRanges;BOUNDARY=\"a b'()+_,-./:=?\"; x=y"),
			    "a b'()+_,-./:=?");
	assert_string_equal(boundary_of(&headers,
					"multipart/byteranges; boundary="
					"0123456789012345678901234567890123456789012345678901234567890123456789"),
			    "0123456789012345678901234567890123456789012345678901234567890123456789");
	for (size_t i = 0; i < ELEMENTS(bad); i++) {
		assert_string_equal(boundary_of(&headers, bad[i]), "");
		assert_int_equal(net_headers_check_parts(&headers, &error), -EOPNOTSUPP);
	}
	/* A byte longer than RFC 2046 allows. */
	assert_string_equal(boundary_of(&headers,
					"multipart/byteranges; boundary="
					"01234567890123456789012345678901234567890123456789012345678901234567890"),
			    "");
	(void)boundary_of(&headers, "multipart/byteranges; boundary=ab");
	headers.has_range = true;
	assert_int_equal(net_headers_check_parts(&headers, &error), -EOPNOTSUPP);
	headers = (NetHeaders){ .status = 416 };
	assert_int_equal(net_headers_check_parts(&headers, &error), -EOPNOTSUPP);
	headers.status = 401;
	assert_int_equal(net_headers_check_parts(&headers, &error), -EACCES);
	headers.status = 429;
	assert_int_equal(net_headers_check_parts(&headers, &error), -EREMOTEIO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good_ranges),        cmocka_unit_test(test_bad_ranges),
		cmocka_unit_test(test_range_answers),      cmocka_unit_test(test_boundaries),
		cmocka_unit_test(test_last_answer_counts), cmocka_unit_test(test_digest_header),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
