/* What a cache gives to others: parts of what is there, the whole of what is sealed, and nothing that is wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "fs/base/fd.h"
#include "fs/fetch/fetch-pull.h"
#include "fs/fetch/fetch-seal.h"
#include "fs/fetch/fetch-share-index.h"
#include "fs/fetch/fetch-share.h"
#include "tests/fake/fake-server.h"
#include "tests/unit/fetch/blob-fixture.h"

#define LAYERS 2

typedef struct ShareFixture {
	BlobFixture layers[LAYERS];
	char *registry, *cache_path;
	FakeServer *server;
	CacheStore *cache;
	FetchShare *share;
	Reference reference;
	Digest manifest;
} ShareFixture;

static int set_up(void **state)
{
	ShareFixture *fixture = calloc(1, sizeof(*fixture));
	assert_non_null(fixture);
	fixture->registry = scratch_make();
	fixture->cache_path = scratch_make();
	for (uint32_t i = 0; i < LAYERS; i++) {
		blob_fixture_make(&fixture->layers[i], 5, 50000, i + 1);
		blob_fixture_publish(&fixture->layers[i], fixture->registry);
	}
	blob_fixture_publish_image(fixture->layers, LAYERS, fixture->registry, "v1", &fixture->manifest);
	assert_int_equal(fake_server_new(fixture->registry, &fixture->server), 0);
	assert_int_equal(cache_store_open(fixture->cache_path, true, &fixture->cache, NULL), 0);
	assert_int_equal(fetch_share_new(fixture->cache, &fixture->share), 0);
	char text[256];
	(void)snprintf(text, sizeof(text), "%s/app:v1", fake_server_host(fixture->server));
	assert_int_equal(reference_parse_remote(text, &fixture->reference, NULL), 0);
	*state = fixture;
	return 0;
}

static int tear_down(void **state)
{
	ShareFixture *fixture = *state;
	assert_null(fetch_share_free(fixture->share));
	assert_null(fake_server_free(fixture->server));
	assert_null(cache_store_free(fixture->cache));
	for (size_t i = 0; i < LAYERS; i++)
		blob_fixture_done(&fixture->layers[i]);
	scratch_remove(fixture->registry);
	scratch_remove(fixture->cache_path);
	free(fixture);
	return 0;
}

static void pull(ShareFixture *fixture, bool seal)
{
	FetchRemote remote = { .reference = &fixture->reference, .timeout = 10000, .cache = fixture->cache };
	FetchPullOptions options = { .timeout = 60000 };
	FetchImage image;
	assert_int_equal(fetch_image_remote(&remote, &image, NULL), 0);
	assert_int_equal(fetch_pull(&image, &options, NULL), 0);
	if (seal) {
		assert_int_equal(fetch_pull_verify(&image, &options, NULL), 0);
		assert_int_equal(fetch_seal_image(fixture->cache, &image, "app:v1", NULL), 0);
	}
	fetch_image_done(&image);
}

static void expect_whole(ShareFixture *fixture, const BlobFixture *layer, size_t step)
{
	FetchShareBlob *blob;
	assert_int_equal(fetch_share_blob_open(fixture->share, &layer->layer.blob, &blob), 0);
	assert_int_equal(fetch_share_blob_size(blob), layer->blob_size);
	uint8_t *bytes = calloc(1, layer->blob_size);
	assert_non_null(bytes);
	for (size_t at = 0; at < layer->blob_size; at += step) {
		size_t size = layer->blob_size - at < step ? layer->blob_size - at : step;
		assert_int_equal(fetch_share_blob_read(blob, at, size, bytes + at), 0);
	}
	assert_memory_equal(bytes, layer->blob, layer->blob_size);
	assert_int_equal(fetch_share_blob_read(blob, layer->blob_size - 1, 2, bytes), -ENODATA);
	free(bytes);
	assert_null(fetch_share_blob_close(blob));
}

static void test_whole(void **state)
{
	ShareFixture *fixture = *state;
	FetchShareBlob *blob;
	ManifestLayer layer;
	const BlobFixture *first = &fixture->layers[0];
	char *json;
	size_t size;
	pull(fixture, false);
	/* Nobody has proven that this is a layer. */
	assert_int_equal(fetch_share_blob_open(fixture->share, &first->layer.blob, &blob), -ENOENT);
	assert_int_equal(fetch_share_layer(fixture->share, &first->layer.diff_id, &layer), -ENOENT);
	pull(fixture, true);
	for (size_t i = 0; i < LAYERS; i++) {
		expect_whole(fixture, &fixture->layers[i], SIZE_MAX / 2);
		expect_whole(fixture, &fixture->layers[i], 1009);
		assert_int_equal(fetch_share_layer(fixture->share, &fixture->layers[i].layer.diff_id, &layer), 0);
		assert_true(digest_equal(&layer.blob, &fixture->layers[i].layer.blob));
		assert_int_equal(layer.tar_size, fixture->layers[i].layer.tar_size);
	}
	Digest config;
	assert_int_equal(digest_of(BLOB_FIXTURE_CONFIG, strlen(BLOB_FIXTURE_CONFIG), &config), 0);
	assert_int_equal(fetch_share_config(fixture->share, &config, &json, &size), 0);
	assert_int_equal(size, strlen(BLOB_FIXTURE_CONFIG));
	assert_memory_equal(json, BLOB_FIXTURE_CONFIG, size);
	free(json);
}

