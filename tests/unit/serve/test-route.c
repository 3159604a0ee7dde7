#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "tools/serve/serve-route.h"

#define HEX    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define DIGEST "sha256:" HEX

static ServeRoute route_of(const char *path)
{
	ServeRoute route;
	memset(&route, 0xa5, sizeof(route));
	serve_route_parse(path, &route);
	return route;
}

static void expect(const char *path, ServeRouteKind kind, const char *name, const char *tag)
{
	ServeRoute route = route_of(path);
	if (route.kind != kind)
		fail_msg("%s: kind %d instead of %d", path, route.kind, kind);
	assert_string_equal(route.name, name);
	assert_string_equal(route.tag, tag);
}

static void expect_kind(const char *path, ServeRouteKind kind)
{
	ServeRoute route = route_of(path);
	if (route.kind != kind)
		fail_msg("%s: kind %d instead of %d", path, route.kind, kind);
}

static void test_end_points(void **state _unused_)
{
	expect("/v2/", SERVE_ROUTE_BASE, "", "");
	expect("/v2", SERVE_ROUTE_BASE, "", "");
	expect("/v2/_catalog", SERVE_ROUTE_CATALOG, "", "");
	expect("/healthz", SERVE_ROUTE_HEALTH, "", "");
	expect("/metrics", SERVE_ROUTE_METRICS, "", "");
	expect("/imgfs/ca.pem", SERVE_ROUTE_CA, "", "");
	expect("/v2/whisk/invoker/tags/list", SERVE_ROUTE_TAGS, "whisk/invoker", "");
	expect("/v2/whisk/invoker/manifests/v2.1", SERVE_ROUTE_MANIFEST_TAG, "whisk/invoker", "v2.1");
	expect("/v2/a/manifests/" DIGEST, SERVE_ROUTE_MANIFEST_DIGEST, "a", "");
	expect("/v2/a/blobs/" DIGEST, SERVE_ROUTE_BLOB, "a", "");
	expect("/imgfs/blobs/" DIGEST, SERVE_ROUTE_BLOB, "", "");
	expect("/imgfs/profiles/" DIGEST, SERVE_ROUTE_PROFILE, "", "");
	expect("/imgfs/profiles/latest", SERVE_ROUTE_BAD_DIGEST, "", "");
	expect("/imgfs/profiles", SERVE_ROUTE_NOT_FOUND, "", "");
}

static void test_digest_is_read(void **state _unused_)
{
	Digest digest;
	assert_int_equal(digest_from_text(DIGEST, &digest), 0);
	ServeRoute route = route_of("/imgfs/blobs/" DIGEST);
	assert_true(digest_equal(&route.digest, &digest));
	route = route_of("/imgfs/profiles/" DIGEST);
	assert_true(digest_equal(&route.digest, &digest));
	route = route_of("/v2/a/b/manifests/" DIGEST);
	assert_true(digest_equal(&route.digest, &digest));
}

static void test_names_that_look_like_end_points(void **state _unused_)
{
	expect("/v2/blobs/manifests/manifests/blobs", SERVE_ROUTE_MANIFEST_TAG, "blobs/manifests", "blobs");
	expect("/v2/tags/list/tags/list", SERVE_ROUTE_TAGS, "tags/list", "");
	expect("/v2/a/manifests/list", SERVE_ROUTE_MANIFEST_TAG, "a", "list");
	expect_kind("/v2/tags/list", SERVE_ROUTE_NOT_FOUND);
	expect_kind("/v2/manifests/latest", SERVE_ROUTE_NOT_FOUND);
}

static void test_escapes(void **state _unused_)
{
	expect("/v2/a/manifests/v%32", SERVE_ROUTE_MANIFEST_TAG, "a", "v2");
	expect("/v2/a/blobs/sha256%3A" HEX, SERVE_ROUTE_BLOB, "a", "");
	expect("/v2/a%2fb/tags/list", SERVE_ROUTE_TAGS, "a/b", "");
	expect_kind("/v2/a/manifests/v%00", SERVE_ROUTE_NOT_FOUND);
	expect_kind("/v2/a/manifests/v%2", SERVE_ROUTE_NOT_FOUND);
	expect_kind("/v2/a/manifests/v%", SERVE_ROUTE_NOT_FOUND);
	expect_kind("/v2/a/manifests/v%zz", SERVE_ROUTE_NOT_FOUND);
	expect_kind("/v2/a/manifests/v%252f", SERVE_ROUTE_BAD_TAG);
}

