/* Waits and reads while the server, the disk or the caller does wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <string.h>

#include "tests/unit/fetch/fetch-fixture.h"

#define PATIENCE 60000

static void start(FetchFixture *fixture, uint32_t count)
{
	BlobFixture layer;
	blob_fixture_make(&layer, count, CHUNK_SIZE, 2);
	fetch_fixture_start(fixture, &layer, 2);
}

static FetchCounters counters_of(FetchFixture *fixture)
{
	FetchCounters counters;
	fetcher_counters(fixture->fetcher, &counters);
	return counters;
}

static const FakeFault faults[] = {
	FAKE_STALL_REQUEST, FAKE_STALL_HEADERS, FAKE_STALL_BODY, FAKE_RESET_BODY,    FAKE_TRUNCATE,
	FAKE_ERROR,         FAKE_DENIED,        FAKE_NOT_FOUND,  FAKE_WHOLE,         FAKE_WRONG_RANGE,
	FAKE_NO_RANGE,      FAKE_CORRUPT,       FAKE_TRICKLE,    FAKE_REDIRECT_LOOP, FAKE_REDIRECT_FILE,
};

static void test_every_fault_passes(void **state _unused_)
{
	for (size_t i = 0; i < ELEMENTS(faults); i++) {
		FetchFixture fixture;
		start(&fixture, 6);
		/* A redirect loop is several requests; all must meet the fault. */
		fake_server_fault(fixture.server, faults[i], faults[i] == FAKE_REDIRECT_LOOP ? 6 : 1);
		assert_int_equal(fetch_and_compare(&fixture, 0, 6 * CHUNK_SIZE, PATIENCE), 0);
		FetchCounters counters = counters_of(&fixture);
		assert_int_equal(counters.retries, 1);
		assert_int_equal(counters.chunks, 6);
		assert_int_equal(counters.verify_failures, faults[i] == FAKE_CORRUPT);
		assert_null(fetcher_free(fixture.fetcher));
		fixture.fetcher = NULL;
		assert_int_equal(fixture.reports, 2);
		assert_non_null(strstr(fixture.last_report, "works again"));
		fetch_fixture_stop(&fixture);
	}
}

static void test_every_fault_ends_at_the_deadline(void **state _unused_)
{
	for (size_t i = 0; i < ELEMENTS(faults); i++) {
		FetchFixture fixture;
		start(&fixture, 1);
		fake_server_fault(fixture.server, faults[i], 0);
		int64_t before = fetch_now();
		Pending pending;
		pending_start(&pending, &fixture, 0, 1, 300);
		assert_int_equal(pending_end(&pending), -ETIMEDOUT);
		assert_in_range(pending.ended_at - before, 300, 60000);
		assert_int_equal(counters_of(&fixture).chunks, 0);
		uint8_t byte;
		assert_int_equal(fetch_read(fixture.blob, fixture.reader, 0, 1, &byte), -EAGAIN);
		/* It is over at once when the server is well. */
		fake_server_fault(fixture.server, FAKE_NONE, 0);
		assert_int_equal(fetch_and_compare(&fixture, 0, CHUNK_SIZE, PATIENCE), 0);
		fetch_fixture_stop(&fixture);
	}
}

static void test_too_long_body_is_cut(void **state _unused_)
{
	FetchFixture fixture;
	start(&fixture, 6);
	fake_server_fault(fixture.server, FAKE_TOO_LONG, 0);
	assert_int_equal(fetch_and_compare(&fixture, 0, 2 * CHUNK_SIZE, PATIENCE), 0);
	Chunk chunk;
	chunk_table_get(&fixture.layer.table, 2, &chunk);
	FetchCounters counters = counters_of(&fixture);
	assert_int_equal(counters.bytes, chunk.blob_offset);
	assert_int_equal(counters.retries, 0);
	assert_false(cache_blob_has(fixture.cache, 2));
	fetch_fixture_stop(&fixture);
}

static void test_redirect_is_followed(void **state _unused_)
{
	FetchFixture fixture;
	start(&fixture, 6);
	fake_server_fault(fixture.server, FAKE_REDIRECT, 0);
	assert_int_equal(fetch_and_compare(&fixture, 0, 6 * CHUNK_SIZE, PATIENCE), 0);
	assert_int_equal(counters_of(&fixture).retries, 0);
	fetch_fixture_stop(&fixture);
}

