/* Frames of the control socket: cut anywhere, too long, not what they should be. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "fs/base/bytes.h"
#include "fs/control/control-frame.h"

static void test_cut_anywhere(_unused_ void **state)
{
	_cleanup_free_ uint8_t *bytes = NULL;
	size_t size;
	json_t *json = json_pack("{s:s, s:[i, i]}", "call", "ping", "numbers", 1, 2);
	assert_int_equal(control_frame_encode(json, &bytes, &size), 0);
	assert_int_equal(load_le32(bytes), size - CONTROL_HEADER_SIZE);
	for (size_t step = 1; step < size; step++) {
		_cleanup_(control_reader_done) ControlReader reader = { 0 };
		size_t at = 0;
		int r = 0;
		while (r == 0) {
			size_t wanted = control_reader_wanted(&reader), count = wanted < step ? wanted : step;
			assert_in_range(count, 1, size - at);
			r = control_reader_feed(&reader, bytes + at, count);
			at += count;
		}
		assert_int_equal(r, 1);
		assert_int_equal(at, size);
		json_t *again = NULL;
		assert_int_equal(control_reader_take(&reader, &again, NULL), 0);
		assert_true(json_equal(json, again));
		assert_int_equal(control_reader_wanted(&reader), CONTROL_HEADER_SIZE);
		json_decref(again);
	}
	json_decref(json);
}

static void test_lengths(_unused_ void **state)
{
	static const struct {
		uint32_t length;
		int result;
	} cases[] = {
		{ 0, -EMSGSIZE },          { 1, 0 }, { CONTROL_FRAME_MAX, 0 }, { CONTROL_FRAME_MAX + 1, -EMSGSIZE },
		{ UINT32_MAX, -EMSGSIZE },
	};
	for (size_t i = 0; i < ELEMENTS(cases); i++) {
		_cleanup_(control_reader_done) ControlReader reader = { 0 };
		uint8_t header[CONTROL_HEADER_SIZE];
		store_le32(header, cases[i].length);
		assert_int_equal(control_reader_feed(&reader, header, sizeof(header)), cases[i].result);
		/* A promise costs no memory. */
		assert_null(reader.body);
	}
}

static void test_too_long_to_send(_unused_ void **state)
{
	uint8_t *bytes = NULL;
	size_t size;
	_cleanup_free_ char *text = malloc(CONTROL_FRAME_MAX);
	assert_non_null(text);
	memset(text, 'x', CONTROL_FRAME_MAX);
	json_t *json = json_pack("{s:s#}", "a", text, (size_t)CONTROL_FRAME_MAX - 8);
	assert_int_equal(control_frame_encode(json, &bytes, &size), 0);
	assert_int_equal(size, CONTROL_FRAME_MAX + CONTROL_HEADER_SIZE);
	free(bytes);
	json_decref(json);
	json = json_pack("{s:s#}", "a", text, (size_t)CONTROL_FRAME_MAX - 7);
	assert_int_equal(control_frame_encode(json, &bytes, &size), -EMSGSIZE);
	json_decref(json);
}

static int take(const char *body, json_t **ret_json, Error *error)
{
	_cleanup_(control_reader_done) ControlReader reader = { 0 };
	uint8_t header[CONTROL_HEADER_SIZE];
	store_le32(header, (uint32_t)strlen(body));
	assert_int_equal(control_reader_feed(&reader, header, sizeof(header)), 0);
	assert_int_equal(control_reader_feed(&reader, body, strlen(body)), 1);
	return control_reader_take(&reader, ret_json, error);
}

static void test_what_is_no_object(_unused_ void **state)
{
	static const char *const bodies[] = {
		"[]", "1", "{", "{\"a\":1,\"a\":2}", "{} x", "{\"a\":\"\\u0000\"}", "\xff"
	};
	for (size_t i = 0; i < ELEMENTS(bodies); i++) {
		json_t *json = NULL;
		Error error = { 0 };
		assert_int_equal(take(bodies[i], &json, &error), -EBADMSG);
		assert_null(json);
		assert_memory_equal(error.message, "not ", 4);
	}
}

static void test_greetings(_unused_ void **state)
{
	Error error = { 0 };
	json_t *json = control_hello();
	assert_int_equal(control_check_hello(json, &error), 0);
	json_object_set_new(json, "imgfsd", json_integer(CONTROL_VERSION + 1));
	assert_int_equal(control_check_hello(json, &error), -EPROTONOSUPPORT);
	assert_non_null(strstr(error.message, "of one build"));
	json_object_set_new(json, "imgfsd", json_string("1"));
	assert_int_equal(control_check_hello(json, &error), -EBADMSG);
	json_decref(json);
}

static void test_codes(_unused_ void **state)
{
	assert_string_equal(control_code_name(-ENOENT), "ENOENT");
	assert_string_equal(control_code_name(EBUSY), "EBUSY");
	assert_string_equal(control_code_name(-100000), "EIO");
	for (int code = 1; code < 134; code++)
		if (strerrorname_np(code))
			assert_int_equal(control_code_of(control_code_name(code)), -code);
	assert_int_equal(control_code_of("EVERYTHING"), -EIO);
	assert_int_equal(control_code_of(NULL), -EIO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cut_anywhere),     cmocka_unit_test(test_lengths),
		cmocka_unit_test(test_too_long_to_send), cmocka_unit_test(test_what_is_no_object),
		cmocka_unit_test(test_greetings),        cmocka_unit_test(test_codes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
