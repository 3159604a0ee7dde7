/* Reads in order are run ahead of on a long way, up to the end of the file and no further. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <time.h>

#include "fs/fetch/fetch-private.h"
#include "tests/unit/fetch/fetch-fixture.h"

#define CHUNKS     40u
#define CHUNK      (200u << 10)
#define END        ((uint64_t)30 * CHUNK) /* of the file */
#define PATIENCE   60000
#define READ_BYTES (512u << 10)

static void start(FetchFixture *fixture, uint64_t ahead_max)
{
	BlobFixture layer;
	blob_fixture_make(&layer, CHUNKS, CHUNK, 1);
	fetch_fixture_start(fixture, &layer, 0);
	/* As if measured; only what was measured after a transfer changes it again. */
	atomic_store(&fixture->fetcher->ahead_max, ahead_max);
}

static uint32_t present(const FetchFixture *fixture)
{
	uint32_t count = 0;
	for (uint32_t i = 0; i < CHUNKS; i++)
		count += cache_blob_has(fixture->cache, i);
	return count;
}

static void test_in_order(void **state _unused_)
{
	FetchFixture fixture;
	start(&fixture, 16u << 20);
	fetch_read_ahead(fixture.blob, 0, READ_BYTES, END, true);
	fetch_read_ahead(fixture.blob, READ_BYTES, READ_BYTES, END, true);
	await_chunk(&fixture, 2 * READ_BYTES / CHUNK);
	/* The reader finds all at hand, and is followed all the same, to the end of the file. */
	for (uint64_t at = 2 * READ_BYTES; at < END; at += READ_BYTES) {
		atomic_store(&fixture.fetcher->ahead_max, 16u << 20);
		fetch_read_ahead(fixture.blob, at, at + READ_BYTES < END ? READ_BYTES : END - at, END, false);
	}
	await_chunk(&fixture, 29);
	/* What the reads themselves ask for is not part of it, and nothing behind the file is. */
	fetcher_stop(fixture.fetcher);
	for (uint32_t i = 30; i < CHUNKS; i++)
		assert_false(cache_blob_has(fixture.cache, i));
	fetch_fixture_stop(&fixture);
}

static void test_not_in_order(void **state _unused_)
{
	static const uint64_t offsets[] = { 20, 3, 27, 11, 0, 19 };
	FetchFixture fixture;
	start(&fixture, 16u << 20);
	for (size_t i = 0; i < 6; i++)
		fetch_read_ahead(fixture.blob, offsets[i] * CHUNK, 4096, END, true);
	/* Another file that begins where the last read was. */
	fetch_read_ahead(fixture.blob, 20 * CHUNK, 4096, END + CHUNK, true);
	fetcher_stop(fixture.fetcher);
	assert_int_equal(present(&fixture), 0);
	fetch_fixture_stop(&fixture);
}

static void test_several_at_once(void **state _unused_)
{
	FetchFixture fixture;
	start(&fixture, 1u << 20);
	/* Two files, read in turns. */
	for (uint64_t i = 0; i < 2; i++) {
		atomic_store(&fixture.fetcher->ahead_max, 1u << 20);
		fetch_read_ahead(fixture.blob, i * CHUNK, CHUNK, 20 * CHUNK, true);
		fetch_read_ahead(fixture.blob, (20 + i) * CHUNK, CHUNK, 38 * CHUNK, true);
	}
	await_chunk(&fixture, 2);
	await_chunk(&fixture, 22);
	fetch_fixture_stop(&fixture);
}

/* A start-up profile that is on its way says what will be read. */
static void test_not_beside_a_replay(void **state _unused_)
{
	static const uint32_t replayed = 38;
	FetchFixture fixture;
	FetchCounters counters;
	Pending other;
	start(&fixture, 16u << 20);
	fake_server_hold(fixture.server, true);
	assert_int_equal(fetch_prefetch(fixture.blob, FETCH_PROFILE, &replayed, 1, PATIENCE), 0);
	await_requests(&fixture, 1);
	for (uint64_t i = 0; i < 4; i++)
		fetch_read_ahead(fixture.blob, i * READ_BYTES, READ_BYTES, END, true);
	/* What was asked for before this has been started, too, when this is answered. */
	pending_start(&other, &fixture, CHUNKS - 1, 1, PATIENCE);
	await_requests(&fixture, 2);
	fake_server_hold(fixture.server, false);
	assert_int_equal(pending_end(&other), 0);
	fetcher_counters(fixture.fetcher, &counters);
	assert_int_equal(counters.requests, 2);
	struct timespec pause = { .tv_nsec = 1000000 };
	while (atomic_load(&fixture.fetcher->replays) > 0)
		(void)nanosleep(&pause, NULL);
	/* Once it is here, reads are run ahead of again. */
	atomic_store(&fixture.fetcher->ahead_max, 16u << 20);
	fetch_read_ahead(fixture.blob, 4 * READ_BYTES, READ_BYTES, END, true);
	fetch_read_ahead(fixture.blob, 5 * READ_BYTES, READ_BYTES, END, true);
	await_chunk(&fixture, 6 * READ_BYTES / CHUNK);
	fetch_fixture_stop(&fixture);
}

static void test_short_way(void **state _unused_)
{
	FetchFixture fixture;
	start(&fixture, 0);
	for (uint64_t i = 0; i < 10; i++)
		fetch_read_ahead(fixture.blob, i * CHUNK, CHUNK, END, true);
	fetcher_stop(fixture.fetcher);
	assert_int_equal(present(&fixture), 0);
	fetch_fixture_stop(&fixture);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_in_order),        cmocka_unit_test(test_not_in_order),
		cmocka_unit_test(test_several_at_once), cmocka_unit_test(test_not_beside_a_replay),
		cmocka_unit_test(test_short_way),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
