/* Readers, writers and an eviction of the same chunks at the same time, which may be killed: whatever a reader gets is right. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <time.h>

#include "evict-fixture.h"
#include "fs/cache/cache-evict.h"

#define SERVERS 3u
#define READERS 2u /* threads a server */
#define KILLS   40u

typedef struct Stress {
	EvictFixture *fixture;
	CacheBlob *servers[SERVERS];
	_Atomic bool stop;
	_Atomic uint64_t hits, fetches;
} Stress;

typedef struct Reader {
	Stress *stress;
	CacheBlob *blob;
	uint32_t seed;
	pthread_t thread;
} Reader;

static uint32_t next_random(uint32_t *seed)
{
	*seed = *seed * 1664525 + 1013904223;
	return *seed >> 8;
}

/* As a fetcher does: what is absent is fetched, and stored unless it is being evicted. */
static void *read_chunks(void *arg)
{
	Reader *reader = arg;
	Stress *stress = reader->stress;
	while (!atomic_load(&stress->stop)) {
		uint32_t chunk = next_random(&reader->seed) % EVICT_CHUNKS;
		if (evict_fixture_read(stress->fixture, reader->blob, chunk) == 0) {
			(void)atomic_fetch_add(&stress->hits, 1);
			continue;
		}
		int r = cache_blob_write(reader->blob, chunk, stress->fixture->frames[chunk], EVICT_FRAME_SIZE);
		assert_true(r == 0 || r == -EBUSY);
		(void)atomic_fetch_add(&stress->fetches, 1);
	}
	return NULL;
}

static void pause_for(long nanoseconds)
{
	(void)nanosleep(&(struct timespec){ .tv_nsec = nanoseconds }, NULL);
}

static void start(Stress *stress, Reader readers[static SERVERS * READERS])
{
	for (uint32_t i = 0; i < SERVERS; i++)
		stress->servers[i] = evict_fixture_open(stress->fixture, &stress->fixture->digest);
	for (uint32_t i = 0; i < SERVERS * READERS; i++) {
		readers[i] = (Reader){ .stress = stress, .blob = stress->servers[i % SERVERS], .seed = i + 1 };
		assert_int_equal(pthread_create(&readers[i].thread, NULL, read_chunks, &readers[i]), 0);
	}
}

static void end(Stress *stress, Reader readers[static SERVERS * READERS])
{
	/* Readers of a busy machine may have got little time. What is absent at first, all of it, makes enough fetches. */
	while (atomic_load(&stress->hits) <= 100 || atomic_load(&stress->fetches) <= 20)
		pause_for(1000000);
	atomic_store(&stress->stop, true);
	for (uint32_t i = 0; i < SERVERS * READERS; i++)
		assert_int_equal(pthread_join(readers[i].thread, NULL), 0);
	for (uint32_t i = 0; i < SERVERS; i++)
		assert_null(cache_blob_free(stress->servers[i]));
}

static void evict_some(EvictFixture *fixture, uint32_t *seed)
{
	uint32_t first = next_random(seed) % EVICT_CHUNKS, most = EVICT_CHUNKS - first;
	evict_fixture_punch(fixture, &fixture->digest, first, 1 + next_random(seed) % (most < 5 ? most : 5));
}

static void test_beside_readers(void **state)
{
	Stress stress = { .fixture = *state };
	Reader readers[SERVERS * READERS];
	uint32_t seed = 99;
	start(&stress, readers);
	for (unsigned i = 0; i < 2000; i++) {
		evict_some(stress.fixture, &seed);
		if (i % 8 == 0)
			pause_for(100000);
	}
	end(&stress, readers);
}

static void test_killed_beside_readers(void **state)
{
	Stress stress = { .fixture = *state };
	Reader readers[SERVERS * READERS];
	pid_t children[KILLS];
	uint32_t seed = 5;
	/* Before there are threads: each child evicts until it is killed, one after the other. */
	CacheBlob *blob = evict_fixture_open(stress.fixture, &stress.fixture->digest);
	assert_null(cache_blob_free(blob));
	for (unsigned i = 0; i < KILLS; i++) {
		children[i] = fork();
		assert_true(children[i] >= 0);
		if (children[i] == 0) {
			(void)raise(SIGSTOP);
			for (seed += i;;)
				evict_some(stress.fixture, &seed);
		}
		assert_int_equal(waitpid(children[i], NULL, WUNTRACED), children[i]);
	}
	start(&stress, readers);
	for (unsigned i = 0; i < KILLS; i++) {
		CacheEvicted evicted;
		assert_int_equal(kill(children[i], SIGCONT), 0);
		pause_for(1000000 + next_random(&seed) % 3000000);
		assert_int_equal(kill(children[i], SIGKILL), 0);
		assert_int_equal(waitpid(children[i], NULL, 0), children[i]);
		if (i % 4 == 3) /* ends what they had begun */
			assert_int_equal(cache_evict(stress.fixture->store, &(CacheEvict){ 0 }, &evicted, NULL), 0);
	}
	end(&stress, readers);
	for (uint32_t i = 0; i < EVICT_CHUNKS; i++) {
		blob = evict_fixture_open(stress.fixture, &stress.fixture->digest);
		evict_fixture_put(stress.fixture, blob, i);
		assert_int_equal(evict_fixture_read(stress.fixture, blob, i), 0);
		assert_null(cache_blob_free(blob));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_beside_readers, evict_fixture_set_up, evict_fixture_tear_down),
		cmocka_unit_test_setup_teardown(test_killed_beside_readers, evict_fixture_set_up,
						evict_fixture_tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
