/* Who may be in the store together, and what is taken out of it. */
#include "tools/export/store-gc.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "fs/base/fd.h"
#include "tests/unit/export/image-fixture.h"
#include "tools/export/store-lock.h"

static void count_call(void *arg)
{
	++*(int *)arg;
}

static void test_lock(void **state _unused_)
{
	StoreFixture fixture;
	StoreCollector collector = STORE_COLLECTOR_NULL;
	Error error = { 0 };
	int first = -1, second = -1, waits = 0;
	store_fixture_open(&fixture);
	assert_int_equal(store_hold(fixture.store, &first, &error), 0);
	assert_int_equal(store_hold(fixture.store, &second, &error), 0);
	assert_int_equal(store_collector_enter(fixture.store, 0, NULL, NULL, &collector, &error), -EBUSY);
	assert_non_null(strstr(error.message, "in use"));
	(void)close(second);
	assert_int_equal(store_collector_enter(fixture.store, 1, count_call, &waits, &collector, &error), -EBUSY);
	assert_int_equal(waits, 1);
	(void)close(first);
	assert_int_equal(store_collector_enter(fixture.store, 0, count_call, &waits, &collector, &error), 0);
	assert_int_equal(waits, 1);
	StoreCollector other = STORE_COLLECTOR_NULL;
	assert_int_equal(store_collector_enter(fixture.store, 0, NULL, NULL, &other, &error), -EBUSY);
	store_collector_leave(&collector);
	store_collector_leave(&collector);
	assert_int_equal(store_hold(fixture.store, &first, &error), 0);
	(void)close(first);
	store_fixture_close(&fixture);
}

/* Somebody who wants to hold the store comes in when the collector has left; one who died holds nothing. */
static void test_lock_between_processes(void **state _unused_)
{
	StoreFixture fixture;
	StoreCollector collector = STORE_COLLECTOR_NULL;
	Error error = { 0 };
	int ends[2], status;
	char byte;
	store_fixture_open(&fixture);
	assert_int_equal(store_collector_enter(fixture.store, 0, NULL, NULL, &collector, &error), 0);
	assert_int_equal(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
	pid_t child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		int hold = -1;
		store_collector_leave(&collector); /* its copy of the descriptors; the parent's keep the locks */
		_exit(write(ends[1], "a", 1) == 1 && store_hold(fixture.store, &hold, NULL) == 0 &&
				      write(ends[1], "b", 1) == 1
			      ? 0
			      : 1);
	}
	while (read(ends[0], &byte, 1) != 1)
		;
	assert_int_equal(byte, 'a');
	assert_int_equal(read(ends[0], &byte, 1), -1);
	assert_int_equal(errno, EAGAIN);
	store_collector_leave(&collector);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	assert_int_equal(read(ends[0], &byte, 1), 1);
	assert_int_equal(byte, 'b');
	(void)close(ends[0]);
	(void)close(ends[1]);
	assert_int_equal(store_collector_enter(fixture.store, 0, NULL, NULL, &collector, &error), 0);
	store_collector_leave(&collector);
	store_fixture_close(&fixture);
}

/* Three layers in two images that share one of them. */
typedef struct TwoImages {
	StoreFixture fixture;
	Buffer tars[3];
	StoreImage first, second;
} TwoImages;

static void open_images(TwoImages *images)
{
	*images = (TwoImages){ 0 };
	store_fixture_open(&images->fixture);
	for (uint32_t i = 0; i < 3; i++)
		store_fixture_tar(&images->tars[i], &i, 1);
	image_fixture_put(&images->fixture, images->tars, 2, "a/one", "v1", &images->first);
	image_fixture_put(&images->fixture, images->tars + 1, 2, "b", "v1", &images->second);
}

static void close_images(TwoImages *images)
{
	for (size_t i = 0; i < 3; i++)
		buffer_done(&images->tars[i]);
	store_image_done(&images->first);
	store_image_done(&images->second);
	store_fixture_close(&images->fixture);
}