/* One rotten chunk on the server does not keep its neighbours away. */
static void test_corrupt_chunk_stands_alone(void **state _unused_)
{
	FetchFixture fixture;
	Pending bad, good;
	start(&fixture, 9);
	fake_server_fault(fixture.server, FAKE_CORRUPT, 0);
	fake_server_hold(fixture.server, true);
	pending_start(&bad, &fixture, 0, 9, 1500);
	await_requests(&fixture, 1);
	pending_start(&good, &fixture, 5, 4, PATIENCE);
	fake_server_hold(fixture.server, false);
	assert_int_equal(pending_end(&good), 0);
	assert_int_equal(pending_end(&bad), -ETIMEDOUT);
	for (uint32_t i = 0; i < 9; i++)
		assert_int_equal(cache_blob_has(fixture.cache, i), i != 4);
	fetch_fixture_stop(&fixture);
}

static void test_killed_server_comes_back(void **state _unused_)
{
	FetchFixture fixture;
	Pending pending;
	start(&fixture, 6);
	assert_int_equal(fetch_and_compare(&fixture, 0, CHUNK_SIZE, PATIENCE), 0);
	fake_server_kill(fixture.server);
	pending_start(&pending, &fixture, 1, 5, PATIENCE);
	while (counters_of(&fixture).retries < 2)
		(void)usleep(1000);
	assert_int_equal(pending.calls, 0);
	/* What is present is served meanwhile. */
	assert_int_equal(fetch_and_compare(&fixture, 0, CHUNK_SIZE, PATIENCE), 0);
	assert_int_equal(fake_server_revive(fixture.server), 0);
	assert_int_equal(pending_end(&pending), 0);
	assert_int_equal(fetch_and_compare(&fixture, 0, 6 * CHUNK_SIZE, PATIENCE), 0);
	fetch_fixture_stop(&fixture);
}

static void test_killed_in_the_body(void **state _unused_)
{
	FetchFixture fixture;
	Pending pending;
	start(&fixture, 20);
	fake_server_fault(fixture.server, FAKE_STALL_BODY, 1);
	pending_start(&pending, &fixture, 0, 20, PATIENCE);
	await_requests(&fixture, 1);
	fake_server_kill(fixture.server);
	assert_int_equal(fake_server_revive(fixture.server), 0);
	assert_int_equal(pending_end(&pending), 0);
	assert_int_equal(fetch_and_compare(&fixture, 0, 20 * CHUNK_SIZE, PATIENCE), 0);
	fetch_fixture_stop(&fixture);
}

static void test_cancel(void **state _unused_)
{
	FetchFixture fixture;
	Pending cancelled, other;
	start(&fixture, 6);
	fake_server_hold(fixture.server, true);
	pending_start(&cancelled, &fixture, 0, 3, PATIENCE);
	pending_start(&other, &fixture, 2, 1, PATIENCE);
	await_requests(&fixture, 1);
	fetch_cancel(fixture.fetcher, cancelled.wait);
	assert_int_equal(pending_end(&cancelled), -EINTR);
	assert_int_equal(other.calls, 0);
	fake_server_hold(fixture.server, false);
	assert_int_equal(pending_end(&other), 0);
	fetch_fixture_stop(&fixture);
}

/* A transfer that nobody waits for any more makes way for one that is wanted. */
static void test_unwanted_transfer_is_cut(void **state _unused_)
{
	BlobFixture layer;
	FetchFixture fixture;
	Pending first, second;
	blob_fixture_make(&layer, 60, CHUNK_SIZE, 3);
	fetch_fixture_start(&fixture, &layer, 1);
	fake_server_fault(fixture.server, FAKE_STALL_REQUEST, 1);
	pending_start(&first, &fixture, 0, 2, PATIENCE);
	await_requests(&fixture, 1);
	pending_start(&second, &fixture, 50, 1, PATIENCE);
	fetch_cancel(fixture.fetcher, first.wait);
	assert_int_equal(pending_end(&first), -EINTR);
	assert_int_equal(pending_end(&second), 0);
	assert_int_equal(counters_of(&fixture).retries, 0);
	fetch_fixture_stop(&fixture);
}

