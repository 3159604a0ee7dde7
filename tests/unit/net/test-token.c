/* What registries and credential helpers say about tokens and logins. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/net/net-challenge.h"
#include "fs/net/net-helper.h"
#include "fs/net/net-token.h"

static int parse(const char *value, NetChallenge *challenge)
{
	return net_challenge_parse(value, strlen(value), challenge);
}

static void expect(const char *value, const char *realm, const char *service, const char *scope)
{
	NetChallenge challenge;
	assert_int_equal(parse(value, &challenge), 0);
	assert_string_equal(challenge.realm, realm);
	assert_string_equal(challenge.service, service);
	assert_string_equal(challenge.scope, scope);
}

static void test_challenges(void **state _unused_)
{
	expect("Bearer realm=\"https://a/t\",service=\"s\",scope=\"repository:x:pull\"", "https://a/t", "s",
	       "repository:x:pull");
	expect("bearer  REALM = https , scope=\"a b\"", "https", "", "a b");
	expect("Basic realm=\"no\", Bearer realm=\"yes\", Basic realm=\"no\"", "yes", "", "");
	expect("Negotiate YWJj==, Bearer realm=\"yes\"", "yes", "", "");
	expect("Negotiate, Bearer realm=\"yes\"", "yes", "", "");
	expect("Negotiate YWJj, Bearer realm=\"yes\"", "yes", "", "");
	expect(", ,Bearer error=\"x, Bearer realm=\\\"z\\\"\",realm=\"a\\\"b\"", "a\"b", "", "");
}

static void test_bad_challenges(void **state _unused_)
{
	static const char *const none[] = { "", "Basic realm=\"x\"", "Bearer", "Bearer service=\"x\"",
					    "Bearer realm=\"\"" };
	static const char *const bad[] = { "Bearer realm=\"x", "\"", "Bearer realm=\"a\rb\"", "Bearer realm=\"a\\",
					   "Bearer realm=\"x\";" };
	NetChallenge challenge;
	for (size_t i = 0; i < ELEMENTS(none); i++)
		assert_int_equal(parse(none[i], &challenge), -ENOENT);
	for (size_t i = 0; i < ELEMENTS(bad); i++)
		assert_int_equal(parse(bad[i], &challenge), -EBADMSG);
	char longest[1100];
	memset(longest, 'a', sizeof(longest));
	memcpy(longest, "Bearer realm=", 13);
	assert_int_equal(net_challenge_parse(longest, 13 + 1023, &challenge), 0);
	assert_int_equal(strlen(challenge.realm), 1023);
	assert_int_equal(net_challenge_parse(longest, 13 + 1024, &challenge), -EBADMSG);
}

static void expect_token(const char *json, const char *text, const char *refresh, int64_t seconds)
{
	NetToken token;
	assert_int_equal(net_token_parse(json, strlen(json), &token), 0);
	assert_string_equal(token.text, text);
	assert_string_equal(token.refresh ?: "", refresh);
	assert_int_equal(token.seconds, seconds);
	net_token_done(&token);
	assert_null(token.text);
}

static void test_tokens(void **state _unused_)
{
	expect_token("{\"token\":\"abc.d-e\",\"expires_in\":300}", "abc.d-e", "", 300);
	expect_token("{\"access_token\":\"x\",\"refresh_token\":\"r\",\"expires_in\":1.5}", "x", "r", 1);
	expect_token("{\"token\":\"\",\"access_token\":\"x\",\"expires_in\":-5}", "x", "", 60);
	expect_token("{\"token\":\"x\",\"expires_in\":1e30}", "x", "", 86400);
	static const char *const bad[] = { "",
					   "[]",
					   "null",
					   "{}",
					   "{\"token\":5}",
					   "{\"token\":\"a b\"}",
					   "{\"token\":\"a\\r\\nX: y\"}",
					   "{\"token\":\"\\u00e4\"}",
					   "{\"token\":\"x\"" };
	for (size_t i = 0; i < ELEMENTS(bad); i++) {
		NetToken token;
		assert_int_equal(net_token_parse(bad[i], strlen(bad[i]), &token), -EBADMSG);
	}
}

static void test_helper_answers(void **state _unused_)
{
	static const char good[] = "{\"ServerURL\":\"h\",\"Username\":\"ann\",\"Secret\":\"a:b\"}\n";
	static const char *const bad[] = { "",
					   "{}",
					   "{\"Username\":\"\",\"Secret\":\"x\"}",
					   "{\"Username\":\"a:b\",\"Secret\":\"x\"}",
					   "{\"Username\":\"a\",\"Secret\":\"x\\ny\"}",
					   "{\"Username\":1,\"Secret\":\"x\"}" };
	NetHelperLogin login;
	assert_int_equal(net_helper_parse(good, strlen(good), &login), 0);
	assert_string_equal(login.user, "ann");
	assert_string_equal(login.secret, "a:b");
	net_helper_login_done(&login);
	for (size_t i = 0; i < ELEMENTS(bad); i++)
		assert_int_equal(net_helper_parse(bad[i], strlen(bad[i]), &login), -EBADMSG);
	Error error;
	assert_int_equal(net_helper_get("../evil", "h", &login, &error), -ENOEXEC);
	assert_int_equal(net_helper_get("", "h", &login, &error), -ENOEXEC);
	assert_int_equal(net_helper_get("no-such-helper", "h", &login, &error), -ENOEXEC);
	assert_non_null(strstr(error.message, "docker-credential-no-such-helper"));
}

/* A shell script in PATH as docker-credential-NAME. */
static void put_helper(const char *directory, const char *name, const char *script)
{
	char path[512];
	(void)snprintf(path, sizeof(path), "%s/docker-credential-%s", directory, name);
	FILE *file = fopen(path, "we");
	assert_non_null(file);
	assert_true(fprintf(file, "#!/bin/sh\n%s\n", script) > 0);
	assert_int_equal(fclose(file), 0);
	assert_int_equal(chmod(path, 0755), 0);
}

