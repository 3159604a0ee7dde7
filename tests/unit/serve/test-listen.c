#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "fs/base/cleanup.h"
#include "tools/serve/serve-listen.h"

static void expect(const char *text, const char *canonical, bool loopback)
{
	ServeAddress address;
	Error error = { 0 };
	char actual[SERVE_ADDRESS_TEXT];
	assert_int_equal(serve_address_parse(text, &address, &error), 0);
	assert_string_equal(serve_address_text((const struct sockaddr *)&address.storage, actual), canonical);
	assert_int_equal(serve_address_is_loopback(&address), loopback);
}

static void test_addresses(void **state _unused_)
{
	expect("127.0.0.1:8500", "127.0.0.1:8500", true);
	expect("127.9.9.9:1", "127.9.9.9:1", true);
	expect("localhost:0", "127.0.0.1:0", true);
	expect("[::1]:8500", "[::1]:8500", true);
	expect("[::ffff:127.0.0.1]:80", "[::ffff:127.0.0.1]:80", true);
	expect("0.0.0.0:65535", "0.0.0.0:65535", false);
	expect("[::]:8500", "[::]:8500", false);
	expect("192.0.2.1:8500", "192.0.2.1:8500", false);
	expect("[::ffff:192.0.2.1]:80", "[::ffff:192.0.2.1]:80", false);
	expect("[2001:db8::7f00:1]:80", "[2001:db8::7f00:1]:80", false);
}

static void test_what_is_no_address(void **state _unused_)
{
	static const char *const texts[] = { "",
					     "8500",
					     ":8500",
					     "127.0.0.1",
					     "127.0.0.1:",
					     "127.0.0.1:x",
					     "127.0.0.1:-1",
					     "127.0.0.1:65536",
					     "127.0.0.1:+80",
					     "::1:8500",
					     "[::1]",
					     "[::1:8500",
					     "[]:80",
					     "build:8500",
					     "1.2.3:80",
					     "127.0.0.1:80 ",
					     "[127.0.0.1]:80",
					     "127.0.0.1:000080" };
	for (size_t i = 0; i < ELEMENTS(texts); i++) {
		ServeAddress address;
		Error error = { 0 };
		if (serve_address_parse(texts[i], &address, &error) != -EINVAL)
			fail_msg("\"%s\" was taken", texts[i]);
		assert_non_null(strstr(error.message, "ADDR:PORT"));
	}
}

static void test_long_text(void **state _unused_)
{
	char text[300];
	memset(text, '1', sizeof(text));
	memcpy(text + sizeof(text) - 4, ":80", 4);
	ServeAddress address;
	assert_int_equal(serve_address_parse(text, &address, NULL), -EINVAL);
}

static void listen_and_collide(const char *text)
{
	ServeAddress address, actual;
	_cleanup_close_ int fd = -1;
	Error error = { 0 };
	assert_int_equal(serve_address_parse(text, &address, NULL), 0);
	assert_int_equal(serve_listen(&address, &fd, &actual, &error), 0);
	char place[SERVE_ADDRESS_TEXT];
	(void)serve_address_text((const struct sockaddr *)&actual.storage, place);
	assert_string_not_equal(strrchr(place, ':'), ":0");

	int second = -1;
	assert_int_equal(serve_listen(&actual, &second, &address, &error), -EADDRINUSE);
	assert_int_equal(second, -1);
	assert_non_null(strstr(error.message, place));
	assert_non_null(strstr(error.message, "--listen"));
}

static void test_listen(void **state _unused_)
{
	listen_and_collide("127.0.0.1:0");
}

static void test_listen_six(void **state _unused_)
{
	int probe = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (probe < 0)
		skip();
	(void)close(probe);
	listen_and_collide("[::1]:0");
}

static void test_listen_elsewhere(void **state _unused_)
{
	ServeAddress address, actual;
	Error error = { 0 };
	int fd = -1;
	assert_int_equal(serve_address_parse("192.0.2.1:0", &address, NULL), 0); /* TEST-NET-1 is nobody's */
	assert_int_equal(serve_listen(&address, &fd, &actual, &error), -EADDRNOTAVAIL);
	assert_non_null(strstr(error.message, "192.0.2.1:0"));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_addresses),  cmocka_unit_test(test_what_is_no_address),
		cmocka_unit_test(test_long_text),  cmocka_unit_test(test_listen),
		cmocka_unit_test(test_listen_six), cmocka_unit_test(test_listen_elsewhere),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
