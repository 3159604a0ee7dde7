/* Image references, good and bad. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/format/reference.h"

#define HEX    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define DIGEST "sha256:" HEX

static const struct {
	const char *text;
	const char *host;
	const char *name;
	const char *tag;
	bool has_digest;
} good[] = {
	{ "build:8500/whisk/invoker:v2", "build:8500", "whisk/invoker", "v2", false },
	{ "build/a", "build", "a", "latest", false },
	{ "10.0.0.1:5000/a.b/c_d/e__f/g-h/i---j:V1.0_x-", "10.0.0.1:5000", "a.b/c_d/e__f/g-h/i---j", "V1.0_x-", false },
	{ "[::1]:8500/a:b", "[::1]:8500", "a", "b", false },
	{ "[fe80::1:2]/a", "[fe80::1:2]", "a", "latest", false },
	{ "Registry.example.com/a@" DIGEST, "Registry.example.com", "a", "", true },
	{ "h/a:t@" DIGEST, "h", "a", "t", true },
};

static void test_remote(void **state)
{
	(void)state;
	for (size_t i = 0; i < ELEMENTS(good); i++) {
		Reference reference;
		Error error = { 0 };
		if (reference_parse_remote(good[i].text, &reference, &error) < 0)
			fail_msg("%s", error.message);
		assert_string_equal(reference.host, good[i].host);
		assert_string_equal(reference.name, good[i].name);
		assert_string_equal(reference.tag, good[i].tag);
		assert_int_equal(reference.has_digest, good[i].has_digest);
		char hex[DIGEST_HEX_SIZE];
		if (good[i].has_digest)
			assert_string_equal(digest_hex(&reference.digest, hex), HEX);
		_cleanup_free_ char *text = reference_text(&reference);
		if (good[i].tag[0] && !strstr(good[i].tag, "latest"))
			assert_string_equal(text, good[i].text);
	}
}

static void test_local(void **state)
{
	(void)state;
	Reference reference;
	assert_int_equal(reference_parse_local("whisk/invoker:v2", &reference, NULL), 0);
	assert_string_equal(reference.host, "");
	assert_string_equal(reference.name, "whisk/invoker");
	assert_string_equal(reference.tag, "v2");
	_cleanup_free_ char *text = reference_text(&reference);
	assert_string_equal(text, "whisk/invoker:v2");
	assert_int_equal(reference_parse_local("a@" DIGEST, &reference, NULL), 0);
	assert_string_equal(reference.tag, "");
	assert_true(reference.has_digest);
	assert_int_equal(reference_parse_local("a", &reference, NULL), 0);
	assert_string_equal(reference.tag, "latest");
	/* What looks like a host with a port is no local name. */
	assert_int_equal(reference_parse_local("build:8500/a", &reference, NULL), -EINVAL);
}

static const struct {
	const char *text;
	const char *sentence;
} bad[] = {
	{ "", "names no host" },
	{ "a:v1", "names no host" },
	{ "/a", "is not a host" },
	{ "-h/a", "is not a host" },
	{ "h_/a", "is not a host" },
	{ "h:/a", "is not a host" },
	{ "h:0/a", "is not a host" },
	{ "h:65536/a", "is not a host" },
	{ "h:80x/a", "is not a host" },
	{ "h:000080/a", "is not a host" },
	{ "[::1/a", "is not a host" },
	{ "[::1]x/a", "is not a host" },
	{ "[::g]/a", "is not a host" },
	{ "[1:2:3:4:5:6:7:8:9:a:b:c:d:e:f:0:1:2:3:4:5:6:7:8:9]/a", "is not a host" },
	{ "h@x/a", "is not a host" },
	{ "h/", "the name" },
	{ "h/A", "the name" },
	{ "h/a/", "the name" },
	{ "h//a", "the name" },
	{ "h/a//b", "the name" },
	{ "h/..", "the name" },
	{ "h/a/../b", "the name" },
	{ "h/.a", "the name" },
	{ "h/a.", "the name" },
	{ "h/a..b", "the name" },
	{ "h/a___b", "the name" },
	{ "h/a._b", "the name" },
	{ "h/a:b/c", "the name" },
	{ "h/a:b:c", "the tag" },
	{ "h/a:", "the tag" },
	{ "h/a:.b", "the tag" },
	{ "h/a:-b", "the tag" },
	{ "h/a:b c", "the tag" },
	{ "h/a@", "what follows \"@\"" },
	{ "h/a@sha512:" HEX, "what follows \"@\"" },
	{ "h/a@sha256:0123", "what follows \"@\"" },
	{ "h/a@" DIGEST "0", "what follows \"@\"" },
	{ "h/a@" DIGEST "@" DIGEST, "what follows \"@\"" },
	{ "h/@" DIGEST, "the name" },
};

static void test_bad(void **state)
{
	(void)state;
	for (size_t i = 0; i < ELEMENTS(bad); i++) {
		Reference reference;
		Error error = { 0 };
		int r = reference_parse_remote(bad[i].text, &reference, &error);
		if (r != -EINVAL || !strstr(error.message, bad[i].sentence) || !strstr(error.message, "NAME[:TAG]"))
			fail_msg("\"%s\": wanted \"%s\", got %d \"%s\"", bad[i].text, bad[i].sentence, r,
				 error.message);
	}
}

static void test_lengths(void **state)
{
	(void)state;
	char text[600];
	Reference reference;
	memset(text, 'a', sizeof(text));
	text[REFERENCE_NAME_MAX] = '\0';
	assert_true(reference_name_valid(text));
	assert_int_equal(reference_parse_local(text, &reference, NULL), 0);
	text[REFERENCE_NAME_MAX] = 'a';
	text[REFERENCE_NAME_MAX + 1] = '\0';
	assert_false(reference_name_valid(text));
	assert_int_equal(reference_parse_local(text, &reference, NULL), -EINVAL);
	text[255] = '/';
	text[256] = 'n';
	text[257] = '\0';
	assert_int_equal(reference_parse_remote(text, &reference, NULL), 0);
	memset(text, 'a', 258);
	text[256] = '/';
	text[258] = '\0';
	assert_int_equal(reference_parse_remote(text, &reference, NULL), -EINVAL);

	memcpy(text, "n:", 2);
	memset(text + 2, 't', sizeof(text) - 2);
	text[2 + REFERENCE_TAG_MAX] = '\0';
	assert_int_equal(reference_parse_local(text, &reference, NULL), 0);
	assert_true(reference_tag_valid(text + 2));
	text[2 + REFERENCE_TAG_MAX] = 't';
	text[3 + REFERENCE_TAG_MAX] = '\0';
	assert_int_equal(reference_parse_local(text, &reference, NULL), -EINVAL);
	assert_false(reference_tag_valid(text + 2));
	assert_false(reference_tag_valid(""));
	assert_false(reference_tag_valid(".."));
	assert_false(reference_name_valid(""));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_remote),
		cmocka_unit_test(test_local),
		cmocka_unit_test(test_bad),
		cmocka_unit_test(test_lengths),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
