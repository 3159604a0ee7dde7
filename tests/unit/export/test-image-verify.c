/* One bit that rots in any file is found, named, and told once. */
#include "tools/export/image-verify.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "tests/unit/export/image-fixture.h"
#include "tests/unit/export/tar-builder.h"

typedef struct Found {
	int count;
	VerifyFault last;
	Digest object;
	char what[512];
	uint64_t read;
} Found;

static void on_fault(void *arg, const VerifyFault *fault)
{
	Found *found = arg;
	found->count++;
	found->last = *fault;
	if (fault->object)
		found->object = *fault->object;
	(void)snprintf(found->what, sizeof(found->what), "%s", fault->what);
	assert_string_equal(fault->image, "whisk/invoker:v1");
}

static void on_progress(void *arg, uint64_t bytes)
{
	((Found *)arg)->read += bytes;
}

typedef struct VerifyFixture {
	StoreFixture store;
	Buffer tars[2];
	StoreImage image;
} VerifyFixture;

static void open_fixture(VerifyFixture *fixture)
{
	*fixture = (VerifyFixture){ 0 };
	store_fixture_open(&fixture->store);
	for (uint32_t i = 0; i < 2; i++)
		store_fixture_tar(&fixture->tars[i], (uint32_t[]){ i, i + 7 }, 2);
	image_fixture_put(&fixture->store, fixture->tars, 2, "whisk/invoker", "v1", &fixture->image);
}

static void close_fixture(VerifyFixture *fixture)
{
	for (size_t i = 0; i < 2; i++)
		buffer_done(&fixture->tars[i]);
	store_image_done(&fixture->image);
	store_fixture_close(&fixture->store);
}

static VerifyCounts verify(const VerifyFixture *fixture, Found *found)
{
	VerifyHooks hooks = { .fault = on_fault, .progress = on_progress, .arg = found };
	_cleanup_(verify_free_p) Verify *run = NULL;
	Error error = { 0 };
	*found = (Found){ 0 };
	assert_int_equal(verify_new(fixture->store.store, &hooks, &run), 0);
	int r = verify_image(run, "whisk/invoker:v1", &error);
	if (r < 0)
		fail_msg("verify: %s", error_text(&error, r));
	VerifyCounts counts = verify_counts(run);
	assert_int_equal(counts.faults, found->count);
	return counts;
}

/* Exactly one fault, that says `words` of the layer. */
static void expect_fault(const VerifyFixture *fixture, uint32_t layer, const char *words, Found *found)
{
	(void)verify(fixture, found);
	if (found->count != 1)
		fail_msg("%d faults instead of one \"%s\"; the last: %s", found->count, words, found->what);
	if (!strstr(found->what, words))
		fail_msg("\"%s\" does not say \"%s\"", found->what, words);
	assert_int_equal(found->last.layer, layer);
}

static void flip_and_expect(const VerifyFixture *fixture, const char *name, long offset, uint32_t layer,
			    const char *words, Found *found)
{
	char path[256];
	(void)snprintf(path, sizeof(path), "%s", name);
	image_fixture_flip(&fixture->store, path, offset);
	expect_fault(fixture, layer, words, found);
	image_fixture_flip(&fixture->store, path, offset);
}

static void test_whole(void **state _unused_)
{
	VerifyFixture fixture;
	Found found;
	open_fixture(&fixture);
	const ManifestLayer *layers = fixture.image.manifest.layers;
	VerifyCounts counts = verify(&fixture, &found);
	assert_int_equal(found.count, 0);
	assert_int_equal(counts.images, 1);
	assert_int_equal(counts.layers, 2);
	assert_true(counts.chunks > 10);
	assert_int_equal(counts.tar_bytes, fixture.tars[0].size + fixture.tars[1].size);
	assert_int_equal(counts.blob_bytes, layers[0].blob_size + layers[1].blob_size);
	assert_int_equal(found.read, layers[0].index_offset + layers[1].index_offset);
	close_fixture(&fixture);
}

