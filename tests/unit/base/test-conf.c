#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "fs/base/conf.h"

static int parse(const char *text, Conf *ret_conf, Error *error)
{
	return conf_parse("imgfs.conf", text, strlen(text), ret_conf, error);
}

static void check_entry(const ConfEntry *entry, const char *section, const char *name, const char *key,
			const char *value, unsigned line)
{
	assert_string_equal(entry->section, section);
	assert_int_equal(!entry->name, !name);
	if (name)
		assert_string_equal(entry->name, name);
	assert_int_equal(!entry->key, !key);
	if (key) {
		assert_string_equal(entry->key, key);
		assert_string_equal(entry->value, value);
	}
	assert_int_equal(entry->line, line);
}

static void test_sections_and_keys(void **state _unused_)
{
	Conf conf = { 0 };
	Error error = { 0 };
	int r = parse("# a comment\n\n[mount]\n  cache = /var/cache/a b # no comment \r\nplain-http=\n; another\n"
		      "[ host\tbuild:8500 ]\nmirror = a=b",
		      &conf, &error);
	assert_int_equal(r, 0);
	assert_int_equal(conf.count, 5);
	check_entry(&conf.entries[0], "mount", NULL, NULL, NULL, 3);
	check_entry(&conf.entries[1], "mount", NULL, "cache", "/var/cache/a b # no comment", 4);
	check_entry(&conf.entries[2], "mount", NULL, "plain-http", "", 5);
	check_entry(&conf.entries[3], "host", "build:8500", NULL, NULL, 7);
	check_entry(&conf.entries[4], "host", "build:8500", "mirror", "a=b", 8);
	conf_done(&conf);
}

static void test_address_as_name(void **state _unused_)
{
	Conf conf = { 0 };
	assert_int_equal(parse("[host [::1]:8500]\n", &conf, NULL), 0);
	check_entry(&conf.entries[0], "host", "[::1]:8500", NULL, NULL, 1);
	conf_done(&conf);
}

static void test_nothing(void **state _unused_)
{
	Conf conf = { 0 };
	assert_int_equal(parse("", &conf, NULL), 0);
	assert_int_equal(conf.count, 0);
	conf_done(&conf);
	assert_int_equal(parse("\n# only this", &conf, NULL), 0);
	assert_int_equal(conf.count, 0);
	conf_done(&conf);
}

static void test_refused(void **state _unused_)
{
	static const struct {
		const char *text, *sentence;
	} samples[] = {
		{ "cache = x\n", "imgfs.conf:1: a key before the first [SECTION]" },
		{ "[mount]\n\ncache\n", "imgfs.conf:3: neither [SECTION] nor KEY = VALUE" },
		{ "[mount]\n = x\n", "imgfs.conf:2: a key is a word" },
		{ "[mount]\nca che = x\n", "imgfs.conf:2: a key is a word" },
		{ "[]\n", "imgfs.conf:1: the name of a section is a word" },
		{ "[mount\n", "imgfs.conf:1: a section is written [NAME], with nothing after it" },
		{ "[mount] # x\n", "imgfs.conf:1: a section is written [NAME], with nothing after it" },
		{ "[mount]\ncache = \x1b[1m\n", "imgfs.conf:2: a control character" },
	};
	for (size_t i = 0; i < ELEMENTS(samples); i++) {
		Conf conf = { 0 };
		Error error = { 0 };
		assert_int_equal(parse(samples[i].text, &conf, &error), -EINVAL);
		assert_string_equal(error.message, samples[i].sentence);
		assert_null(conf.entries);
	}
	Conf conf = { 0 };
	Error error = { 0 };
	assert_int_equal(conf_parse("c", "[a]\nb=\0\n", 8, &conf, &error), -EINVAL);
	assert_string_equal(error.message, "c:2: a NUL byte");
}

static void test_file(void **state _unused_)
{
	Conf conf = { 0 };
	Error error = { 0 };
	assert_int_equal(conf_read("/nonexistent/imgfs.conf", &conf, &error), -ENOENT);
	assert_non_null(strstr(error.message, "/nonexistent/imgfs.conf"));
	assert_int_equal(conf_read("/dev/null", &conf, &error), 0);
	assert_int_equal(conf.count, 0);
	conf_done(&conf);
}

static void test_sizes(void **state _unused_)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} sizes[] = {
		{ "0", 0 },
		{ "1000000", 1000000 },
		{ "20G", UINT64_C(20000000000) },
		{ "64Ki", 65536 },
		{ "64k", 64000 },
		{ "64K", 64000 },
		{ "3MiB", 3 << 20 },
		{ "5TB", UINT64_C(5000000000000) },
		{ "7B", 7 },
	};
	static const char *const wrong[] = { "", " 1", "-1", "1g", "1.5G", "1 G", "G", "1Gib", "1GG", "0x10", "1i" };
	uint64_t bytes = 1;
	for (size_t i = 0; i < ELEMENTS(sizes); i++) {
		assert_int_equal(conf_size(sizes[i].text, &bytes), 0);
		assert_int_equal(bytes, sizes[i].bytes);
	}
	for (size_t i = 0; i < ELEMENTS(wrong); i++)
		assert_int_equal(conf_size(wrong[i], &bytes), -EINVAL);
	assert_int_equal(conf_size("18446744073709551616", &bytes), -ERANGE);
	assert_int_equal(conf_size("18446744073709551615k", &bytes), -ERANGE);
	assert_int_equal(bytes, 7);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes),           cmocka_unit_test(test_sections_and_keys),
		cmocka_unit_test(test_address_as_name), cmocka_unit_test(test_nothing),
		cmocka_unit_test(test_refused),         cmocka_unit_test(test_file),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