static void test_end_cancels_all(void **state _unused_)
{
	FetchFixture fixture;
	Pending pending[3];
	start(&fixture, 60);
	fake_server_fault(fixture.server, FAKE_STALL_REQUEST, 0);
	for (uint32_t i = 0; i < 3; i++)
		pending_start(&pending[i], &fixture, i * 20, 2, PATIENCE);
	await_requests(&fixture, 2);
	assert_null(fetcher_free(fixture.fetcher));
	fixture.fetcher = NULL;
	for (uint32_t i = 0; i < 3; i++)
		assert_int_equal(pending_end(&pending[i]), -ECANCELED);
	fetch_fixture_stop(&fixture);
}

static void no_call(void *arg _unused_, int result _unused_)
{
	fail();
}

static void test_stopped_reads_on(void **state _unused_)
{
	FetchFixture fixture;
	Pending pending;
	FetchWait *wait;
	start(&fixture, 60);
	assert_int_equal(fetch_and_compare(&fixture, 0, 5 * CHUNK_SIZE, PATIENCE), 0);
	fake_server_fault(fixture.server, FAKE_STALL_REQUEST, 0);
	pending_start(&pending, &fixture, 40, 2, PATIENCE);
	fetcher_stop(fixture.fetcher);
	assert_int_equal(pending_end(&pending), -ECANCELED);
	assert_int_equal(fetch_wait(fixture.blob, 0, 1, INT64_MAX, no_call, NULL, &wait), -ECANCELED);
	assert_int_equal(fetch_and_compare(&fixture, 0, 5 * CHUNK_SIZE, PATIENCE), 0);
	fetcher_stop(fixture.fetcher);
	fetch_fixture_stop(&fixture);
}

static void test_end_before_start(void **state _unused_)
{
	FetcherOptions options = { 0 };
	Fetcher *fetcher;
	assert_int_equal(fetcher_new(&options, &fetcher), 0);
	assert_null(fetcher_free(fetcher));
	assert_null(fetcher_free(NULL));
}

/* The disk takes nothing: the data file is read-only, which fails as a full disk does. */
static void test_served_without_cache(void **state _unused_)
{
	FetchFixture fixture;
	start(&fixture, 60);
	char path[64];
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fixture.data_fd);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	(void)close(fixture.data_fd);
	fixture.data_fd = fd;
	fetch_fixture_restart(&fixture, false);
	for (uint64_t offset = 0; offset < 60 * CHUNK_SIZE; offset += 3 * CHUNK_SIZE)
		assert_int_equal(fetch_and_compare(&fixture, offset, 3 * CHUNK_SIZE, PATIENCE), 0);
	assert_int_equal(counters_of(&fixture).chunks, 60);
	assert_false(cache_blob_has(fixture.cache, 0));
	/* Frames fetched lately are still in memory. */
	assert_int_equal(fetch_and_compare(&fixture, 59 * CHUNK_SIZE, 10, PATIENCE), 0);
	assert_int_equal(counters_of(&fixture).chunks, 60);
	assert_null(fetcher_free(fixture.fetcher));
	fixture.fetcher = NULL;
	assert_int_equal(fixture.reports, 1);
	assert_non_null(strstr(fixture.last_report, "cannot write to the cache"));
	fetch_fixture_stop(&fixture);
}

static void rot(const FetchFixture *fixture, uint32_t chunk)
{
	Chunk entry;
	uint8_t byte;
	chunk_table_get(&fixture->layer.table, chunk, &entry);
	off_t at = (off_t)(entry.blob_offset + entry.blob_size / 2);
	assert_int_equal(pread(fixture->data_fd, &byte, 1, at), 1);
	byte ^= 0x80;
	assert_int_equal(pwrite(fixture->data_fd, &byte, 1, at), 1);
}

static void test_rot_under_a_trusted_chunk(void **state _unused_)
{
	FetchFixture fixture;
	start(&fixture, 4);
	assert_int_equal(fetch_and_compare(&fixture, 0, 4 * CHUNK_SIZE, PATIENCE), 0);
	rot(&fixture, 2);
	assert_int_equal(fetch_and_compare(&fixture, 0, 4 * CHUNK_SIZE, PATIENCE), 0);
	assert_int_equal(counters_of(&fixture).chunks, 5);
	fetch_fixture_stop(&fixture);
}

