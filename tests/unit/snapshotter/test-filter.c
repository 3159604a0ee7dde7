/* Filters. What containerd's own parser says of thousands of them is compared in tests/cases/snapshotter-driver. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "snapshotter/filter-regex.h"
#include "snapshotter/filter.h"

/* An object with a name, an empty parent, and two labels. */
static const char *field(const void *object, char *const *path, size_t count)
{
	if (strcmp(path[0], "name") == 0)
		return object;
	if (strcmp(path[0], "parent") == 0)
		return "";
	if (strcmp(path[0], "labels") != 0 || count != 2)
		return NULL;
	if (strcmp(path[1], "containerd.io/snapshot.ref") == 0)
		return "sha256:aa";
	return strcmp(path[1], "\xc3\xa4") == 0 ? "two words" : NULL;
}

static bool matches(const char *text)
{
	FilterSet *set;
	char *filter = strdup(text);
	Error error = { 0 };
	int r = filter_parse(&filter, 1, &set, &error);
	if (r < 0)
		fail_msg("%s", error.message);
	bool result = filter_matches(set, field, "default/1/extract-1 x");
	set = filter_free(set);
	free(filter);
	return result;
}

static void test_matching(void **state _unused_)
{
	static const struct {
		const char *filter;
		bool matches;
	} samples[] = {
		{ "", true },
		{ "name", true },
		{ "other", false },
		{ "name==\"default/1/extract-1 x\"", true },
		{ "name==default/1/extract-1", false },
		{ "name != x", true },
		{ "other!=x", true },
		{ "other==\"\"", false },
		{ "parent==\"\"", true },
		{ "labels.\"containerd.io/snapshot.ref\"==sha256:aa,parent==\"\"", true },
		{ "labels.\"containerd.io/snapshot.ref\"==sha256:ab,parent==\"\"", false },
		{ "labels.\"\\u00e4\"==\"two\\x20words\"", true },
		{ "name~=^default", true },
		{ "name~=/^default\\/1/", true },
		{ "name~=\"x$\"", true },
		{ "name~=[", false },
		{ "other~=^$", true },
	};
	for (size_t i = 0; i < ELEMENTS(samples); i++) {
		if (matches(samples[i].filter) != samples[i].matches)
			fail_msg("%s", samples[i].filter);
	}
}

static void test_refused(void **state _unused_)
{
	static const char *const samples[] = {
		",",     "name==",   "name=x", "name===x",      "name==\"x",       "name==/x/",       "name==x y",
		"==x",   "name.==x", "name x", "name==\"\\q\"", "name==\"\\400\"", "name==\"\\u12\"", "name==\"a\nb\"",
		"n\xc3", "\xe4==x",  "name,",  "name==.x",      "name==x ",        "labels.\"a==x",   "name~=|\\s|",
	};
	for (size_t i = 0; i < ELEMENTS(samples); i++) {
		FilterSet *set = NULL;
		char *filter = strdup(samples[i]);
		Error error = { 0 };
		if (filter_parse(&filter, 1, &set, &error) != -EINVAL)
			fail_msg("%s", samples[i]);
		assert_non_null(strstr(error.message, "is wrong at byte"));
		free(filter);
	}
}

static void test_several(void **state _unused_)
{
	FilterSet *set;
	char *filters[] = { (char[]){ "name==y" }, (char[]){ "parent==\"\"" } };
	assert_int_equal(filter_parse(filters, 2, &set, NULL), 0);
	assert_true(filter_matches(set, field, "x"));
	assert_null(filter_required(set, "parent"));
	set = filter_free(set);
	assert_int_equal(filter_parse(filters, 1, &set, NULL), 0);
	assert_false(filter_matches(set, field, "x"));
	assert_string_equal(filter_required(set, "name"), "y");
	set = filter_free(set);
	assert_int_equal(filter_parse(NULL, 0, &set, NULL), 0);
	assert_true(filter_matches(set, field, "x"));
	assert_null(filter_required(set, "name"));
	set = filter_free(set);
}

static bool finds(const char *pattern, const char *text)
{
	FilterRegex *regex;
	if (filter_regex_new(pattern, &regex) < 0)
		fail_msg("%s", pattern);
	bool found = filter_regex_matches(regex, text);
	regex = filter_regex_free(regex);
	return found;
}

static void test_regex(void **state _unused_)
{
	assert_true(finds("b+?c", "abbc"));
	assert_true(finds("(?i)ABC", "xabc"));
	assert_true(finds("(?P<name>a|b)$", "xb"));
	assert_false(finds("a$", "a\n"));
	assert_true(finds("^\\Q(?=\\E", "(?=x"));
	assert_true(finds("[[:alpha:]](?:x|[]?+*])*", "q]"));
	assert_true(finds("\\pL\\x{e4}", "a\xc3\xa4"));
	/* Exponential for an engine that goes back and tries again. */
	assert_false(finds("(a*)*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"));
}

/* What RE2 does not have. */
static void test_foreign_regex(void **state _unused_)
{
	static const char *const samples[] = { "(a)\\1",  "(?=a)", "(?!a)", "(?<=a)b", "(?<!a)b",
					       "(?>a)",   "a++",   "a*+",   "(*FAIL)", "\\Kx",
					       "(?|a|b)", "(?R)",  "(",     "[a",      "a{2}{3}x" };
	for (size_t i = 0; i < ELEMENTS(samples); i++) {
		FilterRegex *regex = NULL;
		if (filter_regex_new(samples[i], &regex) != -EINVAL)
			fail_msg("%s", samples[i]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_matching), cmocka_unit_test(test_refused),       cmocka_unit_test(test_several),
		cmocka_unit_test(test_regex),    cmocka_unit_test(test_foreign_regex),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
