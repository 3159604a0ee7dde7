/* What goes first: demand, then the profile, then the background. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/fetch/fetch-fixture.h"

#define PATIENCE 60000

static void start(FetchFixture *fixture, uint32_t count, uint32_t chunk_size, unsigned connections)
{
	BlobFixture layer;
	blob_fixture_make(&layer, count, chunk_size, 1);
	fetch_fixture_start(fixture, &layer, connections);
}

static uint64_t requests_of(FetchFixture *fixture)
{
	FetchCounters counters;
	fetcher_counters(fixture->fetcher, &counters);
	return counters.requests;
}

static void prefetch(FetchFixture *fixture, FetchClass class, const uint32_t *chunks, size_t count)
{
	assert_int_equal(fetch_prefetch(fixture->blob, class, chunks, count, PATIENCE), 0);
}

/* The range that was asked for last is that of chunks `first` to `last`. */
static void assert_asked(const FetchFixture *fixture, uint32_t first, uint32_t last)
{
	FakeCounts counts;
	Chunk low, high;
	fake_server_counts(fixture->server, &counts);
	chunk_table_get(&fixture->layer.table, first, &low);
	chunk_table_get(&fixture->layer.table, last, &high);
	assert_int_equal(counts.last_first, low.blob_offset);
	assert_int_equal(counts.last_last, high.blob_offset + high.blob_size - 1);
}

static void test_list_becomes_few_ranges(void **state _unused_)
{
	/* 0, 3 and 5 lie within 96 KiB of each other; 11 does not. */
	static const uint32_t chunks[] = { 5, 0, 3, 11 };
	FetchFixture fixture;
	start(&fixture, 14, CHUNK_SIZE, 1);
	/* A request that is held gives the list the time to be there as a whole. */
	static const uint32_t before[] = { 13 };
	fake_server_hold(fixture.server, true);
	prefetch(&fixture, FETCH_PROFILE, before, 1);
	await_requests(&fixture, 1);
	prefetch(&fixture, FETCH_PROFILE, chunks, 4);
	fake_server_hold(fixture.server, false);
	await_chunk(&fixture, 5);
	await_chunk(&fixture, 11);
	assert_true(cache_blob_has(fixture.cache, 0) && cache_blob_has(fixture.cache, 1));
	assert_false(cache_blob_has(fixture.cache, 8));
	assert_int_equal(requests_of(&fixture), 3);
	fetch_fixture_stop(&fixture);
}

static void test_bad_lists_are_refused(void **state _unused_)
{
	static const uint32_t outside[] = { 1, 2 }, far[] = { UINT32_MAX, 0 };
	FetchFixture fixture;
	start(&fixture, 2, CHUNK_SIZE, 0);
	assert_int_equal(fetch_prefetch(fixture.blob, FETCH_PROFILE, outside, 2, PATIENCE), -EINVAL);
	assert_int_equal(fetch_prefetch(fixture.blob, FETCH_PROFILE, far, 2, PATIENCE), -EINVAL);
	assert_int_equal(fetch_prefetch(fixture.blob, FETCH_DEMAND, outside, 1, PATIENCE), -EINVAL);
	assert_int_equal(fetch_prefetch_range(fixture.blob, FETCH_PROFILE, 1, UINT64_MAX, PATIENCE), -EINVAL);
	assert_int_equal(fetch_prefetch_range(fixture.blob, FETCH_BACKGROUND, 0, 2 * CHUNK_SIZE, INT64_MAX), 0);
	await_chunk(&fixture, 1);
	fetcher_stop(fixture.fetcher);
	assert_int_equal(fetch_prefetch(fixture.blob, FETCH_PROFILE, outside, 1, PATIENCE), -ECANCELED);
	fetch_fixture_stop(&fixture);
}

/* With the only connection taken by `class`, demand takes it. */
static void demand_takes_the_connection(FetchClass class)
{
	static const uint32_t chunks[] = { 0, 1, 2, 3 };
	FetchFixture fixture;
	Pending pending;
	start(&fixture, 10, CHUNK_SIZE, 1);
	fake_server_hold(fixture.server, true);
	prefetch(&fixture, class, chunks, 4);
	await_requests(&fixture, 1);
	assert_asked(&fixture, 0, 3);
	pending_start(&pending, &fixture, 9, 1, PATIENCE);
	await_requests(&fixture, 2);
	assert_asked(&fixture, 9, 9);
	fake_server_hold(fixture.server, false);
	assert_int_equal(pending_end(&pending), 0);
	/* What was cut is asked for again. */
	await_chunk(&fixture, 3);
	assert_int_equal(requests_of(&fixture), 3);
	fetch_fixture_stop(&fixture);
}

static void test_demand_before_profile(void **state _unused_)
{
	demand_takes_the_connection(FETCH_PROFILE);
}

static void test_demand_before_background(void **state _unused_)
{
	demand_takes_the_connection(FETCH_BACKGROUND);
}

