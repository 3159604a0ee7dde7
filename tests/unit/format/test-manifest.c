/* Manifests: what imgfs writes, and what it refuses to read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/format/format.h"
#include "fs/format/manifest-platform.h"
#include "fs/format/manifest.h"

#define D0 "sha256:0000000000000000000000000000000000000000000000000000000000000000"
#define D1 "sha256:0100000000000000000000000000000000000000000000000000000000000000"
#define D2 "sha256:0200000000000000000000000000000000000000000000000000000000000000"
#define D3 "sha256:0300000000000000000000000000000000000000000000000000000000000000"

#define KEY    "containerd.io/snapshot/imgfs."
#define CONFIG "{\"mediaType\":\"application/vnd.oci.image.config.v1+json\",\"digest\":\"" D0 "\",\"size\":123}"
#define ANNOTATIONS                                                                                          \
	"{\"" KEY "version\":\"1\",\"" KEY "blob.digest\":\"" D2 "\",\"" KEY "blob.size\":\"100144\",\"" KEY \
	"index.offset\":\"90000\",\"" KEY "index.size\":\"10000\",\"" KEY "index.digest\":\"" D3 "\",\"" KEY \
	"diff-id\":\"" D1 "\"}"
#define LAYER                                                                                              \
	"{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar\",\"digest\":\"" D1 "\",\"size\":400000," \
	"\"annotations\":" ANNOTATIONS "}"
#define HEAD "{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"config\":"
#define GOOD HEAD CONFIG ",\"layers\":[" LAYER "]}"

static void test_parse(void **state)
{
	(void)state;
	_cleanup_(manifest_done) Manifest manifest = { 0 };
	assert_int_equal(manifest_parse(GOOD, strlen(GOOD), &manifest, NULL), 0);
	assert_int_equal(manifest.config_size, 123);
	assert_int_equal(manifest.layer_count, 1);
	const ManifestLayer *layer = &manifest.layers[0];
	assert_int_equal(layer->diff_id.bytes[0], 1);
	assert_int_equal(layer->tar_size, 400000);
	assert_int_equal(layer->blob.bytes[0], 2);
	assert_int_equal(layer->blob_size, 100144);
	assert_int_equal(layer->index_offset, 90000);
	assert_int_equal(layer->index_size, 10000);
	assert_int_equal(layer->index.bytes[0], 3);
	manifest_done(&manifest);
	assert_null(manifest.layers);
}

static void test_encode(void **state)
{
	(void)state;
	_cleanup_(manifest_done) Manifest manifest = { 0 };
	_cleanup_free_ char *json = NULL;
	size_t size;
	assert_int_equal(manifest_parse(GOOD, strlen(GOOD), &manifest, NULL), 0);
	assert_int_equal(manifest_encode(&manifest, &json, &size), 0);
	assert_int_equal(size, strlen(GOOD));
	assert_string_equal(json, GOOD);

	_cleanup_free_ char *bare = NULL;
	Manifest none = { .config_size = 1 };
	_cleanup_(manifest_done) Manifest back = { 0 };
	assert_int_equal(manifest_encode(&none, &bare, &size), 0);
	assert_int_equal(manifest_parse(bare, size, &back, NULL), 0);
	assert_int_equal(back.layer_count, 0);
}

#define GZIP_LAYER(more) \
	"{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar+gzip\",\"digest\":\"" D3 "\",\"size\":7" more "}"
#define OUR_LAYER(more, annotations)                                                                           \
	"{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar\",\"digest\":\"" D1 "\",\"size\":400000" more \
	",\"annotations\":{" annotations "}}"
#define OURS                                                                                                 \
	"\"" KEY "version\":\"1\",\"" KEY "blob.digest\":\"" D2 "\",\"" KEY "blob.size\":\"100144\",\"" KEY  \
	"index.offset\":\"90000\",\"" KEY "index.size\":\"10000\",\"" KEY "index.digest\":\"" D3 "\",\"" KEY \
	"diff-id\":\"" D1 "\""

/* The source's manifest, and what becomes of it. */
static const char *const sources[][2] = {
	/* what imgfs does not know stays where it is */
	{ "{\"a\":[1.5,null],\"schemaVersion\":2,\"layers\":[" GZIP_LAYER(
		  ",\"x\":{\"y\":1},\"urls\":[\"u\"],\"data\":\"eA==\"") "],\"config\":{\"size\":1,\"data\":\"e30=\"},"
									 "\"annotations\":{\"k\":\"v\"}}",
	  "{\"a\":[1.5,null],\"schemaVersion\":2,\"layers\":[" OUR_LAYER(
		  ",\"x\":{\"y\":1}", OURS) "],\"config\":{"
					    "\"size\":123,\"data\":\"e30=\",\"mediaType\":\"application/"
					    "vnd.oci.image.config.v1+json\",\"digest\":\"" D0
					    "\"},\"annotations\":{\"k\":\"v\"},\"mediaType\":\"application/"
					    "vnd.oci.image.manifest.v1+json\"}" },
	/* annotations of the compressed form go, others stay before ours */
	{ HEAD CONFIG ",\"layers\":[" GZIP_LAYER(
		  ",\"annotations\":{\"o\":\"k\",\"containerd.io/snapshot/stargz/toc.digest\":\"d\","
		  "\"io.containers.zstd-chunked.manifest-checksum\":\"d\",\"" KEY "blob.size\":\"1\"}") "]}",
	  HEAD CONFIG ",\"layers\":[{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar\",\"digest\":\"" D1
		      "\",\"size\":400000,\"annotations\":{\"o\":\"k\"," OURS "}}]}" },
	/* docker's words become OCI's */
	{ "{\"schemaVersion\":2,\"mediaType\":\"application/vnd.docker.distribution.manifest.v2+json\",\"config\":{"
	  "\"mediaType\":\"application/vnd.docker.container.image.v1+json\",\"digest\":\"" D3
	  "\",\"size\":9},\"layers\":[{\"mediaType\":\"application/vnd.docker.image.rootfs.diff.tar.gzip\","
	  "\"digest\":\"" D3 "\",\"size\":7}]}",
	  GOOD },
	/* nothing of it is of the kind it should be */
	{ "{\"schemaVersion\":1,\"mediaType\":7,\"config\":[],\"layers\":{}}", HEAD CONFIG ",\"layers\":[" LAYER "]}" },
};

