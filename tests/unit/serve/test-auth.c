/* Users and passwords: the file of htpasswd, and logins checked against it. */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/evp.h>

#include "fs/base/fd.h"
#include "tools/serve/htpasswd.h"
#include "tools/serve/serve-auth.h"

/* Made by crypt(3), of the password "secret", but DAN's, of "hunter2". */
#define ANN "$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW"
#define BOB "$5$rounds=1000$saltsalt$eKLZU9t9OoPWrqOQsoTIKG0aYkZ5rGOoOQhiIvoSWX2"
#define CARL                                                                                              \
	"$6$rounds=1000$saltsalt$LAV5VE5Y7w1d73x1mFNspYWUpazfmwv2SoepNXNKJ/otop/Zok96Hr8Q13LEv0DRY/x8v0/" \
	"crpIjl8NJSAqXV/"
#define DAN "$2b$04$abcdefghijklmnopqrstuuV3duMsC0HpUex6N9qapiuOHHWkwRXVm"

#define USERS "# who may read\nann:" ANN "\n\nbob:" BOB "\r\ncarl:" CARL "\ndan:" DAN

typedef struct Context {
	char path[64];
	ServeAuth *auth;
} Context;

static void write_users(const Context *context, const char *text)
{
	assert_int_equal(fd_replace_file(AT_FDCWD, context->path, text, strlen(text), 0600), 0);
}

static int set_up(void **state)
{
	Context *context = calloc(1, sizeof(*context));
	(void)strcpy(context->path, "/tmp/imgfs-auth-XXXXXX");
	int fd = mkstemp(context->path);
	assert_true(fd >= 0);
	(void)close(fd);
	write_users(context, USERS);
	assert_int_equal(serve_auth_new(context->path, &context->auth, NULL), 0);
	*state = context;
	return 0;
}

static int tear_down(void **state)
{
	Context *context = *state;
	(void)serve_auth_free(context->auth);
	(void)unlink(context->path);
	free(context);
	return 0;
}

static bool login(ServeAuth *auth, const char *user)
{
	char header[1024] = "Basic ";
	(void)EVP_EncodeBlock((unsigned char *)header + 6, (const unsigned char *)user, (int)strlen(user));
	return serve_auth_check(auth, header);
}

static void test_logins(void **state)
{
	ServeAuth *auth = ((Context *)*state)->auth;
	assert_true(login(auth, "ann:secret"));
	assert_true(login(auth, "bob:secret"));
	assert_true(login(auth, "carl:secret"));
	assert_true(login(auth, "dan:hunter2"));
	assert_false(login(auth, "ann:Secret"));
	assert_false(login(auth, "ann:"));
	assert_false(login(auth, "ann:secret2"));
	assert_false(login(auth, "bob:hunter2"));
	assert_false(login(auth, "eve:secret"));
	assert_false(login(auth, "Ann:secret"));
	assert_false(login(auth, ":secret"));
	assert_false(login(auth, "# who may read:secret"));
}

static void test_headers(void **state)
{
	static const char *const headers[] = {
		NULL,
		"",
		"Basic",
		"Basic ",
		"Basic YW5uOnNlY3JldA",
		"Basic YW5uOnNlY3JldA=",
		"Bearer YW5uOnNlY3JldA==",
		"YW5uOnNlY3JldA==",
		"Basic YW5uOnNlY3JldA== x",
		"Basic ====",
		"Basic YW5uAHNlY3JldA==" /* a NUL */,
		"Basic YW5uc2VjcmV0" /* no colon */,
		"Basic YW5u OnNlY3JldA==",
	};
	ServeAuth *auth = ((Context *)*state)->auth;
	unsigned long before = serve_auth_hashes(auth);
	for (size_t i = 0; i < ELEMENTS(headers); i++)
		assert_false(serve_auth_check(auth, headers[i]));
	assert_int_equal(serve_auth_hashes(auth), before);
	assert_true(serve_auth_check(auth, "basic   YW5uOnNlY3JldA=="));
	char *long_login = malloc(4000);
	memset(long_login, 'a', 3000);
	(void)strcpy(long_login, "Basic ");
	memset(long_login + 6, 'Y', 2000);
	long_login[2006] = '\0';
	assert_false(serve_auth_check(auth, long_login));
	free(long_login);
}

