#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "fs/net/net-registry.h"
#include "tests/unit/net/net-fixture.h"

static void test_loopback(void **state _unused_)
{
	static const char *const loopback[] = { "localhost",    "LOCALHOST:5000", "127.0.0.1",
						"127.1.2.3:80", "[::1]",          "[::1]:8500" };
	static const char *const remote[] = {
		"build:8500", "localhost.example.org", "128.0.0.1:1", "127.0.0.1.nip.io", "[::2]:8500", "[::1", "",
		"10.0.0.127", "localhosts:1"
	};
	for (size_t i = 0; i < ELEMENTS(loopback); i++)
		assert_true(net_registry_is_loopback(loopback[i]));
	for (size_t i = 0; i < ELEMENTS(remote); i++)
		assert_false(net_registry_is_loopback(remote[i]));
}

static void check_base(const char *host, bool plain_http, const char *expected)
{
	_cleanup_free_ char *base = net_registry_base(host, plain_http);
	assert_string_equal(base, expected);
}

static void test_urls(void **state _unused_)
{
	check_base("build:8500", false, "https://build:8500");
	check_base("build:8500", true, "http://build:8500");
	check_base("localhost:8500", false, "http://localhost:8500");
	check_base("[::1]:8500", false, "http://[::1]:8500");
	Digest digest;
	memset(&digest, 0x5a, sizeof(digest));
	_cleanup_free_ char *manifest = net_registry_manifest_url("http://h", "whisk/invoker", "v2");
	_cleanup_free_ char *blob = net_registry_blob_url("http://h", "a", &digest);
	assert_string_equal(manifest, "http://h/v2/whisk/invoker/manifests/v2");
	assert_string_equal(
		blob, "http://h/v2/a/blobs/sha256:5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a");
}

static void test_head_and_get(void **state)
{
	NetFixture *fixture = *state;
	NetHttp *http;
	Digest digest, found;
	char *body;
	size_t size;
	assert_int_equal(net_http_new(1000, &http), 0);
	assert_int_equal(digest_of(fixture->content, FILE_SIZE, &digest), 0);
	assert_int_equal(net_registry_head(http, fixture->url, "text/plain", &found, NULL), 0);
	assert_memory_equal(&found, &digest, sizeof(found));
	memset(&found, 0, sizeof(found));
	assert_int_equal(
		net_registry_manifest(http, fixture->url, "text/plain", FILE_SIZE, &digest, &body, &size, &found, NULL),
		0);
	assert_memory_equal(&found, &digest, sizeof(found));
	assert_int_equal(size, FILE_SIZE);
	free(body);

	fake_server_fault(fixture->server, FAKE_NO_DIGEST, 0);
	assert_int_equal(net_registry_head(http, fixture->url, "text/plain", &found, NULL), -ENODATA);
	assert_int_equal(
		net_registry_manifest(http, fixture->url, "text/plain", FILE_SIZE, NULL, &body, &size, &found, NULL),
		0);
	free(body);
	assert_null(net_http_free(http));
}

static void test_wrong_digests(void **state)
{
	NetFixture *fixture = *state;
	NetHttp *http;
	Digest other = { 0 }, found;
	char *body;
	size_t size;
	Error error = { 0 };
	assert_int_equal(net_http_new(1000, &http), 0);
	assert_int_equal(net_registry_manifest(http, fixture->url, "text/plain", FILE_SIZE, &other, &body, &size,
					       &found, &error),
			 -EBADMSG);
	assert_non_null(strstr(error.message, "as asked for"));
	fake_server_fault(fixture->server, FAKE_CORRUPT, 0);
	assert_int_equal(
		net_registry_manifest(http, fixture->url, "text/plain", FILE_SIZE, NULL, &body, &size, &found, &error),
		-EBADMSG);
	assert_non_null(strstr(error.message, "as the registry says"));
	assert_null(net_http_free(http));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_loopback),
		cmocka_unit_test(test_urls),
		cmocka_unit_test_setup_teardown(test_head_and_get, net_fixture_start, net_fixture_stop),
		cmocka_unit_test_setup_teardown(test_wrong_digests, net_fixture_start, net_fixture_stop),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