static void test_encode_from(void **state)
{
	(void)state;
	_cleanup_(manifest_done) Manifest manifest = { 0 };
	assert_int_equal(manifest_parse(GOOD, strlen(GOOD), &manifest, NULL), 0);
	for (size_t i = 0; i < ELEMENTS(sources); i++) {
		_cleanup_free_ char *json = NULL;
		_cleanup_(manifest_done) Manifest back = { 0 };
		const char *source = sources[i][0];
		size_t size;
		Error error = { 0 };
		assert_int_equal(manifest_encode_from(&manifest, source, strlen(source), &json, &size, &error), 0);
		assert_string_equal(json, sources[i][1]);
		assert_int_equal(manifest_parse(json, size, &back, NULL), 0);
	}
	char *json = NULL;
	size_t size;
	assert_int_equal(manifest_encode_from(&manifest, "[]", 2, &json, &size, NULL), -EBADMSG);
	assert_int_equal(manifest_encode_from(&manifest, "{\"a\":1,\"a\":2}", 13, &json, &size, NULL), -EBADMSG);
	assert_null(json);
}

static void check_platform(const char *wanted, const char *json, bool fits)
{
	Platform platform;
	char text[PLATFORM_TEXT_SIZE];
	json_auto_t *object = json_loads(json, 0, NULL);
	Error error = { 0 };
	assert_non_null(object);
	assert_int_equal(platform_parse(wanted, &platform, NULL), 0);
	assert_string_equal(platform_text(&platform, text), wanted);
	assert_int_equal(platform_fits(&platform, object), fits);
	assert_int_equal(platform_check_config(&platform, json, strlen(json), &error), fits ? 0 : -ENOENT);
	if (!fits)
		assert_non_null(strstr(error.message, wanted));
}

