#include "tests/unit/fetch/fetch-fixture.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <semaphore.h>
#include <string.h>
#include <time.h>

static void note_report(void *arg, const char *sentence)
{
	FetchFixture *fixture = arg;
	fixture->reports++;
	(void)snprintf(fixture->last_report, sizeof(fixture->last_report), "%s", sentence);
}

static void make_fetcher(FetchFixture *fixture, unsigned connections, bool offline)
{
	char url[256], text[DIGEST_TEXT_SIZE];
	FetcherOptions options = { .connections = connections, .report = note_report, .report_arg = fixture };
	(void)snprintf(url, sizeof(url), "http://%s/v2/app/blobs/%s", fake_server_host(fixture->server),
		       digest_text(&fixture->layer.layer.blob, text));
	assert_int_equal(fetcher_new(&options, &fixture->fetcher), 0);
	assert_int_equal(fetcher_add_blob(fixture->fetcher, fixture->cache, offline ? NULL : url, &fixture->blob), 0);
}

void fetch_fixture_prepare(FetchFixture *fixture, const BlobFixture *layer, unsigned connections)
{
	*fixture = (FetchFixture){ .directory = scratch_make() };
	fixture->layer = *layer;
	/* The table points into memory that has not moved, but its own address has. */
	fixture->cache = blob_fixture_cache(&fixture->layer, &fixture->data_fd, &fixture->present_fd);
	blob_fixture_publish(&fixture->layer, fixture->directory);
	assert_int_equal(fake_server_new(fixture->directory, &fixture->server), 0);
	assert_int_equal(fetch_reader_new(&fixture->reader), 0);
	make_fetcher(fixture, connections, false);
}

void fetch_fixture_start(FetchFixture *fixture, const BlobFixture *layer, unsigned connections)
{
	fetch_fixture_prepare(fixture, layer, connections);
	assert_int_equal(fetcher_start(fixture->fetcher), 0);
}

void fetch_fixture_restart(FetchFixture *fixture, bool offline)
{
	assert_null(fetcher_free(fixture->fetcher));
	assert_int_equal(
		cache_blob_new(&fixture->layer.table, dup(fixture->data_fd), dup(fixture->present_fd), &fixture->cache),
		0);
	make_fetcher(fixture, 0, offline);
	assert_int_equal(fetcher_start(fixture->fetcher), 0);
}

void fetch_fixture_stop(FetchFixture *fixture)
{
	assert_null(fetcher_free(fixture->fetcher));
	assert_null(fetch_reader_free(fixture->reader));
	assert_null(fake_server_free(fixture->server));
	(void)close(fixture->data_fd);
	(void)close(fixture->present_fd);
	scratch_remove(fixture->directory);
	blob_fixture_done(&fixture->layer);
}

static void on_done(void *arg, int result)
{
	Pending *pending = arg;
	pending->result = result;
	pending->ended_at = fetch_now();
	pending->calls++;
	assert_int_equal(sem_post(pending->signal), 0);
}

static void pending_ask(Pending *pending, FetchFixture *fixture, uint64_t offset, uint64_t size, int64_t deadline)
{
	sem_t *signal = malloc(sizeof(*signal));
	assert_non_null(signal);
	assert_int_equal(sem_init(signal, 0, 0), 0);
	*pending = (Pending){ .signal = signal };
	assert_int_equal(fetch_wait(fixture->blob, offset, size, deadline, on_done, pending, &pending->wait), 0);
}

void pending_start(Pending *pending, FetchFixture *fixture, uint32_t first, uint32_t count, int64_t patience)
{
	Chunk low, high;
	chunk_table_get(&fixture->layer.table, first, &low);
	chunk_table_get(&fixture->layer.table, first + count - 1, &high);
	pending_ask(pending, fixture, low.tar_offset, high.tar_offset + high.tar_size - low.tar_offset,
		    fetch_now() + patience);
}

int pending_end(Pending *pending)
{
	while (sem_wait(pending->signal) < 0)
		;
	assert_int_equal(pending->calls, 1);
	(void)sem_destroy(pending->signal);
	free(pending->signal);
	return pending->result;
}

int fetch_and_compare(FetchFixture *fixture, uint64_t offset, uint64_t size, int64_t patience)
{
	_cleanup_free_ uint8_t *buffer = malloc(size + 1);
	assert_non_null(buffer);
	int64_t deadline = fetch_now() + patience;
	for (;;) {
		int r = fetch_read(fixture->blob, fixture->reader, offset, size, buffer);
		if (r == 0)
			assert_memory_equal(buffer, fixture->layer.tar + offset, size);
		if (r != -EAGAIN)
			return r;
		Pending pending;
		pending_ask(&pending, fixture, offset, size, deadline);
		r = pending_end(&pending);
		if (r < 0)
			return r;
	}
}

void await_requests(const FetchFixture *fixture, unsigned count)
{
	FakeCounts counts;
	do {
		struct timespec pause = { .tv_nsec = 1000000 };
		(void)nanosleep(&pause, NULL);
		fake_server_counts(fixture->server, &counts);
	} while (counts.requests < count);
}

void await_chunk(const FetchFixture *fixture, uint32_t chunk)
{
	struct timespec pause = { .tv_nsec = 1000000 };
	while (!cache_blob_has(fixture->cache, chunk))
		(void)nanosleep(&pause, NULL);
}
