/* Waits, joining and reading, with a server that behaves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "tests/unit/fetch/fetch-fixture.h"

#define PATIENCE 60000

static void start(FetchFixture *fixture, uint32_t count, uint32_t chunk_size, unsigned connections)
{
	BlobFixture layer;
	blob_fixture_make(&layer, count, chunk_size, 1);
	fetch_fixture_start(fixture, &layer, connections);
}

static FetchCounters counters_of(FetchFixture *fixture)
{
	FetchCounters counters;
	fetcher_counters(fixture->fetcher, &counters);
	return counters;
}

static void test_reads_any_range(void **state _unused_)
{
	FetchFixture fixture;
	start(&fixture, 50, CHUNK_SIZE, 0);
	assert_int_equal(fetch_and_compare(&fixture, CHUNK_SIZE * 10 + 7, 3 * CHUNK_SIZE, PATIENCE), 0);
	assert_int_equal(fetch_and_compare(&fixture, 0, 1, PATIENCE), 0);
	assert_int_equal(fetch_and_compare(&fixture, 50 * CHUNK_SIZE - 1, 1, PATIENCE), 0);
	for (uint64_t offset = 0; offset + 4096 < 50 * CHUNK_SIZE; offset += 4096)
		assert_int_equal(fetch_and_compare(&fixture, offset, 4096, PATIENCE), 0);
	assert_int_equal(fetch_and_compare(&fixture, 0, 50 * CHUNK_SIZE, PATIENCE), 0);
	assert_int_equal(fetch_and_compare(&fixture, 77, 0, PATIENCE), 0);
	FetchCounters counters = counters_of(&fixture);
	assert_int_equal(counters.chunks, 50);
	assert_int_equal(counters.verify_failures, 0);
	assert_int_equal(counters.bytes, fixture.layer.layer.index_offset);
	FakeCounts counts;
	fake_server_counts(fixture.server, &counts);
	assert_false(counts.accept_encoding);
	fetch_fixture_stop(&fixture);
}

static void test_range_outside_is_refused(void **state _unused_)
{
	FetchFixture fixture;
	uint8_t byte;
	FetchWait *wait;
	start(&fixture, 2, CHUNK_SIZE, 0);
	assert_int_equal(fetch_read(fixture.blob, fixture.reader, 2 * CHUNK_SIZE, 1, &byte), -EINVAL);
	assert_int_equal(fetch_read(fixture.blob, fixture.reader, UINT64_MAX, 2, &byte), -EINVAL);
	assert_int_equal(fetch_wait(fixture.blob, 1, UINT64_MAX, fetch_now(), NULL, NULL, &wait), -EINVAL);
	fetch_fixture_stop(&fixture);
}

static void test_one_flight_a_chunk(void **state _unused_)
{
	FetchFixture fixture;
	Pending pending[6];
	start(&fixture, 4, CHUNK_SIZE, 0);
	fake_server_hold(fixture.server, true);
	pending_start(&pending[0], &fixture, 1, 1, PATIENCE);
	await_requests(&fixture, 1);
	for (size_t i = 1; i < 6; i++)
		pending_start(&pending[i], &fixture, 1, 1, PATIENCE);
	fake_server_hold(fixture.server, false);
	for (size_t i = 0; i < 6; i++)
		assert_int_equal(pending_end(&pending[i]), 0);
	assert_int_equal(counters_of(&fixture).requests, 1);
	assert_int_equal(counters_of(&fixture).chunks, 1);
	fetch_fixture_stop(&fixture);
}

/* Those that come while all connections are busy become one range, over the gap of one chunk, in whatever order they came. */
static void test_neighbours_join(void **state _unused_)
{
	static const uint32_t chunks[] = { 12, 10, 14, 11 };
	FetchFixture fixture;
	Pending first, pending[4];
	start(&fixture, 40, CHUNK_SIZE, 1);
	fake_server_hold(fixture.server, true);
	pending_start(&first, &fixture, 30, 1, PATIENCE);
	await_requests(&fixture, 1);
	for (size_t i = 0; i < 4; i++)
		pending_start(&pending[i], &fixture, chunks[i], 1, PATIENCE);
	fake_server_hold(fixture.server, false);
	assert_int_equal(pending_end(&first), 0);
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(pending_end(&pending[i]), 0);
	assert_int_equal(counters_of(&fixture).requests, 2);
	assert_int_equal(counters_of(&fixture).chunks, 6);

	FakeCounts counts;
	fake_server_counts(fixture.server, &counts);
	Chunk low, high;
	chunk_table_get(&fixture.layer.table, 10, &low);
	chunk_table_get(&fixture.layer.table, 14, &high);
	assert_int_equal(counts.last_first, low.blob_offset);
	assert_int_equal(counts.last_last, high.blob_offset + high.blob_size - 1);
	/* The gap was kept. */
	assert_true(cache_blob_has(fixture.cache, 13));
	fetch_fixture_stop(&fixture);
}