static void test_platforms(void **state)
{
	(void)state;
	static const char *const bad[] = { "",        "linux",         "linux/",      "/amd64",      "linux/arm/",
					   "a/b/c/d", "linux/arm/v7/", "Linux/amd64", "linux/am d64" };
	check_platform("linux/amd64", "{\"os\":\"linux\",\"architecture\":\"amd64\"}", true);
	check_platform("linux/amd64", "{\"os\":\"windows\",\"architecture\":\"amd64\"}", false);
	check_platform("linux/amd64", "{\"os\":\"linux\",\"architecture\":\"arm64\"}", false);
	check_platform("linux/amd64", "{\"os\":\"linux\"}", false);
	check_platform("linux/amd64", "{\"os\":1,\"architecture\":2}", false);
	check_platform("linux/arm64", "{\"os\":\"linux\",\"architecture\":\"arm64\",\"variant\":\"v8\"}", true);
	check_platform("linux/arm64/v8", "{\"os\":\"linux\",\"architecture\":\"arm64\"}", true);
	check_platform("linux/arm64/v9", "{\"os\":\"linux\",\"architecture\":\"arm64\"}", false);
	check_platform("linux/arm/v7", "{\"os\":\"linux\",\"architecture\":\"arm\"}", true);
	check_platform("linux/arm/v6", "{\"os\":\"linux\",\"architecture\":\"arm\",\"variant\":\"v7\"}", false);
	check_platform("linux/arm", "{\"os\":\"linux\",\"architecture\":\"arm\",\"variant\":\"v6\"}", true);
	for (size_t i = 0; i < ELEMENTS(bad); i++) {
		Platform platform;
		Error error = { 0 };
		assert_int_equal(platform_parse(bad[i], &platform, &error), -EINVAL);
		assert_non_null(strstr(error.message, "OS/ARCHITECTURE"));
	}
	char long_part[100];
	Platform platform;
	memset(long_part, 'a', 99);
	long_part[40] = '/';
	long_part[99] = '\0';
	assert_int_equal(platform_parse(long_part, &platform, NULL), -EINVAL);
	platform_of_machine(&platform);
	assert_string_equal(platform.os, "linux");
	assert_int_not_equal(platform.architecture[0], '\0');
	assert_int_equal(platform_check_config(&platform, "x", 1, NULL), -EBADMSG);
}

/* What registries and other clients may add or leave out. */
static void test_tolerant(void **state)
{
	(void)state;
	static const char *const texts[] = {
		" {\n \"layers\": [" LAYER "], \"config\": " CONFIG
		", \"schemaVersion\": 2, \"other\": [1.5, null] }\n",
		"{\"schemaVersion\":2,\"mediaType\":\"application/"
		"vnd.docker.distribution.manifest.v2+json\",\"config\":"
		"{\"mediaType\":\"application/vnd.docker.container.image.v1+json\",\"digest\":\"" D0
		"\",\"size\":1},\"layers\":[" LAYER "]}",
		HEAD CONFIG ",\"layers\":[]}",
	};
	for (size_t i = 0; i < ELEMENTS(texts); i++) {
		_cleanup_(manifest_done) Manifest manifest = { 0 };
		Error error = { 0 };
		if (manifest_parse(texts[i], strlen(texts[i]), &manifest, &error) < 0)
			fail_msg("%s", error.message);
	}
}