static void drop_helper(const char *directory, const char *name)
{
	char path[512];
	(void)snprintf(path, sizeof(path), "%s/docker-credential-%s", directory, name);
	assert_int_equal(unlink(path), 0);
}

/* The last one has said all it had to say, and goes on living. */
static void test_helpers_that_end_or_not(void **state _unused_)
{
	static const char *const names[] = { "good", "bad", "unknown", "clings" };
	char directory[] = "/tmp/imgfs-helper-XXXXXX", path[4096];
	NetHelperLogin login;
	Error error = { 0 };
	assert_non_null(mkdtemp(directory));
	put_helper(directory, "good", "printf '{\"Username\":\"%s\",\"Secret\":\"x\"}' \"$(cat)\"");
	put_helper(directory, "bad", "echo out of order; exit 1");
	put_helper(directory, "unknown", "echo credentials not found in native keychain; exit 1");
	put_helper(directory, "clings", "echo '{\"Username\":\"a\",\"Secret\":\"b\"}'; exec >&-; exec sleep 1000");
	(void)snprintf(path, sizeof(path), "%s:%s", directory, getenv("PATH"));
	assert_int_equal(setenv("PATH", path, 1), 0);
	assert_int_equal(net_helper_get("good", "host", &login, &error), 0);
	assert_string_equal(login.user, "host");
	net_helper_login_done(&login);
	assert_int_equal(net_helper_get("bad", "h", &login, &error), -EIO);
	assert_non_null(strstr(error.message, "out of order"));
	assert_int_equal(net_helper_get("unknown", "h", &login, &error), -ENOENT);
	assert_int_equal(net_helper_get("clings", "h", &login, &error), -ETIMEDOUT);
	assert_non_null(strstr(error.message, "does not end"));
	for (size_t i = 0; i < ELEMENTS(names); i++)
		drop_helper(directory, names[i]);
	assert_int_equal(rmdir(directory), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_challenges),
		cmocka_unit_test(test_bad_challenges),
		cmocka_unit_test(test_tokens),
		cmocka_unit_test(test_helper_answers),
		cmocka_unit_test(test_helpers_that_end_or_not),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