static void test_wide_gap_is_not_crossed(void **state _unused_)
{
	FetchFixture fixture;
	Pending first, pending[2];
	start(&fixture, 10, CHUNK_SIZE, 1);
	fake_server_hold(fixture.server, true);
	pending_start(&first, &fixture, 9, 1, PATIENCE);
	await_requests(&fixture, 1);
	pending_start(&pending[0], &fixture, 0, 1, PATIENCE);
	pending_start(&pending[1], &fixture, 3, 1, PATIENCE);
	fake_server_hold(fixture.server, false);
	assert_int_equal(pending_end(&first), 0);
	assert_int_equal(pending_end(&pending[0]), 0);
	assert_int_equal(pending_end(&pending[1]), 0);
	assert_int_equal(counters_of(&fixture).requests, 3);
	assert_int_equal(counters_of(&fixture).chunks, 3);
	assert_false(cache_blob_has(fixture.cache, 1));
	fetch_fixture_stop(&fixture);
}

/* A chunk that is on its way as part of a gap is not asked for again. */
static void test_joins_a_gap(void **state _unused_)
{
	FetchFixture fixture;
	Pending first, pending[2], gap;
	start(&fixture, 10, CHUNK_SIZE, 1);
	fake_server_hold(fixture.server, true);
	pending_start(&first, &fixture, 9, 1, PATIENCE);
	await_requests(&fixture, 1);
	pending_start(&pending[0], &fixture, 0, 1, PATIENCE);
	pending_start(&pending[1], &fixture, 2, 1, PATIENCE);
	fake_server_hold(fixture.server, false);
	fake_server_hold(fixture.server, true);
	await_requests(&fixture, 2);
	pending_start(&gap, &fixture, 1, 1, PATIENCE);
	fake_server_hold(fixture.server, false);
	assert_int_equal(pending_end(&first), 0);
	assert_int_equal(pending_end(&pending[0]), 0);
	assert_int_equal(pending_end(&pending[1]), 0);
	assert_int_equal(pending_end(&gap), 0);
	assert_int_equal(counters_of(&fixture).chunks, 4);
	assert_true(counters_of(&fixture).requests <= 3);
	fetch_fixture_stop(&fixture);
}

static void test_ranges_are_bounded_and_parallel(void **state _unused_)
{
	FetchFixture fixture;
	Pending pending;
	start(&fixture, 80, 256u << 10, 3);
	fake_server_hold(fixture.server, true);
	pending_start(&pending, &fixture, 0, 80, PATIENCE);
	await_requests(&fixture, 3);
	fake_server_hold(fixture.server, false);
	assert_int_equal(pending_end(&pending), 0);
	FakeCounts counts;
	fake_server_counts(fixture.server, &counts);
	assert_int_equal(counts.at_once, 3);
	assert_int_equal(counters_of(&fixture).requests, (80 + 14) / 15); /* 15 frames of 256 KiB and some bytes fit */
	assert_int_equal(counters_of(&fixture).chunks, 80);
	assert_true(counts.connections <= 3);
	fetch_fixture_stop(&fixture);
}

