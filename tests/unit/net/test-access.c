/* What a machine has for a host: certificates, a login; and the way it takes to the process that connects. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "fs/base/fd.h"
#include "fs/net/net-access.h"
#include "fs/net/net-basic.h"

#define PEM  "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
#define HOST "build:8500"

typedef struct Place {
	char root[64];
	char certs[96];
	char directory[128];
	char login[96];
} Place;

static int set_up(void **state)
{
	Place *place = calloc(1, sizeof(*place));
	(void)strcpy(place->root, "/tmp/imgfs-access-XXXXXX");
	assert_non_null(mkdtemp(place->root));
	(void)snprintf(place->certs, sizeof(place->certs), "%s/certs.d", place->root);
	(void)snprintf(place->directory, sizeof(place->directory), "%s/" HOST, place->certs);
	(void)snprintf(place->login, sizeof(place->login), "%s/config.json", place->root);
	assert_int_equal(fd_make_directories(AT_FDCWD, place->directory, 0755), 0);
	assert_int_equal(setenv("DOCKER_CONFIG", place->root, 1), 0);
	*state = place;
	return 0;
}

static void remove_in(const Place *place, const char *name)
{
	char path[256];
	(void)snprintf(path, sizeof(path), "%s/%s", place->directory, name);
	(void)unlink(path);
}

static int tear_down(void **state)
{
	Place *place = *state;
	remove_in(place, "ca.crt");
	remove_in(place, "client.cert");
	remove_in(place, "client.key");
	(void)unlink(place->login);
	assert_int_equal(rmdir(place->directory), 0);
	assert_int_equal(rmdir(place->certs), 0);
	assert_int_equal(rmdir(place->root), 0);
	free(place);
	return 0;
}

static void put(const Place *place, const char *name, const char *text)
{
	char path[256];
	(void)snprintf(path, sizeof(path), "%s/%s", place->directory, name);
	assert_int_equal(fd_replace_file(AT_FDCWD, path, text, strlen(text), 0600), 0);
}

static void put_login(const Place *place, const char *json)
{
	assert_int_equal(fd_replace_file(AT_FDCWD, place->login, json, strlen(json), 0600), 0);
}

static int load(const char *certs, const char *login, const char *host, NetAccess *ret_access, Error *error)
{
	return net_access_load(&(NetAccessOptions){ .certs = certs, .login = login }, host, ret_access, error);
}

static void expect_base(const NetAccess *access, const char *host, bool plain_http, const char *wanted)
{
	_cleanup_free_ char *base = net_access_base(access, host, plain_http);
	assert_string_equal(base, wanted);
}

static void test_nothing_there(void **state)
{
	Place *place = *state;
	NetAccess access;
	assert_int_equal(load(place->certs, NULL, HOST, &access, NULL), 0);
	assert_null(access.ca);
	assert_null(access.certificate);
	assert_null(access.user);
	expect_base(&access, HOST, false, "https://" HOST);
	expect_base(&access, HOST, true, "http://" HOST);
	expect_base(&access, "localhost:1", false, "http://localhost:1");
	assert_int_equal(load("/nowhere", NULL, HOST, &access, NULL), 0);
}

static void test_everything_there(void **state)
{
	Place *place = *state;
	NetAccess access, twin;
	put(place, "ca.crt", PEM);
	put(place, "client.cert", PEM "2");
	put(place, "client.key", PEM "3");
	put_login(place, "{\"auths\":{\"other:1\":{\"auth\":\"eDp5\"},\"https://" HOST
			 "/v1/\":{\"auth\":\"YW5uOnNlY3JldA==\"}}}");
	assert_int_equal(load(place->certs, NULL, HOST, &access, NULL), 0);
	assert_string_equal(access.ca, PEM);
	assert_string_equal(access.certificate, PEM "2");
	assert_string_equal(access.key, PEM "3");
	assert_string_equal(access.user, "ann:secret");
	expect_base(&access, "localhost:1", false, "https://localhost:1");
	expect_base(&access, "localhost:1", true, "http://localhost:1");

	char *text;
	assert_int_equal(net_access_encode(&access, &text), 0);
	assert_int_equal(net_access_decode(text, &twin), 0);
	assert_string_equal(twin.ca, access.ca);
	assert_string_equal(twin.certificate, access.certificate);
	assert_string_equal(twin.key, access.key);
	assert_string_equal(twin.user, access.user);
	free(text);
	net_access_done(&access);
	net_access_done(&twin);
	assert_null(twin.key);
}

/* Comments around the certificates are in whatever their author wrote in; what goes on is text that JSON can hold. */
static void test_pem_comments(void **state)
{
	Place *place = *state;
	NetAccess access, twin;
	char *text;
	put(place, "ca.crt", "Autorit\xe9 de certification\n" PEM "\xff\n");
	assert_int_equal(load(place->certs, NULL, HOST, &access, NULL), 0);
	assert_string_equal(access.ca, "Autorit? de certification\n" PEM "?\n");
	assert_int_equal(net_access_encode(&access, &text), 0);
	assert_int_equal(net_access_decode(text, &twin), 0);
	assert_string_equal(twin.ca, access.ca);
	free(text);
	net_access_done(&access);
	net_access_done(&twin);
}

static void test_empty_text(void **state _unused_)
{
	NetAccess access = { 0 }, twin;
	char *text;
	assert_int_equal(net_access_encode(&access, &text), 0);
	assert_int_equal(net_access_decode(text, &twin), 0);
	assert_null(twin.ca);
	free(text);
	assert_int_equal(net_access_decode("{\"ca\":1}", &twin), -EBADMSG);
	assert_int_equal(net_access_decode("", &twin), -EBADMSG);
}