static void test_profile_before_background(void **state _unused_)
{
	static const uint32_t first[] = { 19 }, background[] = { 10 }, profile[] = { 0, 1 };
	FetchFixture fixture;
	start(&fixture, 20, 256u << 10, 1);
	fake_server_hold(fixture.server, true);
	prefetch(&fixture, FETCH_PROFILE, first, 1);
	await_requests(&fixture, 1);
	prefetch(&fixture, FETCH_BACKGROUND, background, 1);
	prefetch(&fixture, FETCH_PROFILE, profile, 2);
	fake_server_hold(fixture.server, false);
	await_chunk(&fixture, 10);
	assert_true(cache_blob_has(fixture.cache, 1));
	fetch_fixture_stop(&fixture);
}

/* What is queued behind others and then read goes before them. */
static void test_queued_is_promoted(void **state _unused_)
{
	static const uint32_t chunks[] = { 0, 5, 9 };
	FetchFixture fixture;
	Pending pending;
	start(&fixture, 10, 256u << 10, 1);
	fake_server_hold(fixture.server, true);
	prefetch(&fixture, FETCH_PROFILE, chunks, 3);
	await_requests(&fixture, 1);
	assert_asked(&fixture, 0, 0);
	pending_start(&pending, &fixture, 9, 1, PATIENCE);
	await_requests(&fixture, 2);
	assert_asked(&fixture, 9, 9);
	fake_server_hold(fixture.server, false);
	assert_int_equal(pending_end(&pending), 0);
	await_chunk(&fixture, 0);
	await_chunk(&fixture, 5);
	assert_int_equal(requests_of(&fixture), 4);
	fetch_fixture_stop(&fixture);
}

/* What is on its way is not asked for again, and not cut for other demand either once somebody reads it. */
static void test_in_flight_is_shared(void **state _unused_)
{
	static const uint32_t chunks[] = { 0, 1 };
	FetchFixture fixture;
	Pending shared, other;
	start(&fixture, 10, CHUNK_SIZE, 1);
	fake_server_hold(fixture.server, true);
	prefetch(&fixture, FETCH_BACKGROUND, chunks, 2);
	await_requests(&fixture, 1);
	pending_start(&shared, &fixture, 1, 1, PATIENCE);
	pending_start(&other, &fixture, 9, 1, PATIENCE);
	fake_server_hold(fixture.server, false);
	assert_int_equal(pending_end(&shared), 0);
	assert_int_equal(pending_end(&other), 0);
	assert_int_equal(requests_of(&fixture), 2);
	fetch_fixture_stop(&fixture);
}

/* A reader who gives up leaves the chunk to those who only expect to read it. */
static void test_falls_back(void **state _unused_)
{
	static const uint32_t first[] = { 9 }, chunks[] = { 5 };
	FetchFixture fixture;
	Pending before, pending;
	start(&fixture, 10, 256u << 10, 1);
	fake_server_hold(fixture.server, true);
	pending_start(&before, &fixture, first[0], 1, PATIENCE);
	await_requests(&fixture, 1);
	prefetch(&fixture, FETCH_PROFILE, chunks, 1);
	pending_start(&pending, &fixture, 5, 1, 1);
	assert_int_equal(pending_end(&pending), -ETIMEDOUT);
	fake_server_hold(fixture.server, false);
	assert_int_equal(pending_end(&before), 0);
	await_chunk(&fixture, 5);
	fetch_fixture_stop(&fixture);
}

/* While only the background fails, demand has no back-off to wait for, and both come through in the end. */
static void test_faults_of_the_background(void **state _unused_)
{
	static const uint32_t chunks[] = { 0, 1 };
	FetchFixture fixture;
	start(&fixture, 10, CHUNK_SIZE, 0);
	fake_server_fault(fixture.server, FAKE_ERROR, 3);
	prefetch(&fixture, FETCH_BACKGROUND, chunks, 2);
	await_requests(&fixture, 3);
	assert_int_equal(fetch_and_compare(&fixture, 5 * CHUNK_SIZE, CHUNK_SIZE, PATIENCE), 0);
	await_chunk(&fixture, 1);
	fetch_fixture_stop(&fixture);
}

/* By its patience, and with it the transfer: until then others wait for the only connection. The fill waits until nobody expects anything. */
static void test_gives_up(void **state _unused_)
{
	static const uint32_t given_up[] = { 0 }, other[] = { 5 }, fill[] = { 9 };
	FetchFixture fixture;
	start(&fixture, 10, CHUNK_SIZE, 1);
	fake_server_fault(fixture.server, FAKE_STALL_REQUEST, 1);
	assert_int_equal(fetch_prefetch(fixture.blob, FETCH_PROFILE, given_up, 1, 300), 0);
	prefetch(&fixture, FETCH_PROFILE, other, 1);
	await_chunk(&fixture, 5);
	prefetch(&fixture, FETCH_BACKGROUND, fill, 1);
	await_chunk(&fixture, 9);
	assert_false(cache_blob_has(fixture.cache, 0));
	fetch_fixture_stop(&fixture);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_list_becomes_few_ranges),   cmocka_unit_test(test_bad_lists_are_refused),
		cmocka_unit_test(test_demand_before_profile),     cmocka_unit_test(test_demand_before_background),
		cmocka_unit_test(test_profile_before_background), cmocka_unit_test(test_queued_is_promoted),
		cmocka_unit_test(test_in_flight_is_shared),       cmocka_unit_test(test_falls_back),
		cmocka_unit_test(test_faults_of_the_background),  cmocka_unit_test(test_gives_up),
	};
	fetch_set_quiet(100);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
