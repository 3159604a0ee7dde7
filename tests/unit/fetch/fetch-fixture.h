/* A fetcher of one blob with a fake server behind it, for the tests of waits and reads. */
#pragma once

#include "fs/fetch/fetch.h"
#include "tests/fake/fake-server.h"
#include "tests/unit/fetch/blob-fixture.h"

#define CHUNK_SIZE 40000u

typedef struct FetchFixture {
	BlobFixture layer;
	char *directory;
	FakeServer *server;
	Fetcher *fetcher;
	FetchBlob *blob;
	FetchReader *reader;
	CacheBlob *cache; /* the fetcher's */
	int data_fd, present_fd;
	unsigned reports; /* sentences; written by the fetcher's thread, read after it has ended */
	char last_report[512];
} FetchFixture;

/* `layer` is taken over. `connections` as in FetcherOptions. */
void fetch_fixture_start(FetchFixture *fixture, const BlobFixture *layer, unsigned connections);

/* The same, but for the start of the fetcher. */
void fetch_fixture_prepare(FetchFixture *fixture, const BlobFixture *layer, unsigned connections);

/* The fetcher ends and another starts, with what the cache files hold now, and no source if `offline`. */
void fetch_fixture_restart(FetchFixture *fixture, bool offline);
void fetch_fixture_stop(FetchFixture *fixture);

/* A wait and its result. */
typedef struct Pending {
	FetchWait *wait;
	void *signal; /* sem_t */
	int result;
	int64_t ended_at;
	_Atomic unsigned calls;
} Pending;

/* Asks for chunks [first, first + count), `patience` milliseconds long. */
void pending_start(Pending *pending, FetchFixture *fixture, uint32_t first, uint32_t count, int64_t patience);

/* Waits for the end; returns the result. */
int pending_end(Pending *pending);

/* Reads as a server of files would: fetch_read(), and fetch_wait() while it says -EAGAIN. Compares with the tar. */
int fetch_and_compare(FetchFixture *fixture, uint64_t offset, uint64_t size, int64_t patience);

/* Waits until the server has seen `count` requests. */
void await_requests(const FetchFixture *fixture, unsigned count);

/* Waits until the chunk is in the cache. */
void await_chunk(const FetchFixture *fixture, uint32_t chunk);