/* Layers that images share are read once. */
static void test_shared(void **state _unused_)
{
	VerifyFixture fixture;
	Error error = { 0 };
	Found found = { 0 };
	VerifyHooks hooks = { .fault = on_fault, .arg = &found };
	_cleanup_(verify_free_p) Verify *run = NULL;
	open_fixture(&fixture);
	assert_int_equal(
		store_tag_put(fixture.store.store, "other", "v2", fixture.image.json, fixture.image.json_size, &error),
		0);
	assert_int_equal(verify_new(fixture.store.store, &hooks, &run), 0);
	assert_int_equal(verify_estimate(run, "other:v2"),
			 fixture.image.manifest.layers[0].blob_size + fixture.image.manifest.layers[1].blob_size);
	assert_int_equal(verify_estimate(run, "none"), 0);
	assert_int_equal(verify_image(run, "whisk/invoker:v1", &error), 0);
	assert_int_equal(verify_image(run, "other:v2", &error), 0);
	assert_int_equal(verify_counts(run).images, 2);
	assert_int_equal(verify_counts(run).layers, 2);
	assert_int_equal(verify_image(run, "none", &error), -ENOENT);
	assert_non_null(strstr(error.message, "imgfs ls"));
	assert_int_equal(verify_image(run, "No:ne", &error), -EINVAL);
	close_fixture(&fixture);
}

static void test_blob(void **state _unused_)
{
	VerifyFixture fixture;
	Found found;
	char blob[128];
	open_fixture(&fixture);
	const ManifestLayer *layer = &fixture.image.manifest.layers[1];
	(void)snprintf(blob, sizeof(blob), "%s", image_fixture_object("blobs/sha256", &layer->blob));

	flip_and_expect(&fixture, blob, 100000, 2, "the SHA-256 of its frame is another", &found);
	assert_true(found.last.chunk >= 0 && found.last.offset <= 100000);
	flip_and_expect(&fixture, blob, (long)layer->index_offset + 50, 2, "its index at offset", &found);
	assert_int_equal(found.last.chunk, -1);
	/* Magic, sum, and a field of the footer. */
	flip_and_expect(&fixture, blob, -144, 2, "does not end in an imgfs footer", &found);
	flip_and_expect(&fixture, blob, -1, 2, "footer of the blob is rotten", &found);
	flip_and_expect(&fixture, blob, -100, 2, "footer of the blob is rotten", &found);

	/* Both a frame and the footer: two faults. */
	image_fixture_flip(&fixture.store, blob, 10);
	image_fixture_flip(&fixture.store, blob, -1);
	(void)verify(&fixture, &found);
	assert_int_equal(found.count, 2);
	image_fixture_flip(&fixture.store, blob, 10);
	image_fixture_flip(&fixture.store, blob, -1);

	assert_int_equal(truncate(store_fixture_path(&fixture.store, blob), 1000), 0);
	expect_fault(&fixture, 2, "it is 1000 bytes long instead of", &found);
	assert_int_equal(unlink(store_fixture_path(&fixture.store, blob)), 0);
	expect_fault(&fixture, 2, "the store does not hold it", &found);
	close_fixture(&fixture);
}

static void test_records(void **state _unused_)
{
	VerifyFixture fixture;
	Found found;
	char path[128];
	open_fixture(&fixture);
	const ManifestLayer *layer = &fixture.image.manifest.layers[0];
	(void)snprintf(path, sizeof(path), "%s", image_fixture_object("layers", &layer->diff_id));
	flip_and_expect(&fixture, path, 0, 1, "the record layers/", &found);
	_cleanup_close_ int fd = open(store_fixture_path(&fixture.store, path), O_RDONLY | O_CLOEXEC);
	char text[2048];
	ssize_t length = read(fd, text, sizeof(text) - 1);
	assert_true(length > 0);
	text[length] = '\0';
	const char *number = strstr(text, "\"tarSize\": ");
	assert_non_null(number);
	flip_and_expect(&fixture, path, number - text + 12, 1, "record contradicts the manifest", &found);
	assert_int_equal(unlink(store_fixture_path(&fixture.store, path)), 0);
	expect_fault(&fixture, 1, "does not hold layer", &found);
	close_fixture(&fixture);
}

