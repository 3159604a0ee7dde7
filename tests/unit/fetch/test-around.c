/* On a long way what stands around a miss is asked for as well, in few requests, and only while the link has nothing to do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fs/fetch/fetch-private.h"
#include "tests/unit/fetch/fetch-fixture.h"

#define CHUNKS   64u
#define CHUNK    (16u << 10)
#define STRETCH  (256u << 10)
#define PATIENCE 60000

/* As if a way had been measured on which so much is under way. What a transfer measures then sets it anew, so a test looks at one miss alone. */
static void start(FetchFixture *fixture, uint64_t around, unsigned connections)
{
	BlobFixture layer;
	blob_fixture_make(&layer, CHUNKS, CHUNK, 1);
	fetch_fixture_start(fixture, &layer, connections);
	fixture->fetcher->pace.around = around; /* nothing was asked for: its thread rests */
}

static uint64_t begin_of(const FetchFixture *fixture, uint32_t chunk)
{
	Chunk one;
	chunk_table_get(&fixture->layer.table, chunk, &one);
	return one.blob_offset;
}

/* Does the chunk begin, or end, in the stretch of the other? */
static bool shares_stretch(const FetchFixture *fixture, uint32_t chunk, uint32_t other)
{
	uint64_t stretch = begin_of(fixture, other) / STRETCH;
	Chunk one;
	chunk_table_get(&fixture->layer.table, chunk, &one);
	return one.blob_offset / STRETCH == stretch || (one.blob_offset + one.blob_size - 1) / STRETCH == stretch;
}

static uint64_t requests_of(FetchFixture *fixture)
{
	FetchCounters counters;
	fetcher_counters(fixture->fetcher, &counters);
	return counters.requests;
}

static void miss(FetchFixture *fixture, Pending *pending, uint32_t chunk)
{
	pending_start(pending, fixture, chunk, 1, PATIENCE);
	assert_int_equal(pending_end(pending), 0);
}

static void test_the_stretch_of_a_miss_comes(void **state _unused_)
{
	enum { MISSED = 24 };
	FetchFixture fixture;
	Pending pending;
	start(&fixture, STRETCH, 0);
	miss(&fixture, &pending, MISSED);
	for (uint32_t i = 0; i < CHUNKS; i++)
		if (shares_stretch(&fixture, i, MISSED))
			await_chunk(&fixture, i);
	/* What stands behind the miss came with it, what stands before it in one more. */
	assert_int_equal(requests_of(&fixture), 2);
	fetcher_stop(fixture.fetcher);
	for (uint32_t i = 0; i < CHUNKS; i++)
		assert_int_equal(cache_blob_has(fixture.cache, i), shares_stretch(&fixture, i, MISSED));
	fetch_fixture_stop(&fixture);
}

/* The request that the reader waits for begins with what he waits for. */
static void test_the_miss_comes_first(void **state _unused_)
{
	enum { MISSED = 40 };
	FetchFixture fixture;
	Pending pending;
	FakeCounts counts;
	start(&fixture, STRETCH, 1); /* so that the other request waits */
	fake_server_hold(fixture.server, true);
	pending_start(&pending, &fixture, MISSED, 1, PATIENCE);
	await_requests(&fixture, 1);
	fake_server_counts(fixture.server, &counts);
	assert_int_equal(counts.last_first, begin_of(&fixture, MISSED));
	assert_true(counts.last_last > begin_of(&fixture, MISSED + 1));
	fake_server_hold(fixture.server, false);
	assert_int_equal(pending_end(&pending), 0);
	fetch_fixture_stop(&fixture);
}

/* What comes with a miss and is read by nobody holds up no other reader: it is cut for him where there is no other connection. */
static void test_the_rest_gives_way(void **state _unused_)
{
	FetchFixture fixture;
	Pending first, second;
	FetchCounters counters;
	start(&fixture, STRETCH, 1);
	fake_server_fault(fixture.server, FAKE_STALL_BODY, 1);
	miss(&fixture, &first, 32);
	miss(&fixture, &second, 5);
	fetcher_counters(fixture.fetcher, &counters);
	assert_int_equal(counters.retries, 0); /* it had not to fail for that */
	fetch_fixture_stop(&fixture);
}

/* The first and the last stretch of a blob, which its ends cut off. */
static void test_at_the_ends(void **state _unused_)
{
	static const uint32_t misses[] = { 0, CHUNKS - 1 };
	for (size_t i = 0; i < 2; i++) {
		FetchFixture fixture;
		Pending pending;
		start(&fixture, STRETCH, 0);
		miss(&fixture, &pending, misses[i]);
		for (uint32_t chunk = 0; chunk < CHUNKS; chunk++)
			if (shares_stretch(&fixture, chunk, misses[i]))
				await_chunk(&fixture, chunk);
		fetch_fixture_stop(&fixture);
	}
}

static void test_nothing_more_on_a_short_way(void **state _unused_)
{
	FetchFixture fixture;
	Pending pending;
	start(&fixture, 0, 0);
	miss(&fixture, &pending, 20);
	assert_int_equal(requests_of(&fixture), 1);
	fetcher_stop(fixture.fetcher);
	for (uint32_t i = 0; i < CHUNKS; i++)
		assert_int_equal(cache_blob_has(fixture.cache, i), i == 20);
	fetch_fixture_stop(&fixture);
}

/* Who misses while the link is busy gets his chunk, and nothing else is put before the others'. */
static void test_nothing_more_on_a_busy_link(void **state _unused_)
{
	FetchFixture fixture;
	Pending busy, pending;
	start(&fixture, STRETCH, 0);
	fake_server_hold(fixture.server, true);
	pending_start(&busy, &fixture, 0, 20, PATIENCE); /* more than a stretch */
	await_requests(&fixture, 1);
	pending_start(&pending, &fixture, 60, 1, PATIENCE);
	await_requests(&fixture, 2);
	fake_server_hold(fixture.server, false);
	assert_int_equal(pending_end(&busy), 0);
	assert_int_equal(pending_end(&pending), 0);
	fetcher_stop(fixture.fetcher);
	for (uint32_t i = 40; i < CHUNKS; i++)
		assert_int_equal(cache_blob_has(fixture.cache, i), i == 60);
	fetch_fixture_stop(&fixture);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_stretch_of_a_miss_comes), cmocka_unit_test(test_the_miss_comes_first),
		cmocka_unit_test(test_the_rest_gives_way),          cmocka_unit_test(test_at_the_ends),
		cmocka_unit_test(test_nothing_more_on_a_short_way), cmocka_unit_test(test_nothing_more_on_a_busy_link),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
