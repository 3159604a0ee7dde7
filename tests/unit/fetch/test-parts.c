/* Several ranges in one request, where the host has proved that it gives them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/fetch/fetch-fixture.h"

#define PATIENCE 60000
#define COUNT    200u
#define STRIDE   7u /* the chunks between, 280 kB, are no gap that one range is made over */

static void start(FetchFixture *fixture)
{
	BlobFixture layer;
	blob_fixture_make(&layer, COUNT, CHUNK_SIZE, 1);
	fetch_fixture_start(fixture, &layer, 1);
}

/* The first request is for all of a list of ten, and is held. */
static void start_with_list(FetchFixture *fixture, unsigned connections)
{
	static const uint32_t chunks[] = { 0, 7, 14, 21, 28, 35, 42, 49, 56, 63 };
	BlobFixture layer;
	blob_fixture_make(&layer, COUNT, CHUNK_SIZE, 1);
	fetch_fixture_prepare(fixture, &layer, connections);
	fake_server_hold(fixture->server, true);
	assert_int_equal(fetch_prefetch(fixture->blob, FETCH_PROFILE, chunks, ELEMENTS(chunks), PATIENCE), 0);
	assert_int_equal(fetcher_start(fixture->fetcher), 0);
	await_requests(fixture, 1);
}

static unsigned requests_of(const FetchFixture *fixture)
{
	FakeCounts counts;
	fake_server_counts(fixture->server, &counts);
	return counts.requests;
}

/*
 * Asks for every STRIDE-th chunk of [first, last), the last one first, and waits for them; nothing else comes. Chunk `before` is asked for by a request
 * of its own, which is held until the list is there as a whole; the one after it meets `fault`.
 */
static void fetch_scattered(FetchFixture *fixture, FetchClass class, uint32_t first, uint32_t last, uint32_t before,
			    FakeFault fault)
{
	unsigned requests = requests_of(fixture);
	fake_server_hold(fixture->server, true);
	assert_int_equal(fetch_prefetch(fixture->blob, FETCH_PROFILE, &before, 1, PATIENCE), 0);
	await_requests(fixture, requests + 1);
	fake_server_fault(fixture->server, fault, fault == FAKE_CLOSE_PARTS ? 0 : 1);
	uint32_t chunks[COUNT];
	size_t count = 0;
	for (uint32_t chunk = first; chunk < last; chunk += STRIDE)
		chunks[count++] = chunk;
	for (size_t i = 0; i < count / 2; i++) {
		uint32_t other = chunks[i];
		chunks[i] = chunks[count - 1 - i];
		chunks[count - 1 - i] = other;
	}
	assert_int_equal(fetch_prefetch(fixture->blob, class, chunks, count, PATIENCE), 0);
	fake_server_hold(fixture->server, false);
	for (size_t i = 0; i < count; i++)
		await_chunk(fixture, chunks[i]);
	for (uint32_t chunk = first; chunk < last; chunk++)
		assert_int_equal(cache_blob_has(fixture->cache, chunk), (chunk - first) % STRIDE == 0);
}

static unsigned last_ranges(const FetchFixture *fixture)
{
	FakeCounts counts;
	fake_server_counts(fixture->server, &counts);
	return counts.last_ranges;
}

static void test_scattered_chunks_are_one_request(void **state _unused_)
{
	FetchFixture fixture;
	start(&fixture);
	fake_server_give_parts(fixture.server, true);
	fetch_scattered(&fixture, FETCH_PROFILE, 0, 100, 199, FAKE_NONE);
	assert_int_equal(requests_of(&fixture), 2);
	assert_int_equal(last_ranges(&fixture), 15);
	/* What has proved itself is asked for few, too; the fill as well. */
	fetch_scattered(&fixture, FETCH_BACKGROUND, 105, 119, 198, FAKE_NONE);
	assert_int_equal(last_ranges(&fixture), 2);
	/* One who reads waits for his own alone. */
	assert_int_equal(fetch_and_compare(&fixture, 130 * CHUNK_SIZE, 1, PATIENCE), 0);
	assert_int_equal(last_ranges(&fixture), 1);
	assert_int_equal(fixture.reports, 0);
	fetch_fixture_stop(&fixture);
}

static void test_few_are_no_trial(void **state _unused_)
{
	FetchFixture fixture;
	start(&fixture);
	fake_server_give_parts(fixture.server, true);
	fetch_scattered(&fixture, FETCH_PROFILE, 0, 7 * STRIDE, 199, FAKE_NONE);
	assert_int_equal(requests_of(&fixture), 8);
	fetch_fixture_stop(&fixture);
}