/* GOOD with `from` replaced by `to`. */
static const struct {
	const char *from;
	const char *to;
	int code;
	const char *sentence;
} changes[] = {
	{ "{\"schema", "[\"schema", -EBADMSG, "not JSON" },
	{ "]}", "]}x", -EBADMSG, "not JSON" },
	{ "\"schemaVersion\":2", "\"schemaVersion\":2,\"schemaVersion\":2", -EBADMSG, "duplicate" },
	{ "\"schemaVersion\":2", "\"a\":2", -EBADMSG, "no schemaVersion" },
	{ "\"schemaVersion\":2", "\"schemaVersion\":\"2\"", -EBADMSG, "no schemaVersion" },
	{ "\"schemaVersion\":2", "\"schemaVersion\":1", -EPROTONOSUPPORT, "schema version 1" },
	{ "image.manifest.v1", "image.index.v1", -ENODATA, "not an image manifest" },
	{ "\"application/vnd.oci.image.manifest.v1+json\"", "7", -EBADMSG, "not an image manifest" },
	{ "\"config\":{", "\"c\":{", -EBADMSG, "no object \"config\"" },
	{ "image.config.v1", "empty.v1", -EBADMSG, "config of the manifest is of type" },
	{ D0, "sha512:00", -EBADMSG, "config of the manifest has no sha256 digest" },
	{ "\"size\":123", "\"size\":-1", -EBADMSG, "config of the manifest has no size" },
	{ "\"size\":123", "\"size\":1.5", -EBADMSG, "config of the manifest has no size" },
	{ "\"size\":123", "\"size\":4194305", -EBADMSG, "the image config takes 4194305 bytes" },
	{ "\"size\":123", "\"size\":9223372036854775808", -EBADMSG, "not JSON" },
	{ "\"layers\"", "\"l\"", -EBADMSG, "no array \"layers\"" },
	{ "[{", "[1,{", -EBADMSG, "layer 0 of the manifest is not an object" },
	{ "\"annotations\"", "\"a\"", -ENODATA, "layer 0 of the manifest has no imgfs annotations" },
	{ KEY "version", KEY "v", -ENODATA, "has no imgfs annotations" },
	{ "\"1\"", "1", -ENODATA, "has no imgfs annotations" },
	{ "\"1\"", "\"2\"", -EPROTONOSUPPORT, "imgfs format version \"2\"" },
	{ "layer.v1.tar", "layer.v1.tar+gzip", -EBADMSG, "layer 0 of the manifest is of type" },
	{ D1, "", -EBADMSG, "layer 0 of the manifest has no sha256 digest" },
	{ "\"size\":400000", "\"s\":400000", -EBADMSG, "layer 0 of the manifest has no size" },
	{ D2, "sha256:0200", -EBADMSG, KEY "blob.digest is not a sha256 digest" },
	{ KEY "blob.digest", "x", -EBADMSG, KEY "blob.digest is not a sha256 digest" },
	{ KEY "blob.size", "x", -EBADMSG, KEY "blob.size is not a decimal" },
	{ "\"100144\"", "100144", -EBADMSG, KEY "blob.size is not a decimal" },
	{ "\"100144\"", "\"0100144\"", -EBADMSG, KEY "blob.size is not a decimal" },
	{ "\"100144\"", "\"+100144\"", -EBADMSG, KEY "blob.size is not a decimal" },
	{ "\"100144\"", "\"100144 \"", -EBADMSG, KEY "blob.size is not a decimal" },
	{ "\"100144\"", "\"\"", -EBADMSG, KEY "blob.size is not a decimal" },
	{ "\"100144\"", "\"9223372036854775808\"", -EBADMSG, KEY "blob.size is not a decimal" },
	{ "\"100144\"", "\"18446744073709551717\"", -EBADMSG, KEY "blob.size is not a decimal" },
	{ "\"90000\"", "\"-1\"", -EBADMSG, KEY "index.offset is not a decimal" },
	{ "\"10000\"", "\"x\"", -EBADMSG, KEY "index.size is not a decimal" },
	{ D3, "", -EBADMSG, KEY "index.digest is not a sha256 digest" },
	{ "\"100144\"", "\"100145\"", -EBADMSG, "does not fit" },
	{ "\"100144\"", "\"143\"", -EBADMSG, "does not fit" },
	{ "\"90000\"", "\"90001\"", -EBADMSG, "does not fit" },
	{ "\"10000\"", "\"8\"", -EBADMSG, "does not fit" },
	{ "\"10000\"", "\"9223372036854775807\"", -EBADMSG, "does not fit" },
};

static char *replaced(const char *text, const char *from, const char *to)
{
	const char *at = strstr(text, from);
	char *result = NULL;
	if (!at || asprintf(&result, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from)) < 0)
		fail_msg("no \"%s\"", from);
	return result;
}

