/* Records as they arrive on standard error. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <regex.h>
#include <string.h>
#include <unistd.h>

#include "fs/base/log.h"

static char captured[8192];
static int saved_stderr, ends[2];

static void capture_begin(void)
{
	assert_int_equal(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
	saved_stderr = dup(STDERR_FILENO);
	assert_int_equal(dup2(ends[1], STDERR_FILENO), STDERR_FILENO);
}

static void capture_end(void)
{
	assert_int_equal(dup2(saved_stderr, STDERR_FILENO), STDERR_FILENO);
	ssize_t size = read(ends[0], captured, sizeof(captured) - 1);
	captured[size > 0 ? size : 0] = '\0';
	(void)close(saved_stderr);
	(void)close(ends[0]);
	(void)close(ends[1]);
}

static void assert_matches(const char *pattern)
{
	regex_t compiled;
	assert_int_equal(regcomp(&compiled, pattern, REG_EXTENDED | REG_NOSUB), 0);
	int r = regexec(&compiled, captured, 0, NULL, 0);
	regfree(&compiled);
	if (r != 0)
		fail_msg("\"%s\" does not match %s", captured, pattern);
}

#define TIME "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3}Z "

static void test_record(void **state)
{
	(void)state;
	log_open("imgfs-test", LOG_LEVEL_INFO);
	capture_begin();
	log_warning("fetch failed digest=%s off=%d", "abc", 7);
	capture_end();
	assert_matches(TIME "imgfs-test warning fetch failed digest=abc off=7\n$");
}

/* A reader that reads nothing holds nobody up; when it reads again it learns what it has missed. */
static void test_nobody_reads(void **state)
{
	(void)state;
	char drained[4096];
	log_open("imgfs-test", LOG_LEVEL_INFO);
	capture_begin();
	assert_int_equal(fcntl(ends[1], F_SETFL, 0), 0); /* it would wait */
	(void)alarm(20);
	for (unsigned i = 0; i < 2000; i++)
		log_info("a line of some length that nobody wants to read, number %u", i);
	(void)alarm(0);
	while (read(ends[0], drained, sizeof(drained)) > 0)
		;
	log_info("here");
	log_info("there");
	capture_end();
	assert_matches(TIME "imgfs-test info here lost=[1-9][0-9]+\n"
			    "[^\n]* there\n$");
}

static void test_levels(void **state)
{
	(void)state;
	log_open("imgfs-test", LOG_LEVEL_WARNING);
	capture_begin();
	log_info("dropped");
	log_debug("dropped");
	capture_end();
	assert_string_equal(captured, "");
	capture_begin();
	log_error("kept");
	capture_end();
	assert_matches(TIME "imgfs-test error kept\n$");
}

static void test_too_long(void **state)
{
	(void)state;
	char text[5000];
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	log_open("imgfs-test", LOG_LEVEL_INFO);
	capture_begin();
	log_info("%s", text);
	capture_end();
	size_t length = strlen(captured);
	assert_in_range(length, 2000, 2048);
	assert_int_equal(captured[length - 1], '\n');
	assert_ptr_equal(strchr(captured, '\n'), captured + length - 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_record),
		cmocka_unit_test(test_nobody_reads),
		cmocka_unit_test(test_levels),
		cmocka_unit_test(test_too_long),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