/* A host that does not, in one of several ways, is asked once and then for one by one; nothing is said to have failed. */
static void one_by_one(FakeFault fault, bool parts)
{
	FetchFixture fixture;
	start(&fixture);
	fake_server_give_parts(fixture.server, parts);
	fetch_scattered(&fixture, FETCH_PROFILE, 0, 100, 199, fault);
	assert_int_equal(requests_of(&fixture), 1 + 1 + 15);
	assert_int_equal(last_ranges(&fixture), 1);
	fetch_scattered(&fixture, FETCH_PROFILE, 105, 190, 198, FAKE_NONE);
	assert_int_equal(requests_of(&fixture), 17 + 1 + 13);
	fetch_fixture_stop(&fixture);
	assert_int_equal(fixture.reports, 0);
}

static void test_hosts_that_do_not(void **state _unused_)
{
	one_by_one(FAKE_NONE, false);
	one_by_one(FAKE_WHOLE, true);
	one_by_one(FAKE_WRONG_RANGE, true);
	one_by_one(FAKE_NO_RANGE, true);
	one_by_one(FAKE_ERROR, true);
	/* Firewalls refuse requests for more than a few. */
	one_by_one(FAKE_DENIED, true);
}

/* One that has proved it, and then breaks all such requests, is asked to prove it again, and then for one by one. */
static void test_host_that_ceases_to(void **state _unused_)
{
	FetchFixture fixture;
	start(&fixture);
	fake_server_give_parts(fixture.server, true);
	fetch_scattered(&fixture, FETCH_PROFILE, 105, 190, 199, FAKE_NONE);
	fetch_scattered(&fixture, FETCH_PROFILE, 0, 100, 198, FAKE_CLOSE_PARTS);
	assert_int_equal(requests_of(&fixture), 2 + 1 + 2 + 15);
	fetch_fixture_stop(&fixture);
}

/* That a host lacks a blob says nothing of what it can. */
static void test_trial_of_a_missing_blob(void **state _unused_)
{
	FetchFixture fixture;
	start(&fixture);
	fake_server_give_parts(fixture.server, true);
	fetch_scattered(&fixture, FETCH_PROFILE, 0, 100, 199, FAKE_NOT_FOUND);
	assert_int_equal(requests_of(&fixture), 3);
	assert_int_equal(last_ranges(&fixture), 15);
	fetch_fixture_stop(&fixture);
}

/* Too few for a trial, they are asked for as if there was none: over the gap between, and as much as one range may have. */
static void test_one_range_instead(void **state _unused_)
{
	static const uint32_t before[] = { 199 };
	FetchFixture fixture;
	uint32_t chunks[COUNT];
	size_t count = 0;
	start(&fixture);
	fake_server_hold(fixture.server, true);
	assert_int_equal(fetch_prefetch(fixture.blob, FETCH_PROFILE, before, 1, PATIENCE), 0);
	await_requests(&fixture, 1);
	for (uint32_t chunk = 0; chunk < 100; chunk++)
		if (chunk != 10)
			chunks[count++] = chunk;
	assert_int_equal(fetch_prefetch(fixture.blob, FETCH_PROFILE, chunks, count, PATIENCE), 0);
	fake_server_hold(fixture.server, false);
	await_chunk(&fixture, 99);
	assert_int_equal(requests_of(&fixture), 2);
	fetch_fixture_stop(&fixture);
}

/* No two ranges of a request are so close that a server may join them, whatever is in flight between. */
static void test_neighbours_are_not_asked_for_at_once(void **state _unused_)
{
	static const uint32_t between[] = { 101 }, chunks[] = { 0, 20, 40, 60, 80, 100, 102, 120, 140, 160 };
	BlobFixture layer;
	FetchFixture fixture;
	blob_fixture_make(&layer, COUNT, 4000, 1);
	fetch_fixture_start(&fixture, &layer, 4);
	fake_server_give_parts(fixture.server, true);
	fake_server_hold(fixture.server, true);
	assert_int_equal(fetch_prefetch(fixture.blob, FETCH_PROFILE, between, 1, PATIENCE), 0);
	await_requests(&fixture, 1);
	assert_int_equal(fetch_prefetch(fixture.blob, FETCH_PROFILE, chunks, ELEMENTS(chunks), PATIENCE), 0);
	await_requests(&fixture, 2);
	assert_int_equal(last_ranges(&fixture), ELEMENTS(chunks) - 1);
	fake_server_hold(fixture.server, false);
	for (size_t i = 0; i < ELEMENTS(chunks); i++)
		await_chunk(&fixture, chunks[i]);
	assert_int_equal(requests_of(&fixture), 3);
	fetch_fixture_stop(&fixture);
}

