/* Many threads read, wait and cancel while the server goes from one fault to the next and the disk rots. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "tests/unit/fetch/fetch-fixture.h"

#define CHUNKS   200u
#define THREADS  4
#define ROUNDS   60
#define PATIENCE 60000

typedef struct Worker {
	FetchFixture fixture; /* a copy of the shared one, with a reader of its own */
	pthread_t thread;
	uint32_t seed;
} Worker;

static uint32_t next(uint32_t *seed)
{
	*seed = *seed * 1664525u + 1013904223u;
	return *seed >> 8;
}

static void *read_at_random(void *arg)
{
	Worker *worker = arg;
	uint64_t total = (uint64_t)CHUNKS * CHUNK_SIZE;
	for (int i = 0; i < ROUNDS; i++) {
		uint64_t offset = next(&worker->seed) % total;
		uint64_t size = next(&worker->seed) % (6 * CHUNK_SIZE);
		if (size > total - offset)
			size = total - offset;
		assert_int_equal(fetch_and_compare(&worker->fixture, offset, size, PATIENCE), 0);
	}
	return NULL;
}

static void *cancel_at_random(void *arg)
{
	Worker *worker = arg;
	for (int i = 0; i < ROUNDS * 4; i++) {
		Pending pending;
		uint32_t first = next(&worker->seed) % (CHUNKS - 10);
		pending_start(&pending, &worker->fixture, first, 10, (int64_t)(next(&worker->seed) % 20));
		int r = pending_end(&pending);
		assert_true(r == 0 || r == -ETIMEDOUT);
	}
	return NULL;
}

static void start_worker(Worker *worker, const FetchFixture *fixture, uint32_t seed, void *(*run)(void *))
{
	worker->fixture = *fixture;
	worker->seed = seed;
	assert_int_equal(fetch_reader_new(&worker->fixture.reader), 0);
	assert_int_equal(pthread_create(&worker->thread, NULL, run, worker), 0);
}

static void test_storm(void **state _unused_)
{
	static const FakeFault faults[] = { FAKE_NONE,     FAKE_CORRUPT, FAKE_RESET_BODY, FAKE_ERROR,     FAKE_TRUNCATE,
					    FAKE_TOO_LONG, FAKE_WHOLE,   FAKE_REDIRECT,   FAKE_STALL_BODY };
	static Worker workers[THREADS + 1];
	BlobFixture layer;
	FetchFixture fixture;
	blob_fixture_make(&layer, CHUNKS, CHUNK_SIZE, 9);
	fetch_fixture_start(&fixture, &layer, 4);
	for (uint32_t i = 0; i <= THREADS; i++)
		start_worker(&workers[i], &fixture, i + 1, i < THREADS ? read_at_random : cancel_at_random);
	for (uint32_t i = 0, seed = 77; i < 60; i++) {
		struct timespec pause = { .tv_nsec = 20000000 };
		fake_server_fault(fixture.server, faults[i % ELEMENTS(faults)], 3);
		if (i % 10 == 9) {
			fake_server_kill(fixture.server);
			(void)nanosleep(&pause, NULL);
			assert_int_equal(fake_server_revive(fixture.server), 0);
		}
		(void)nanosleep(&pause, NULL);
		off_t at = (off_t)(next(&seed) % fixture.layer.layer.index_offset);
		assert_int_equal(pwrite(fixture.data_fd, "rotten", 6, at), 6);
	}
	fake_server_fault(fixture.server, FAKE_NONE, 0);
	for (size_t i = 0; i <= THREADS; i++) {
		assert_int_equal(pthread_join(workers[i].thread, NULL), 0);
		assert_null(fetch_reader_free(workers[i].fixture.reader));
	}
	assert_int_equal(fetch_and_compare(&fixture, 0, (uint64_t)CHUNKS * CHUNK_SIZE, PATIENCE), 0);
	fetch_fixture_stop(&fixture);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_storm),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