static int decode_with_mirrors(size_t count)
{
	char text[1024] = "{\"user\":\"ann:secret\",\"mirrors\":[";
	for (size_t i = 0; i < count; i++)
		strcat(text, i == 0 ? "{\"base\":\"http://a\"}" : ",{\"base\":\"http://a\"}");
	strcat(text, "]}");
	NetAccess access;
	int r = net_access_decode(text, &access);
	if (r < 0)
		return r;
	assert_int_equal(access.mirror_count, count);
	net_access_done(&access);
	return 0;
}

/* One that is too many would be spoken to as the host itself. */
static void test_too_many_mirrors(void **state _unused_)
{
	assert_int_equal(decode_with_mirrors(NET_MIRRORS_MAX), 0);
	assert_int_equal(decode_with_mirrors(NET_MIRRORS_MAX + 1), -EBADMSG);
}

static void expect_error(const Place *place, const char *login, const char *host, int code, const char *word)
{
	NetAccess access;
	Error error = { 0 };
	int r = load(place->certs, login, host, &access, &error);
	if (r != code || !strstr(error.message, word))
		fail_msg("%d instead of %d: %s", r, code, error.message);
}

static void test_what_is_wrong(void **state)
{
	Place *place = *state;
	static const char *const hosts[] = { "", ".", "..", "a/b", ("../" HOST) };
	for (size_t i = 0; i < ELEMENTS(hosts); i++)
		expect_error(place, NULL, hosts[i], -EINVAL, "is no host");
	put(place, "client.cert", PEM);
	expect_error(place, NULL, HOST, -EINVAL, "it takes both");
	remove_in(place, "client.cert");
	put(place, "ca.crt", "rubbish");
	expect_error(place, NULL, HOST, -EINVAL, "ca.crt is not PEM");
	remove_in(place, "ca.crt");
	put(place, "client.cert", PEM);
	put(place, "client.key", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n");
	expect_error(place, NULL, HOST, -EINVAL, "client.key is encrypted");
	static const char *const headers[] = { "Proc-Type: 4,ENCRYPTED", "Proc-Type:4, ENCRYPTED" };
	for (size_t i = 0; i < sizeof(headers) / sizeof(*headers); i++) {
		char pem[256];
		(void)snprintf(pem, sizeof(pem),
			       "-----BEGIN EC PRIVATE KEY-----\n%s\nDEK-Info: AES-128-CBC,00\n\nMIIB\n-----END EC "
			       "PRIVATE KEY-----\n",
			       headers[i]);
		put(place, "client.key", pem);
		expect_error(place, NULL, HOST, -EINVAL, "client.key is encrypted");
	}
	remove_in(place, "client.cert");
	remove_in(place, "client.key");
	expect_error(place, "/nowhere/config.json", HOST, -ENOENT, "/nowhere/config.json");
	put_login(place, "{");
	expect_error(place, NULL, HOST, -EINVAL, "is not JSON");
	put_login(place, "{\"auths\":{\"" HOST "\":{\"auth\":\"YW5u\"}}}");
	expect_error(place, NULL, HOST, -EINVAL, "docker login " HOST);
	put_login(place, "{\"auths\":{\"" HOST "\":{\"auth\":\"/zr/\"}}}");
	expect_error(place, NULL, HOST, -EINVAL, "not UTF-8");
}

static void test_logins_that_are_none(void **state)
{
	Place *place = *state;
	static const char *const files[] = {
		"{}",
		"[]",
		"{\"auths\":[]}",
		("{\"auths\":{\"" HOST "\":{}}}"),
		("{\"auths\":{\"" HOST "\":{\"auth\":\"\"}},\"credsStore\":\"pass\"}"),
		("{\"auths\":{\"" HOST "0\":{\"auth\":\"eDp5\"},\"xbuild:8500\":{\"auth\":\"eDp5\"}}}"),
		("{\"auths\":{\"" HOST "\":{\"auth\":7}}}"),
	};
	for (size_t i = 0; i < ELEMENTS(files); i++) {
		NetAccess access;
		put_login(place, files[i]);
		assert_int_equal(load(place->certs, place->login, HOST, &access, NULL), 0);
		assert_null(access.user);
		net_access_done(&access);
	}
}

static void test_basic(void **state _unused_)
{
	char text[NET_BASIC_MAX + 1];
	assert_int_equal(net_basic_decode("YW5uOnNlY3JldA==", text, sizeof(text)), 0);
	assert_string_equal(text, "ann:secret");
	assert_int_equal(net_basic_decode("YW5uOnNlY3JldA==", text, 11), 0);
	assert_int_equal(net_basic_decode("YW5uOnNlY3JldA==", text, 10), -EINVAL);
	assert_int_equal(net_basic_decode("Og==", text, sizeof(text)), 0);
	assert_string_equal(text, ":");
	static const char *const bad[] = {
		"",      "=",        "====",       "A===",      "YW5u",        "YW5uOnNlY3JldA=",
		"YW5u=", "YW5uOg=A", "YW5uOg==\n", " YW5uOg==", "YW5uOg=====", "YW5uAHNlOg=="
	};
	for (size_t i = 0; i < ELEMENTS(bad); i++)
		if (net_basic_decode(bad[i], text, sizeof(text)) != -EINVAL)
			fail_msg("\"%s\" was taken", bad[i]);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_nothing_there, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_everything_there, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_pem_comments, set_up, tear_down),
		cmocka_unit_test(test_empty_text),
		cmocka_unit_test(test_too_many_mirrors),
		cmocka_unit_test_setup_teardown(test_what_is_wrong, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_logins_that_are_none, set_up, tear_down),
		cmocka_unit_test(test_basic),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