/* Who waits for the first chunk of a range does not wait for its last. */
static void test_wakes_at_once(void **state _unused_)
{
	FetchFixture fixture;
	Pending first, all;
	start(&fixture, 20, CHUNK_SIZE, 1);
	fake_server_hold(fixture.server, true);
	fake_server_fault(fixture.server, FAKE_STALL_BODY, 0);
	pending_start(&all, &fixture, 0, 20, PATIENCE);
	await_requests(&fixture, 1);
	pending_start(&first, &fixture, 2, 1, PATIENCE);
	fake_server_hold(fixture.server, false);
	assert_int_equal(pending_end(&first), 0);
	assert_int_equal(fetch_and_compare(&fixture, 2 * CHUNK_SIZE, CHUNK_SIZE, PATIENCE), 0);
	assert_int_equal(all.calls, 0);
	fake_server_fault(fixture.server, FAKE_NONE, 0);
	assert_int_equal(pending_end(&all), 0);
	fetch_fixture_stop(&fixture);
}

static void test_stays_after_restart(void **state _unused_)
{
	FetchFixture fixture;
	start(&fixture, 20, CHUNK_SIZE, 0);
	assert_int_equal(fetch_and_compare(&fixture, CHUNK_SIZE, 5 * CHUNK_SIZE, PATIENCE), 0);
	fetch_fixture_restart(&fixture, true);
	assert_int_equal(fetch_and_compare(&fixture, CHUNK_SIZE, 5 * CHUNK_SIZE, PATIENCE), 0);
	/* What is absent can come from nowhere. */
	assert_int_equal(fetch_and_compare(&fixture, 0, CHUNK_SIZE, PATIENCE), -EIO);
	Pending pending;
	pending_start(&pending, &fixture, 0, 2, PATIENCE);
	assert_int_equal(pending_end(&pending), -EIO);
	fetch_fixture_stop(&fixture);
}

static void test_present_needs_no_network(void **state _unused_)
{
	FetchFixture fixture;
	Pending pending;
	start(&fixture, 4, CHUNK_SIZE, 0);
	assert_int_equal(fetch_and_compare(&fixture, 0, 4 * CHUNK_SIZE, PATIENCE), 0);
	fake_server_kill(fixture.server);
	pending_start(&pending, &fixture, 0, 4, PATIENCE);
	assert_int_equal(pending_end(&pending), 0);
	assert_int_equal(fetch_and_compare(&fixture, 5, 3 * CHUNK_SIZE, PATIENCE), 0);
	fetch_fixture_stop(&fixture);
}

/* A reader's scratch chunk is of one blob only, even if another comes to lie at the same address. */
static void test_scratch_is_of_one_blob(void **state _unused_)
{
	FetchFixture fixture;
	start(&fixture, 4, CHUNK_SIZE, 0);
	assert_int_equal(fetch_and_compare(&fixture, 10, 100, PATIENCE), 0);
	fetch_fixture_restart(&fixture, false);
	uint8_t zeros[4096] = { 0 };
	assert_int_equal(pwrite(fixture.data_fd, zeros, sizeof(zeros), 0), sizeof(zeros));
	assert_int_equal(fetch_and_compare(&fixture, 10, 100, PATIENCE), 0);
	assert_int_equal(counters_of(&fixture).chunks, 1);
	fetch_fixture_stop(&fixture);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reads_any_range),
		cmocka_unit_test(test_range_outside_is_refused),
		cmocka_unit_test(test_one_flight_a_chunk),
		cmocka_unit_test(test_neighbours_join),
		cmocka_unit_test(test_wide_gap_is_not_crossed),
		cmocka_unit_test(test_joins_a_gap),
		cmocka_unit_test(test_ranges_are_bounded_and_parallel),
		cmocka_unit_test(test_wakes_at_once),
		cmocka_unit_test(test_stays_after_restart),
		cmocka_unit_test(test_present_needs_no_network),
		cmocka_unit_test(test_scratch_is_of_one_blob),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