static void test_refused(void **state)
{
	(void)state;
	size_t failures = 0;
	for (size_t i = 0; i < ELEMENTS(changes); i++) {
		_cleanup_(manifest_done) Manifest manifest = { 0 };
		_cleanup_free_ char *text = replaced(GOOD, changes[i].from, changes[i].to);
		Error error = { 0 };
		int r = manifest_parse(text, strlen(text), &manifest, &error);
		if (r == changes[i].code && strstr(error.message, changes[i].sentence))
			continue;
		print_error("row %zu: wanted %d \"%s\", got %d \"%s\"\n", i, changes[i].code, changes[i].sentence, r,
			    error.message);
		failures++;
	}
	assert_int_equal(failures, 0);
}

static void test_limits(void **state)
{
	(void)state;
	_cleanup_(manifest_done) Manifest manifest = { 0 }, back = { 0 };
	_cleanup_free_ char *json = NULL, *spaces = calloc(1, MANIFEST_SIZE_MAX + 1);
	size_t size;
	Error error = { 0 };
	manifest.layer_count = MANIFEST_LAYERS_MAX + 1;
	manifest.layers = calloc(manifest.layer_count, sizeof(*manifest.layers));
	assert_non_null(manifest.layers);
	for (size_t i = 0; i < manifest.layer_count; i++)
		manifest.layers[i] = (ManifestLayer){ .blob_size = 10000 + FORMAT_FOOTER_SIZE, .index_size = 10000 };
	assert_int_equal(manifest_encode(&manifest, &json, &size), 0);
	assert_int_equal(manifest_parse(json, size, &back, &error), -EBADMSG);
	assert_non_null(strstr(error.message, "1025 layers"));
	free(json);
	manifest.layer_count--;
	assert_int_equal(manifest_encode(&manifest, &json, &size), 0);
	assert_int_equal(manifest_parse(json, size, &back, NULL), 0);
	assert_int_equal(back.layer_count, MANIFEST_LAYERS_MAX);

	_cleanup_(manifest_done) Manifest none = { 0 };
	assert_int_equal(manifest_parse(spaces, MANIFEST_SIZE_MAX + 1, &none, &error), -EBADMSG);
	assert_non_null(strstr(error.message, "4194305 bytes"));
	assert_int_equal(manifest_parse("", 0, &none, &error), -EBADMSG);
	assert_int_equal(manifest_parse("[]", 2, &none, &error), -EBADMSG);
	assert_non_null(strstr(error.message, "not a JSON object"));
}

static void test_diff_ids(void **state)
{
	(void)state;
	const char good[] = "{\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"" D1 "\",\"" D2 "\"]},\"os\":\"linux\"}";
	const char none[] = "{\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[]}}";
	static const char *const bad[] = {
		"{",
		"[]",
		"{}",
		"{\"rootfs\":[]}",
		"{\"rootfs\":{\"diff_ids\":[]}}",
		"{\"rootfs\":{\"type\":\"other\",\"diff_ids\":[]}}",
		"{\"rootfs\":{\"type\":\"layers\"}}",
		"{\"rootfs\":{\"type\":\"layers\",\"diff_ids\":{}}}",
		"{\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[1]}}",
		"{\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"sha256:00\"]}}",
	};
	_cleanup_free_ Digest *diff_ids = NULL;
	size_t count;
	assert_int_equal(manifest_config_diff_ids(good, strlen(good), &diff_ids, &count, NULL), 0);
	assert_int_equal(count, 2);
	assert_int_equal(diff_ids[1].bytes[0], 2);
	_cleanup_free_ Digest *empty = NULL;
	assert_int_equal(manifest_config_diff_ids(none, strlen(none), &empty, &count, NULL), 0);
	assert_int_equal(count, 0);
	for (size_t i = 0; i < ELEMENTS(bad); i++) {
		_cleanup_free_ Digest *nothing = NULL;
		Error error = { 0 };
		assert_int_equal(manifest_config_diff_ids(bad[i], strlen(bad[i]), &nothing, &count, &error), -EBADMSG);
		assert_int_not_equal(error.message[0], '\0');
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse),       cmocka_unit_test(test_encode),    cmocka_unit_test(test_tolerant),
		cmocka_unit_test(test_refused),     cmocka_unit_test(test_limits),    cmocka_unit_test(test_diff_ids),
		cmocka_unit_test(test_encode_from), cmocka_unit_test(test_platforms),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
