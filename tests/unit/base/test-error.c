/* Sentences: set, prefixed, too long. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "fs/base/error.h"

static void test_set(void **state)
{
	(void)state;
	Error error = { 0 };
	assert_int_equal(error_set(&error, -EIO, "layer %d is gone", 7), -EIO);
	assert_int_equal(error.code, -EIO);
	assert_string_equal(error.message, "layer 7 is gone");
	assert_string_equal(error_text(&error, -EIO), "layer 7 is gone");
	assert_int_equal(error_set(NULL, -ENOENT, "x"), -ENOENT);
}

static void test_text_of_code(void **state)
{
	(void)state;
	Error error = { 0 };
	assert_string_equal(error_text(&error, -ENOENT), "No such file or directory");
	assert_string_equal(error_text(NULL, -ENOENT), "No such file or directory");
	assert_string_equal(error_text(NULL, ENOENT), "No such file or directory");
	assert_string_equal(error_text(NULL, -99999), "unknown error");
}

static void test_prefix(void **state)
{
	(void)state;
	Error error = { 0 };
	assert_int_equal(error_prefix(&error, -ENOENT, "opening %s", "a"), -ENOENT);
	assert_string_equal(error.message, "opening a: No such file or directory");
	assert_int_equal(error_prefix(&error, -EIO, "exporting"), -EIO);
	assert_string_equal(error.message, "exporting: opening a: No such file or directory");
	assert_int_equal(error.code, -EIO);
	assert_int_equal(error_prefix(NULL, -EIO, "x"), -EIO);
}

static void test_too_long(void **state)
{
	(void)state;
	Error error = { 0 };
	char text[5000];
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	assert_int_equal(error_set(&error, -EIO, "%s", text), -EIO);
	assert_int_equal(strlen(error.message), sizeof(error.message) - 1);
	assert_int_equal(error_prefix(&error, -EIO, "before"), -EIO);
	assert_int_equal(strncmp(error.message, "before: xxx", 11), 0);
	assert_int_equal(error_prefix(&error, -EIO, "%s", text), -EIO);
	assert_int_equal(strlen(error.message), sizeof(error.message) - 1);
}

static void test_shortage(void **state)
{
	(void)state;
	static const int shortages[] = { EMFILE, ENFILE, ENOMEM, ENOBUFS }, others[] = { 0, EIO, EAGAIN, ENODEV };
	for (size_t i = 0; i < ELEMENTS(shortages); i++) {
		assert_true(error_is_shortage(-shortages[i]));
		assert_false(error_is_shortage(-others[i]));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_set),      cmocka_unit_test(test_text_of_code), cmocka_unit_test(test_prefix),
		cmocka_unit_test(test_too_long), cmocka_unit_test(test_shortage),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
