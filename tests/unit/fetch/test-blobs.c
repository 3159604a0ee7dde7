/* Blobs that come and go while their fetcher runs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "tests/unit/fetch/fetch-fixture.h"

#define CHUNKS   20u
#define PATIENCE 60000

static void start(FetchFixture *fixture)
{
	BlobFixture layer;
	blob_fixture_make(&layer, CHUNKS, CHUNK_SIZE, 1);
	fetch_fixture_start(fixture, &layer, 0);
}

/* The same blob once more, from nothing; it becomes the fixture's. Returns the one that was. */
static FetchBlob *add_again(FetchFixture *fixture)
{
	char url[256], text[DIGEST_TEXT_SIZE];
	FetchBlob *before = fixture->blob;
	(void)snprintf(url, sizeof(url), "http://%s/v2/app/blobs/%s", fake_server_host(fixture->server),
		       digest_text(&fixture->layer.layer.blob, text));
	fixture->cache = blob_fixture_cache(&fixture->layer, &fixture->data_fd, &fixture->present_fd);
	assert_int_equal(fetcher_add_blob(fixture->fetcher, fixture->cache, url, &fixture->blob), 0);
	return before;
}

static void test_added_while_it_runs(void **state _unused_)
{
	FetchFixture fixture;
	start(&fixture);
	assert_int_equal(fetch_and_compare(&fixture, 0, CHUNK_SIZE, PATIENCE), 0);
	FetchBlob *before = add_again(&fixture);
	assert_int_equal(fetch_and_compare(&fixture, 0, CHUNKS * CHUNK_SIZE, PATIENCE), 0);
	fetcher_remove_blob(before);
	assert_int_equal(fetch_and_compare(&fixture, 77, 3 * CHUNK_SIZE, PATIENCE), 0);
	fetch_fixture_stop(&fixture);
}

/* Its waits end, its transfers are cut; another blob's go on. */
static void test_removed_under_way(void **state _unused_)
{
	FetchFixture fixture;
	Pending pending[8], other;
	start(&fixture);
	fake_server_hold(fixture.server, true);
	for (uint32_t i = 0; i < ELEMENTS(pending); i++)
		pending_start(&pending[i], &fixture, i * 2, 2, PATIENCE);
	await_requests(&fixture, 1);
	FetchBlob *before = add_again(&fixture);
	pending_start(&other, &fixture, 3, 4, PATIENCE);
	fetcher_remove_blob(before);
	for (size_t i = 0; i < ELEMENTS(pending); i++)
		assert_int_equal(pending_end(&pending[i]), -ECANCELED);
	fake_server_hold(fixture.server, false);
	assert_int_equal(pending_end(&other), 0);
	fetch_fixture_stop(&fixture);
}

static void test_removed_after_the_end(void **state _unused_)
{
	FetchFixture fixture;
	start(&fixture);
	FetchBlob *before = add_again(&fixture);
	fetcher_stop(fixture.fetcher);
	fetcher_remove_blob(before);
	fetcher_remove_blob(fixture.blob);
	fetch_fixture_stop(&fixture);
}

/* What was asked for of it is given up, and nothing of it is looked at once the thread is there. */
static void test_removed_before_the_start(void **state _unused_)
{
	BlobFixture layer;
	FetchFixture fixture;
	Pending pending[4], other;
	blob_fixture_make(&layer, CHUNKS, CHUNK_SIZE, 1);
	fetch_fixture_prepare(&fixture, &layer, 0);
	for (uint32_t i = 0; i < 2; i++)
		pending_start(&pending[i], &fixture, i, 2, PATIENCE);
	FetchBlob *before = add_again(&fixture);
	pending_start(&other, &fixture, 0, 4, PATIENCE);
	FetchBlob *blob = fixture.blob;
	fixture.blob = before;
	for (uint32_t i = 2; i < 4; i++)
		pending_start(&pending[i], &fixture, i, 2, PATIENCE);
	fetcher_remove_blob(before);
	fixture.blob = blob;
	for (size_t i = 0; i < ELEMENTS(pending); i++)
		assert_int_equal(pending_end(&pending[i]), -ECANCELED);
	assert_int_equal(fetcher_start(fixture.fetcher), 0);
	assert_int_equal(pending_end(&other), 0);
	fetch_fixture_stop(&fixture);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_added_while_it_runs),
		cmocka_unit_test(test_removed_under_way),
		cmocka_unit_test(test_removed_after_the_end),
		cmocka_unit_test(test_removed_before_the_start),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