/* While a host is being tried, the other connections go on one by one. */
static void test_trial_stops_nobody(void **state _unused_)
{
	static const uint32_t other[] = { 150 };
	FetchFixture fixture;
	FakeCounts counts;
	start_with_list(&fixture, 4);
	assert_int_equal(last_ranges(&fixture), 10);
	assert_int_equal(fetch_prefetch(fixture.blob, FETCH_PROFILE, other, 1, PATIENCE), 0);
	await_requests(&fixture, 2);
	assert_int_equal(last_ranges(&fixture), 1);
	fake_server_hold(fixture.server, false);
	await_chunk(&fixture, 150);
	for (uint32_t chunk = 0; chunk <= 63; chunk += STRIDE)
		await_chunk(&fixture, chunk);
	fake_server_counts(fixture.server, &counts);
	assert_int_equal(counts.requests, 2 + 10);
	fetch_fixture_stop(&fixture);
}

/* A chunk of many that is wrong is asked for again alone; the others are kept. */
static void test_wrong_chunk_of_many(void **state _unused_)
{
	FetchFixture fixture;
	start(&fixture);
	fake_server_give_parts(fixture.server, true);
	fetch_scattered(&fixture, FETCH_PROFILE, 0, 100, 199, FAKE_CORRUPT);
	assert_int_equal(requests_of(&fixture), 3);
	assert_int_equal(last_ranges(&fixture), 1);
	fetch_fixture_stop(&fixture);
}

/* What has come before a connection ends is kept, and the rest asked for. */
static void test_connection_ends(void **state _unused_)
{
	FetchFixture fixture;
	FetchCounters counters;
	start(&fixture);
	fake_server_give_parts(fixture.server, true);
	fetch_scattered(&fixture, FETCH_PROFILE, 140, 197, 199, FAKE_NONE);
	fetch_scattered(&fixture, FETCH_PROFILE, 0, 139, 198, FAKE_TRUNCATE);
	fetcher_counters(fixture.fetcher, &counters);
	assert_int_equal(counters.chunks, 1 + 9 + 1 + 20);
	assert_true(last_ranges(&fixture) > 1);
	fetch_fixture_stop(&fixture);
}

/* Who comes to read what is on its way among others has it, and it is not cut for another who reads. */
static void test_read_among_many(void **state _unused_)
{
	FetchFixture fixture;
	Pending shared, other;
	start_with_list(&fixture, 1);
	fake_server_give_parts(fixture.server, true);
	pending_start(&shared, &fixture, 49, 1, PATIENCE);
	pending_start(&other, &fixture, 150, 1, PATIENCE);
	fake_server_hold(fixture.server, false);
	assert_int_equal(pending_end(&shared), 0);
	assert_int_equal(pending_end(&other), 0);
	await_chunk(&fixture, 63);
	assert_int_equal(requests_of(&fixture), 2);
	fetch_fixture_stop(&fixture);
}

/* Whatever a host that has proved itself does wrong once, all that is wanted comes, and is right. */
static void test_any_fault_of_many(void **state _unused_)
{
	static const FakeFault faults[] = {
		FAKE_CORRUPT,       FAKE_RESET_BODY, FAKE_TRUNCATE, FAKE_TOO_LONG,  FAKE_STALL_BODY,
		FAKE_STALL_REQUEST, FAKE_INTERIM,    FAKE_ERROR,    FAKE_DENIED,    FAKE_WHOLE,
		FAKE_WRONG_RANGE,   FAKE_NO_RANGE,   FAKE_REDIRECT, FAKE_NOT_FOUND, FAKE_REDIRECT_LOOP,
	};
	for (size_t i = 0; i < ELEMENTS(faults); i++) {
		FetchFixture fixture;
		start(&fixture);
		fake_server_give_parts(fixture.server, true);
		fetch_scattered(&fixture, FETCH_PROFILE, 105, 190, 199, FAKE_NONE);
		assert_true(last_ranges(&fixture) > 1);
		fetch_scattered(&fixture, FETCH_PROFILE, 0, 100, 198, faults[i]);
		assert_int_equal(fetch_and_compare(&fixture, 0, (uint64_t)COUNT * CHUNK_SIZE, PATIENCE), 0);
		fetch_fixture_stop(&fixture);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_scattered_chunks_are_one_request),
		cmocka_unit_test(test_few_are_no_trial),
		cmocka_unit_test(test_hosts_that_do_not),
		cmocka_unit_test(test_host_that_ceases_to),
		cmocka_unit_test(test_trial_of_a_missing_blob),
		cmocka_unit_test(test_one_range_instead),
		cmocka_unit_test(test_neighbours_are_not_asked_for_at_once),
		cmocka_unit_test(test_trial_stops_nobody),
		cmocka_unit_test(test_wrong_chunk_of_many),
		cmocka_unit_test(test_connection_ends),
		cmocka_unit_test(test_read_among_many),
		cmocka_unit_test(test_any_fault_of_many),
	};
	fetch_set_quiet(100);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