static void test_rot_before_the_start(void **state _unused_)
{
	FetchFixture fixture;
	start(&fixture, 4);
	assert_int_equal(fetch_and_compare(&fixture, 0, 4 * CHUNK_SIZE, PATIENCE), 0);
	rot(&fixture, 1);
	fetch_fixture_restart(&fixture, false);
	assert_int_equal(fetch_and_compare(&fixture, 0, 4 * CHUNK_SIZE, PATIENCE), 0);
	assert_int_equal(counters_of(&fixture).chunks, 1);
	rot(&fixture, 3);
	fetch_fixture_restart(&fixture, true);
	assert_int_equal(fetch_and_compare(&fixture, 0, 4 * CHUNK_SIZE, PATIENCE), -EIO);
	assert_int_equal(fetch_and_compare(&fixture, 0, 3 * CHUNK_SIZE, PATIENCE), 0);
	fetch_fixture_stop(&fixture);
}

/* The publisher's frame has the right digest but is no frame: fetching it again and again would not help. */
static void test_authentic_rubbish(void **state _unused_)
{
	BlobFixture layer;
	FetchFixture fixture;
	blob_fixture_make_spoiled(&layer, 4, CHUNK_SIZE, 4, 2);
	fetch_fixture_start(&fixture, &layer, 0);
	assert_int_equal(fetch_and_compare(&fixture, 2 * CHUNK_SIZE, CHUNK_SIZE, PATIENCE), -EIO);
	assert_int_equal(fetch_and_compare(&fixture, 2 * CHUNK_SIZE, 5, PATIENCE), -EIO);
	assert_int_equal(fetch_and_compare(&fixture, 0, 2 * CHUNK_SIZE, PATIENCE), 0);
	assert_int_equal(counters_of(&fixture).requests, 2);
	fetch_fixture_stop(&fixture);
}

static void test_rotten_local_blob(void **state _unused_)
{
	BlobFixture layer;
	FetchFixture fixture;
	blob_fixture_make(&layer, 4, CHUNK_SIZE, 5);
	fetch_fixture_start(&fixture, &layer, 0);
	assert_int_equal(pwrite(fixture.data_fd, layer.blob, layer.blob_size, 0), layer.blob_size);
	Fetcher *fetcher;
	CacheBlob *cache;
	FetcherOptions options = { 0 };
	assert_int_equal(cache_blob_new(&fixture.layer.table, dup(fixture.data_fd), -1, &cache), 0);
	assert_int_equal(fetcher_new(&options, &fetcher), 0);
	FetchBlob *remote = fixture.blob;
	assert_int_equal(fetcher_add_blob(fetcher, cache, NULL, &fixture.blob), 0);
	rot(&fixture, 1);
	assert_int_equal(fetch_and_compare(&fixture, 0, CHUNK_SIZE, PATIENCE), 0);
	assert_int_equal(fetch_and_compare(&fixture, CHUNK_SIZE, CHUNK_SIZE, PATIENCE), -EIO);
	/* Somebody repairs the store. */
	rot(&fixture, 1);
	assert_int_equal(fetch_and_compare(&fixture, 0, 4 * CHUNK_SIZE, PATIENCE), 0);
	fixture.blob = remote;
	assert_null(fetcher_free(fetcher));
	fetch_fixture_stop(&fixture);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_fault_passes),
		cmocka_unit_test(test_every_fault_ends_at_the_deadline),
		cmocka_unit_test(test_too_long_body_is_cut),
		cmocka_unit_test(test_redirect_is_followed),
		cmocka_unit_test(test_corrupt_chunk_stands_alone),
		cmocka_unit_test(test_killed_server_comes_back),
		cmocka_unit_test(test_killed_in_the_body),
		cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_unwanted_transfer_is_cut),
		cmocka_unit_test(test_end_cancels_all),
		cmocka_unit_test(test_stopped_reads_on),
		cmocka_unit_test(test_end_before_start),
		cmocka_unit_test(test_served_without_cache),
		cmocka_unit_test(test_rot_under_a_trusted_chunk),
		cmocka_unit_test(test_rot_before_the_start),
		cmocka_unit_test(test_authentic_rubbish),
		cmocka_unit_test(test_rotten_local_blob),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