static void write_at(const ShareFixture *fixture, const BlobFixture *layer, const char *file, uint64_t at,
		     const void *data, size_t size)
{
	char path[PATH_MAX], hex[DIGEST_HEX_SIZE];
	(void)snprintf(path, sizeof(path), "%s/blobs/%s/%s", fixture->cache_path, digest_hex(&layer->layer.blob, hex),
		       file);
	_cleanup_close_ int fd = open(path, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(fd_pwrite_all(fd, data, size, at), 0);
}

/* Under a transfer that goes on: what it reads next fails, and nothing wrong is given. */
static void test_rot_under_a_transfer(void **state)
{
	ShareFixture *fixture = *state;
	const BlobFixture *layer = &fixture->layers[0];
	uint8_t byte;
	FetchShareBlob *blob;
	pull(fixture, true);
	assert_int_equal(fetch_share_blob_open(fixture->share, &layer->layer.blob, &blob), 0);
	uint64_t index = layer->layer.index_offset + layer->layer.index_size / 2;
	assert_int_equal(fetch_share_blob_read(blob, index, 1, &byte), 0);
	write_at(fixture, layer, "data", 10, "rot", 3);
	write_at(fixture, layer, "data", index, "rot", 3);
	assert_int_equal(fetch_share_blob_read(blob, index, 1, &byte), -ENODATA);
	assert_int_equal(fetch_share_blob_read(blob, 0, 1, &byte), -ENODATA);
	assert_int_equal(fetch_share_blob_read(blob, layer->blob_size - 1, 1, &byte), 0);
	assert_null(fetch_share_blob_close(blob));
}

static void test_evicted(void **state)
{
	ShareFixture *fixture = *state;
	FetchShareBlob *blob;
	static const uint8_t bits = 0x1e;
	pull(fixture, true);
	write_at(fixture, &fixture->layers[1], "present", 0, &bits, 1);
	assert_int_equal(fetch_share_blob_open(fixture->share, &fixture->layers[1].layer.blob, &blob), -ENOENT);
	expect_whole(fixture, &fixture->layers[0], 32768);
}

static void test_tags(void **state)
{
	ShareFixture *fixture = *state;
	Digest found, other = { .bytes = { 1 } };
	assert_int_equal(fetch_share_tag(fixture->share, "app", "v1", &found), -ENOENT);
	pull(fixture, false);
	assert_int_equal(fetch_share_tag(fixture->share, "app", "v1", &found), 0);
	assert_true(digest_equal(&found, &fixture->manifest));
	assert_int_equal(fetch_share_tag(fixture->share, "app", "v2", &found), -ENOENT);
	assert_int_equal(fetch_share_tag(fixture->share, "../app", "v1", &found), -ENOENT);
	Reference elsewhere = fixture->reference;
	(void)snprintf(elsewhere.host, sizeof(elsewhere.host), "another:5000");
	assert_int_equal(cache_store_tag_put(fixture->cache, &elsewhere, &fixture->manifest, NULL), 0);
	assert_int_equal(fetch_share_tag(fixture->share, "app", "v1", &found), 0);
	assert_int_equal(cache_store_tag_put(fixture->cache, &elsewhere, &other, NULL), 0);
	assert_int_equal(fetch_share_tag(fixture->share, "app", "v1", &found), -ENOTUNIQ);
}

static void set_time(const ShareFixture *fixture, time_t ago)
{
	char path[PATH_MAX];
	(void)snprintf(path, sizeof(path), "%s/manifests", fixture->cache_path);
	struct timespec times[2] = { { .tv_sec = time(NULL) - ago }, { .tv_sec = time(NULL) - ago } };
	assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

/* Asks until the index has looked again, which it does once a second. */
static int find_later(ShareIndex *index, const Digest *digest)
{
	int r = -ENOENT;
	for (int i = 0; i < 600 && r == -ENOENT; i++) {
		ManifestLayer *layers;
		size_t count;
		r = share_index_find(index, SHARE_BLOB, digest, &layers, &count);
		if (r == 0)
			free(layers);
		else
			(void)nanosleep(&(struct timespec){ .tv_nsec = 50000000 }, NULL);
	}
	return r;
}

/* Who asks for what nobody has makes nobody read; and what comes is found. */
static void test_unknown_digests(void **state)
{
	ShareFixture *fixture = *state;
	ShareIndex *index;
	ManifestLayer *layers;
	size_t count;
	Digest unknown = { 0 };
	pull(fixture, false);
	set_time(fixture, 60);
	assert_int_equal(share_index_new(fixture->cache, &index), 0);
	int64_t end = 1300; /* milliseconds: more than one look */
	struct timespec begin, now;
	(void)clock_gettime(CLOCK_MONOTONIC, &begin);
	do {
		unknown.bytes[0]++;
		assert_int_equal(share_index_find(index, SHARE_BLOB, &unknown, &layers, &count), -ENOENT);
		assert_int_equal(share_index_find(index, SHARE_DIFF_ID, &unknown, &layers, &count), -ENOENT);
		(void)clock_gettime(CLOCK_MONOTONIC, &now);
	} while ((now.tv_sec - begin.tv_sec) * 1000 + (now.tv_nsec - begin.tv_nsec) / 1000000 < end);
	assert_int_equal(share_index_reads(index), 1);
	assert_int_equal(share_index_find(index, SHARE_DIFF_ID, &fixture->layers[1].layer.diff_id, &layers, &count), 0);
	assert_int_equal(count, 1);
	assert_true(digest_equal(&layers[0].blob, &fixture->layers[1].layer.blob));
	free(layers);

	BlobFixture later;
	blob_fixture_make(&later, 1, 3000, 9);
	Manifest manifest = { .layer_count = 1, .layers = &later.layer, .config_size = 1 };
	char *json;
	size_t size;
	Digest digest;
	assert_int_equal(manifest_encode(&manifest, &json, &size), 0);
	assert_int_equal(digest_of(json, size, &digest), 0);
	assert_int_equal(cache_store_put(fixture->cache, CACHE_MANIFEST, &digest, json, size, NULL), 0);
	assert_int_equal(find_later(index, &later.layer.blob), 0);
	free(json);
	blob_fixture_done(&later);
	assert_null(share_index_free(index));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_whole, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_rot_under_a_transfer, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_evicted, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_tags, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_unknown_digests, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