static StoreGcResult collect(const TwoImages *images, bool dry_run)
{
	StoreGcOptions options = { .dry_run = dry_run };
	StoreGcResult result;
	Error error = { 0 };
	int r = store_gc(images->fixture.store, &options, &result, &error);
	if (r < 0)
		fail_msg("gc: %s", error_text(&error, r));
	return result;
}

static void test_nothing_to_do(void **state _unused_)
{
	TwoImages images;
	open_images(&images);
	StoreGcResult result = collect(&images, false);
	assert_int_equal(result.manifests + result.layers + result.blobs + result.frame_lists + result.bytes, 0);
	assert_int_equal(result.kept_tags, 2);
	assert_int_equal(result.kept_blobs, 7);
	assert_int_equal(store_fixture_count(&images.fixture, "blobs/sha256"), 7);
	close_images(&images);
}

static void test_collect(void **state _unused_)
{
	TwoImages images;
	Error error = { 0 };
	open_images(&images);
	const StoreFixture *fixture = &images.fixture;
	const ManifestLayer *gone = &images.first.manifest.layers[0], *shared = &images.first.manifest.layers[1];
	uint64_t size, bytes = gone->blob_size + images.first.json_size + images.first.manifest.config_size;
	_cleanup_close_ int fd = -1;
	char head[16], again[16];
	store_fixture_write(fixture, "tmp/left-by-a-crash", "x", 1);
	store_fixture_write(fixture, "blobs/sha256/not-a-digest", "x", 1);
	assert_int_equal(store_blob_open(fixture->store, &gone->blob, &fd, &size), 0);
	assert_int_equal(fd_pread_all(fd, head, sizeof(head), 0), 0);
	assert_int_equal(store_tag_remove(fixture->store, "a/one", "v1", &error), 0);
	assert_int_equal(store_tag_remove(fixture->store, "a/one", "v1", &error), -ENOENT);
	assert_non_null(strstr(error.message, "a/one:v1"));

	StoreGcResult dry = collect(&images, true);
	assert_int_equal(store_fixture_count(fixture, "blobs/sha256"), 8);
	assert_true(image_fixture_exists(fixture, "tmp/left-by-a-crash"));
	StoreGcResult result = collect(&images, false);
	assert_memory_equal(&result, &dry, sizeof(result));
	assert_int_equal(result.manifests, 1);
	assert_int_equal(result.layers, 1);
	assert_int_equal(result.frame_lists, 1);
	assert_int_equal(result.blobs, 2);
	assert_true(result.bytes > bytes && result.bytes < bytes + 10000);
	assert_int_equal(result.kept_tags, 1);

	assert_false(image_fixture_exists(fixture, image_fixture_object("blobs/sha256", &gone->blob)));
	assert_false(image_fixture_exists(fixture, image_fixture_object("frames", &gone->blob)));
	assert_false(image_fixture_exists(fixture, image_fixture_object("layers", &gone->diff_id)));
	assert_false(image_fixture_exists(fixture, image_fixture_object("blobs/sha256", &images.first.digest)));
	assert_true(image_fixture_exists(fixture, image_fixture_object("blobs/sha256", &shared->blob)));
	assert_true(image_fixture_exists(fixture, image_fixture_object("frames", &shared->blob)));
	assert_true(image_fixture_exists(fixture, image_fixture_object("layers", &shared->diff_id)));
	assert_false(image_fixture_exists(fixture, "tmp/left-by-a-crash"));
	assert_false(image_fixture_exists(fixture, "repositories/a"));
	assert_true(image_fixture_exists(fixture, "repositories/b/_manifests/v1"));
	assert_true(image_fixture_exists(fixture, "blobs/sha256/not-a-digest"));
	/* Whoever had it open goes on. */
	assert_int_equal(fd_pread_all(fd, again, sizeof(again), 0), 0);
	assert_memory_equal(head, again, sizeof(head));
	assert_int_equal(collect(&images, false).bytes, 0);
	close_images(&images);
}