static void test_nothing_leaves_the_store(void **state _unused_)
{
	expect_kind("/v2/../../etc/tags/list", SERVE_ROUTE_BAD_NAME);
	expect_kind("/v2/%2e%2e/%2e%2e/etc/manifests/passwd", SERVE_ROUTE_BAD_NAME);
	expect_kind("/v2/a/../b/manifests/x", SERVE_ROUTE_BAD_NAME);
	expect_kind("/v2//etc/manifests/passwd", SERVE_ROUTE_BAD_NAME);
	expect_kind("/v2/a/_manifests/manifests/x", SERVE_ROUTE_BAD_NAME);
	expect_kind("/v2/A/manifests/x", SERVE_ROUTE_BAD_NAME);
	expect_kind("/v2/a/manifests/..", SERVE_ROUTE_BAD_TAG);
	expect_kind("/v2/a/manifests/.hidden", SERVE_ROUTE_BAD_TAG);
	expect_kind("/v2/a/manifests/", SERVE_ROUTE_BAD_TAG);
	expect_kind("/v2/a/blobs/../../../etc/passwd", SERVE_ROUTE_NOT_FOUND);
	expect_kind("/imgfs/blobs/../../imgfs-store", SERVE_ROUTE_BAD_DIGEST);
	expect_kind("/imgfs/blobs/", SERVE_ROUTE_BAD_DIGEST);
}

static void test_whole_urls(void **state _unused_)
{
	expect_kind("http://build:8500/v2/", SERVE_ROUTE_BASE);
	expect_kind("HTTPS://[::1]:8500/healthz", SERVE_ROUTE_HEALTH);
	expect_kind("http://build:8500/v2/a/blobs/" DIGEST, SERVE_ROUTE_BLOB);
	expect_kind("http://build:8500", SERVE_ROUTE_NOT_FOUND);
	expect_kind("http:///v2/", SERVE_ROUTE_BASE);
	expect_kind("ftp://build/v2/", SERVE_ROUTE_NOT_FOUND);
}

static void test_bad_digests(void **state _unused_)
{
	expect_kind("/v2/a/blobs/sha256:0123", SERVE_ROUTE_BAD_DIGEST);
	expect_kind("/v2/a/blobs/sha512:" HEX, SERVE_ROUTE_BAD_DIGEST);
	expect_kind("/v2/a/blobs/" HEX, SERVE_ROUTE_BAD_DIGEST);
	expect_kind("/v2/a/blobs/" DIGEST "0", SERVE_ROUTE_BAD_DIGEST);
	expect_kind("/v2/a/blobs/", SERVE_ROUTE_BAD_DIGEST);
	expect_kind("/v2/a/manifests/sha256:xyz", SERVE_ROUTE_BAD_DIGEST);
	expect_kind("/v2/a/blobs/sha256:0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef",
		    SERVE_ROUTE_BAD_DIGEST);
}

static void test_not_found(void **state _unused_)
{
	static const char *const paths[] = { "",
					     "/",
					     "*",
					     "/v1/",
					     "/v2x",
					     "/v2/a",
					     "/v2/a/",
					     "/v2/a/tags",
					     "/v2/a/referrers/" DIGEST,
					     "/v2/a/blobs/uploads/x",
					     "/v2/a/tags/list/",
					     "/healthz/",
					     "/imgfs/",
					     "/imgfs-store",
					     ("/blobs/sha256/" HEX) };
	for (size_t i = 0; i < ELEMENTS(paths); i++)
		expect_kind(paths[i], SERVE_ROUTE_NOT_FOUND);
}

static void test_long_paths(void **state _unused_)
{
	char path[4096];
	size_t used = (size_t)snprintf(path, sizeof(path), "/v2/");
	memset(path + used, 'a', REFERENCE_NAME_MAX);
	(void)snprintf(path + used + REFERENCE_NAME_MAX, 128, "/manifests/" DIGEST);
	expect_kind(path, SERVE_ROUTE_MANIFEST_DIGEST);
	memset(path + used, 'a', REFERENCE_NAME_MAX + 1);
	(void)snprintf(path + used + REFERENCE_NAME_MAX + 1, 128, "/manifests/" DIGEST);
	expect_kind(path, SERVE_ROUTE_BAD_NAME);
	memset(path + used, 'a', sizeof(path) - used - 1);
	path[sizeof(path) - 1] = '\0';
	expect_kind(path, SERVE_ROUTE_NOT_FOUND);
}

static void test_unescape_fits_exactly(void **state _unused_)
{
	char text[4];
	assert_true(serve_route_unescape("abc", text, sizeof(text)));
	assert_string_equal(text, "abc");
	assert_true(serve_route_unescape("%61b%63", text, sizeof(text)));
	assert_string_equal(text, "abc");
	assert_false(serve_route_unescape("abcd", text, sizeof(text)));
	assert_true(serve_route_unescape("", text, 1));
	assert_false(serve_route_unescape("", text, 0));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_end_points),
		cmocka_unit_test(test_digest_is_read),
		cmocka_unit_test(test_names_that_look_like_end_points),
		cmocka_unit_test(test_escapes),
		cmocka_unit_test(test_nothing_leaves_the_store),
		cmocka_unit_test(test_whole_urls),
		cmocka_unit_test(test_bad_digests),
		cmocka_unit_test(test_not_found),
		cmocka_unit_test(test_long_paths),
		cmocka_unit_test(test_unescape_fits_exactly),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