static void test_frame_list(void **state _unused_)
{
	VerifyFixture fixture;
	Found found;
	char path[128];
	open_fixture(&fixture);
	(void)snprintf(path, sizeof(path), "%s",
		       image_fixture_object("frames", &fixture.image.manifest.layers[0].blob));
	struct stat status;
	assert_int_equal(stat(store_fixture_path(&fixture.store, path), &status), 0);
	size_t size = (size_t)status.st_size / 8 * 32;
	store_fixture_write(&fixture.store, path, "short", 5);
	expect_fault(&fixture, 1, "list of frames is of another length", &found);

	/* Builds of before had 32 bytes a chunk. */
	uint8_t *old = calloc(1, size + 1);
	assert_non_null(old);
	store_fixture_write(&fixture.store, path, old, size);
	(void)verify(&fixture, &found);
	assert_int_equal(found.count, 0);
	store_fixture_write(&fixture.store, path, old, size + 1);
	free(old);
	expect_fault(&fixture, 1, "list of frames is of another length", &found);
	assert_int_equal(unlink(store_fixture_path(&fixture.store, path)), 0);
	expect_fault(&fixture, 1, "list of frames is missing", &found);
	close_fixture(&fixture);
}

static void test_documents(void **state _unused_)
{
	VerifyFixture fixture;
	Found found;
	char path[128];
	open_fixture(&fixture);
	const Manifest *manifest = &fixture.image.manifest;
	(void)snprintf(path, sizeof(path), "%s", image_fixture_object("blobs/sha256", &manifest->config));
	flip_and_expect(&fixture, path, 10, 0, "the SHA-256 of the config is another", &found);
	assert_true(digest_equal(&found.object, &manifest->config));
	(void)snprintf(path, sizeof(path), "%s", image_fixture_object("blobs/sha256", &fixture.image.digest));
	flip_and_expect(&fixture, path, 10, 0, "the SHA-256 of the manifest is another", &found);
	/* In a value that nobody reads: still JSON, still a manifest, but not the store's. */
	const char *value = strstr(fixture.image.json, "\"size\":");
	assert_non_null(value);
	image_fixture_flip(&fixture.store, "repositories/whisk/invoker/_manifests/v1", value - fixture.image.json + 7);
	(void)verify(&fixture, &found);
	assert_true(found.count >= 1);
	image_fixture_flip(&fixture.store, "repositories/whisk/invoker/_manifests/v1", value - fixture.image.json + 7);
	image_fixture_flip(&fixture.store, "repositories/whisk/invoker/_manifests/v1", 0);
	(void)verify(&fixture, &found);
	assert_int_equal(found.count, 2); /* no manifest of the store, and none at all */
	image_fixture_flip(&fixture.store, "repositories/whisk/invoker/_manifests/v1", 0);

	assert_int_equal(unlink(store_fixture_path(&fixture.store, path)), 0);
	expect_fault(&fixture, 0, "no manifest of the store", &found);
	close_fixture(&fixture);
}

/* Each part is right by its digest, but config and layers do not belong together. */
static void test_wrong_layers(void **state _unused_)
{
	VerifyFixture fixture;
	Found found;
	Error error = { 0 };
	_cleanup_free_ char *json = NULL;
	size_t size;
	Digest digest;
	open_fixture(&fixture);
	Manifest wrong = fixture.image.manifest;
	wrong.layer_count = 1;
	assert_int_equal(manifest_encode(&wrong, &json, &size), 0);
	assert_int_equal(store_blob_put(fixture.store.store, json, size, &digest, &error), 0);
	assert_int_equal(store_tag_put(fixture.store.store, "whisk/invoker", "v1", json, size, &error), 0);
	expect_fault(&fixture, 0, "diffIDs of the config are not the layers", &found);
	close_fixture(&fixture);
}

/* An empty tar has no chunks. */
static void test_empty_layer(void **state _unused_)
{
	StoreFixture store;
	StoreImage image;
	Buffer tar = { 0 };
	Found found = { 0 };
	Error error = { 0 };
	VerifyHooks hooks = { .fault = on_fault, .arg = &found };
	_cleanup_(verify_free_p) Verify *run = NULL;
	store_fixture_open(&store);
	image_fixture_put(&store, &tar, 1, "whisk/invoker", "v1", &image);
	assert_int_equal(image.manifest.layers[0].tar_size, 0);
	assert_int_equal(verify_new(store.store, &hooks, &run), 0);
	assert_int_equal(verify_image(run, "whisk/invoker:v1", &error), 0);
	assert_int_equal(found.count, 0);
	assert_int_equal(verify_counts(run).layers, 1);
	store_image_done(&image);
	store_fixture_close(&store);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_whole),        cmocka_unit_test(test_shared),
		cmocka_unit_test(test_blob),         cmocka_unit_test(test_records),
		cmocka_unit_test(test_frame_list),   cmocka_unit_test(test_documents),
		cmocka_unit_test(test_wrong_layers), cmocka_unit_test(test_empty_layer),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