/* A manifest that only its digest leads to goes; so does one that the tag meant before. */
static void test_moved_tag(void **state _unused_)
{
	TwoImages images;
	Error error = { 0 };
	open_images(&images);
	assert_int_equal(
		store_tag_put(images.fixture.store, "b", "v1", images.first.json, images.first.json_size, &error), 0);
	StoreGcResult result = collect(&images, false);
	assert_int_equal(result.manifests, 1);
	assert_int_equal(result.layers, 1);
	assert_false(
		image_fixture_exists(&images.fixture, image_fixture_object("blobs/sha256", &images.second.digest)));
	close_images(&images);
}

/* What a damaged tag keeps is not known. */
static void test_damaged_tag(void **state _unused_)
{
	TwoImages images;
	Error error = { 0 };
	StoreGcOptions options = { 0 };
	StoreGcResult result;
	open_images(&images);
	Store *store = images.fixture.store;
	assert_int_equal(store_tag_remove(store, "a/one", "v1", &error), 0);
	image_fixture_flip(&images.fixture, "repositories/b/_manifests/v1", 5);
	assert_int_equal(store_gc(store, &options, &result, &error), -EBADMSG);
	assert_non_null(strstr(error.message, "imgfs rm b:v1"));
	assert_int_equal(store_fixture_count(&images.fixture, "blobs/sha256"), 7);
	image_fixture_flip(&images.fixture, "repositories/b/_manifests/v1", 5);

	/* Good bytes, but not of this store. */
	assert_int_equal(store_tag_put(store, "b", "v2", "{}", 2, &error), 0);
	assert_int_equal(store_gc(store, &options, &result, &error), -EBADMSG);
	assert_int_equal(store_tag_remove(store, "b", "v2", &error), 0);
	assert_int_equal(store_gc(store, &options, &result, &error), 0);
	assert_int_equal(result.layers, 1);
	close_images(&images);
}

/* A record of a layer in use keeps its blob, though the manifest names another. */
static void test_two_blobs_of_a_layer(void **state _unused_)
{
	static const char other[] = "another blob";
	TwoImages images;
	Error error = { 0 };
	Digest digest;
	char record[1024], diff_id[DIGEST_TEXT_SIZE], blob[DIGEST_TEXT_SIZE];
	open_images(&images);
	assert_int_equal(store_blob_put(images.fixture.store, other, sizeof(other), &digest, &error), 0);
	digest_text(&images.first.manifest.layers[0].diff_id, diff_id);
	digest_text(&digest, blob);
	int length = snprintf(record, sizeof(record),
			      "{\"diffID\":\"%s\",\"tarSize\":1,\"blob\":\"%s\",\"blobSize\":1000,\"indexOffset\":1,"
			      "\"indexSize\":855,\"index\":\"%s\"}",
			      diff_id, blob, blob);
	store_fixture_write(&images.fixture, image_fixture_object("layers", &images.first.manifest.layers[0].diff_id),
			    record, (size_t)length);
	assert_int_equal(collect(&images, false).bytes, 0);
	assert_int_equal(store_fixture_count(&images.fixture, "blobs/sha256"), 8);
	assert_int_equal(store_tag_remove(images.fixture.store, "a/one", "v1", &error), 0);
	assert_int_equal(collect(&images, false).blobs, 3);
	close_images(&images);
}

static void test_held(void **state _unused_)
{
	TwoImages images;
	Error error = { 0 };
	StoreGcOptions options = { 0 };
	StoreGcResult result;
	int hold = -1;
	open_images(&images);
	assert_int_equal(store_hold(images.fixture.store, &hold, &error), 0);
	assert_int_equal(store_gc(images.fixture.store, &options, &result, &error), -EBUSY);
	(void)close(hold);
	assert_int_equal(store_gc(images.fixture.store, &options, &result, &error), 0);
	close_images(&images);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lock),
		cmocka_unit_test(test_lock_between_processes),
		cmocka_unit_test(test_nothing_to_do),
		cmocka_unit_test(test_collect),
		cmocka_unit_test(test_moved_tag),
		cmocka_unit_test(test_damaged_tag),
		cmocka_unit_test(test_two_blobs_of_a_layer),
		cmocka_unit_test(test_held),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