/* The slow hash is computed once for a right password, and every time for a wrong one or a user that is not there. */
static void test_what_is_computed(void **state)
{
	ServeAuth *auth = ((Context *)*state)->auth;
	unsigned long before = serve_auth_hashes(auth);
	for (int i = 0; i < 20; i++)
		assert_true(login(auth, "ann:secret"));
	assert_int_equal(serve_auth_hashes(auth), before + 1);
	for (int i = 0; i < 3; i++)
		assert_false(login(auth, "ann:wrong"));
	assert_int_equal(serve_auth_hashes(auth), before + 4);
	for (int i = 0; i < 3; i++)
		assert_false(login(auth, "nobody:secret"));
	assert_int_equal(serve_auth_hashes(auth), before + 7);
}

static void test_reload(void **state)
{
	Context *context = *state;
	Error error = { 0 };
	assert_true(login(context->auth, "ann:secret"));
	write_users(context, "ann:" DAN "\n");
	assert_true(login(context->auth, "ann:secret"));
	assert_int_equal(serve_auth_reload(context->auth, &error), 0);
	assert_false(login(context->auth, "ann:secret"));
	assert_true(login(context->auth, "ann:hunter2"));
	assert_false(login(context->auth, "bob:secret"));

	write_users(context, "ann\n");
	assert_int_equal(serve_auth_reload(context->auth, &error), -EBADMSG);
	assert_non_null(strstr(error.message, context->path));
	assert_non_null(strstr(error.message, "line 1: "));
	assert_true(login(context->auth, "ann:hunter2"));
	assert_int_equal(unlink(context->path), 0);
	assert_int_equal(serve_auth_reload(context->auth, &error), -ENOENT);
	assert_true(login(context->auth, "ann:hunter2"));
}

static void *try_logins(void *arg)
{
	ServeAuth *auth = arg;
	bool right = true;
	for (int i = 0; i < 8; i++)
		right = right && login(auth, "bob:secret") && !login(auth, "bob:wrong") && !login(auth, "eve:x");
	return right ? arg : NULL;
}

static void test_threads(void **state)
{
	Context *context = *state;
	pthread_t threads[6];
	for (size_t i = 0; i < ELEMENTS(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, try_logins, context->auth), 0);
	for (int i = 0; i < 10; i++)
		assert_int_equal(serve_auth_reload(context->auth, NULL), 0);
	for (size_t i = 0; i < ELEMENTS(threads); i++) {
		void *result;
		assert_int_equal(pthread_join(threads[i], &result), 0);
		assert_non_null(result);
	}
}

static void expect_refused(const char *text, const char *sentence)
{
	Htpasswd htpasswd;
	Error error = { 0 };
	int r = htpasswd_parse(text, strlen(text), &htpasswd, &error);
	if (r != -EBADMSG || !strstr(error.message, sentence))
		fail_msg("%s: %d \"%s\" without \"%s\"", text, r, error.message, sentence);
}

static void test_files_that_are_refused(void **state _unused_)
{
	expect_refused("", "nobody is in it");
	expect_refused("# nobody\n\n", "nobody is in it");
	expect_refused("ann:" ANN "\nann:" BOB "\n", "\"ann\" stands there twice");
	expect_refused("ann:" ANN "\n" ANN "\n", "line 2: ");
	expect_refused(":" ANN "\n", "line 1: it is not USER:HASH");
	expect_refused("ann:secret\n", "line 1: the hash is neither");
	expect_refused("ann:\n", "line 1: the hash is neither");
	expect_refused("ann:$apr1$r31.....$HqJZimcKQFAMYayBlzkrA/\n", "the hash is neither");
	expect_refused("ann:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n", "the hash is neither");
	expect_refused("ann:" ANN ":extra\n", "the hash is neither");
	expect_refused("ann:$2b$17$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n", "of cost 4 to 16");
	expect_refused("ann:$2b$03$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n", "of cost 4 to 16");
	expect_refused("ann:$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WI W\n", "the hash is neither");
	char text[1000];
	memset(text, 'a', sizeof(text));
	(void)strcpy(text + 300, ":" ANN);
	expect_refused(text, "name is too long");
	Htpasswd htpasswd;
	assert_int_equal(htpasswd_parse("ann\0:x", 6, &htpasswd, NULL), -EBADMSG);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_logins),
		cmocka_unit_test(test_headers),
		cmocka_unit_test_setup_teardown(test_what_is_computed, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_reload, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_threads, set_up, tear_down),
		cmocka_unit_test(test_files_that_are_refused),
	};
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
