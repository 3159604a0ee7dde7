/* The background fill: what it fetches, proves, seals, and what stops it for a while. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "fs/cache/cache-present.h"
#include "fs/cache/cache-seal.h"
#include "fs/fetch/fetch-fill.h"
#include "fs/fetch/fetch-private.h"
#include "tests/unit/fetch/fetch-fixture.h"

#define CHUNKS   20u
#define PATIENCE 60000

static void pause_shortly(void)
{
	struct timespec pause = { .tv_nsec = 2000000 };
	(void)nanosleep(&pause, NULL);
}

/* In libc's place: a disk that takes its time. */
static _Atomic bool slow, syncing;

int syncfs(int fd)
{
	syncing = true;
	while (slow)
		pause_shortly();
	return (int)syscall(SYS_syncfs, fd);
}

typedef struct Filled {
	FetchFixture fetch;
	FetchFill *fill;
	int seal_fd; /* the fill has another descriptor of it */
	int place;   /* for a decoded copy, likewise; -1: none is wanted */
	_Atomic unsigned failures;
	char last_report[512];
} Filled;

static void note_report(void *arg, bool failed, const char *sentence)
{
	Filled *filled = arg;
	(void)snprintf(filled->last_report, sizeof(filled->last_report), "%s", sentence);
	filled->failures += failed;
}

static void start(Filled *filled, const BlobFixture *layer)
{
	*filled = (Filled){ .seal_fd = memfd_create("seal", MFD_CLOEXEC), .place = -1 };
	fetch_fixture_start(&filled->fetch, layer, 0);
}

static void start_plain(Filled *filled)
{
	BlobFixture layer;
	blob_fixture_make(&layer, CHUNKS, CHUNK_SIZE, 1);
	start(filled, &layer);
}

static void fill_with(Filled *filled, uint64_t rate, const Digest *diff_id)
{
	FetchFillOptions options = { .rate = rate, .retry = 100, .report = note_report, .report_arg = filled };
	assert_int_equal(fetch_fill_new(&options, &filled->fill), 0);
	assert_int_equal(fetch_fill_add(filled->fill, filled->fetch.blob, diff_id, dup(filled->seal_fd),
					filled->place < 0 ? -1 : dup(filled->place)),
			 0);
}

static void fill(Filled *filled)
{
	fill_with(filled, 0, &filled->fetch.layer.layer.diff_id);
}

static void stop(Filled *filled)
{
	assert_null(fetch_fill_free(filled->fill));
	filled->fill = NULL;
	fetch_fixture_stop(&filled->fetch);
	(void)close(filled->seal_fd);
	close_p(&filled->place);
}

static void await_state(Filled *filled, FetchFillState state)
{
	while (fetch_fill_state(filled->fill, filled->fetch.blob) != state)
		pause_shortly();
}

static bool is_sealed(const Filled *filled)
{
	return cache_seal_is_valid(filled->seal_fd, &filled->fetch.layer.layer.diff_id);
}

static FetchCounters counters_of(const Filled *filled)
{
	FetchCounters counters;
	fetcher_counters(filled->fetch.fetcher, &counters);
	return counters;
}

/* Everything can be read without a source. */
static void assert_whole(Filled *filled)
{
	assert_null(fetch_fill_free(filled->fill));
	filled->fill = NULL;
	fetch_fixture_restart(&filled->fetch, true);
	assert_int_equal(fetch_and_compare(&filled->fetch, 0, CHUNKS * CHUNK_SIZE, PATIENCE), 0);
}

static void note_gone(void *arg)
{
	*(_Atomic bool *)arg = true;
}

static void remove_and_wait(Filled *filled)
{
	_Atomic bool gone = false;
	fetch_fill_remove(filled->fill, filled->fetch.blob, note_gone, (void *)(uintptr_t)&gone);
	while (!gone)
		pause_shortly();
}

static void test_fills_and_seals(void **state _unused_)
{
	Filled filled;
	start_plain(&filled);
	assert_false(is_sealed(&filled));
	fill(&filled);
	await_state(&filled, FETCH_FILL_SEALED);
	assert_true(is_sealed(&filled));
	assert_int_equal(counters_of(&filled).bytes, filled.fetch.layer.layer.index_offset);
	assert_int_equal(filled.failures, 0);
	uint64_t present, total;
	fetch_blob_present(filled.fetch.blob, &present, &total);
	assert_int_equal(present, total);
	assert_int_equal(total, filled.fetch.layer.layer.index_offset);
	assert_whole(&filled);
	stop(&filled);
}

/* What is here is not fetched again, and what is sealed is not even read again. */
static void test_resumes(void **state _unused_)
{
	Filled filled;
	start_plain(&filled);
	assert_int_equal(fetch_and_compare(&filled.fetch, 3 * CHUNK_SIZE, 7 * CHUNK_SIZE, PATIENCE), 0);
	fill(&filled);
	await_state(&filled, FETCH_FILL_SEALED);
	assert_int_equal(counters_of(&filled).chunks, CHUNKS);
	assert_int_equal(counters_of(&filled).bytes, filled.fetch.layer.layer.index_offset);
	assert_null(fetch_fill_free(filled.fill));
	fetch_fixture_restart(&filled.fetch, false);
	fill(&filled);
	await_state(&filled, FETCH_FILL_SEALED);
	assert_int_equal(counters_of(&filled).requests, 0);
	stop(&filled);
}

/* A seal of a blob that has lost a chunk since then is no seal. */
static void test_seal_without_chunk(void **state _unused_)
{
	Filled filled;
	start_plain(&filled);
	fill(&filled);
	await_state(&filled, FETCH_FILL_SEALED);
	assert_null(fetch_fill_free(filled.fill));
	cache_blob_forget(filled.fetch.cache, 5);
	fake_server_hold(filled.fetch.server, true);
	fill(&filled);
	await_state(&filled, FETCH_FILL_FETCHING);
	assert_false(is_sealed(&filled));
	fake_server_hold(filled.fetch.server, false);
	await_state(&filled, FETCH_FILL_SEALED);
	assert_int_equal(counters_of(&filled).chunks, CHUNKS + 1);
	assert_true(is_sealed(&filled));
	stop(&filled);
}

/* Another server has filled and sealed the blob after this one opened it. */
static void test_sealed_by_another(void **state _unused_)
{
	Filled filled;
	CacheBlob *other;
	start_plain(&filled);
	const BlobFixture *layer = &filled.fetch.layer;
	assert_int_equal(cache_blob_new(&layer->table, dup(filled.fetch.data_fd), dup(filled.fetch.present_fd), &other),
			 0);
	for (uint32_t i = 0; i < CHUNKS; i++) {
		Chunk chunk;
		chunk_table_get(&layer->table, i, &chunk);
		assert_int_equal(cache_blob_write(other, i, layer->blob + chunk.blob_offset, chunk.blob_size), 0);
	}
	assert_int_equal(cache_seal_write(filled.seal_fd, &layer->layer.diff_id), 0);
	assert_null(cache_blob_free(other));
	fill(&filled);
	await_state(&filled, FETCH_FILL_SEALED);
	assert_true(is_sealed(&filled));
	assert_int_equal(counters_of(&filled).requests, 0);
	assert_whole(&filled);
	stop(&filled);
}

static void test_wrong_layer_is_not_sealed(void **state _unused_)
{
	Filled filled;
	Digest other;
	start_plain(&filled);
	assert_int_equal(digest_of("x", 1, &other), 0);
	fill_with(&filled, 0, &other);
	await_state(&filled, FETCH_FILL_WRONG);
	assert_false(cache_seal_is_valid(filled.seal_fd, &other));
	assert_false(is_sealed(&filled));
	while (filled.failures == 0)
		pause_shortly();
	assert_non_null(strstr(filled.last_report, "published wrong"));
	stop(&filled);
}

static void test_spoiled_layer_is_not_sealed(void **state _unused_)
{
	Filled filled;
	BlobFixture layer;
	blob_fixture_make_spoiled(&layer, CHUNKS, CHUNK_SIZE, 1, 4);
	start(&filled, &layer);
	fill(&filled);
	await_state(&filled, FETCH_FILL_WRONG);
	assert_false(is_sealed(&filled));
	stop(&filled);
}

static void spoil(const Filled *filled, uint32_t number)
{
	uint8_t zeros[64] = { 0 };
	Chunk chunk;
	chunk_table_get(&filled->fetch.layer.table, number, &chunk);
	assert_int_equal(pwrite(filled->fetch.data_fd, zeros, sizeof(zeros), (off_t)chunk.blob_offset + 100),
			 sizeof(zeros));
}

/* Rot that comes after a chunk was checked is no fault of the publisher. */
static void test_late_rot_is_mended(void **state _unused_)
{
	Filled filled;
	start_plain(&filled);
	assert_int_equal(fetch_and_compare(&filled.fetch, 0, CHUNKS * CHUNK_SIZE, PATIENCE), 0);
	spoil(&filled, 7);
	fill(&filled);
	while (!is_sealed(&filled) && filled.failures == 0)
		pause_shortly();
	assert_int_equal(filled.failures, 0);
	assert_int_equal(counters_of(&filled).chunks, CHUNKS + 1);
	assert_whole(&filled);
	stop(&filled);
}

/* The fill has proven all chunks but the last, which it is asking for. */
static void start_almost_proven(Filled *filled)
{
	start_plain(filled);
	assert_int_equal(fetch_and_compare(&filled->fetch, 0, CHUNKS * CHUNK_SIZE, PATIENCE), 0);
	fetch_fixture_restart(&filled->fetch, false);
	spoil(filled, CHUNKS - 1);
	fake_server_hold(filled->fetch.server, true);
	fill(filled);
	while (counters_of(filled).requests < 1)
		pause_shortly();
}

static void clear_first_bits(const Filled *filled)
{
	uint8_t byte = 0xf0;
	assert_int_equal(pwrite(filled->fetch.present_fd, &byte, 1, 0), 1);
}

/* Another process evicts a chunk that was proven already. */
static void test_evicted_is_not_sealed(void **state _unused_)
{
	Filled filled;
	uint8_t generation[4];
	start_almost_proven(&filled);
	store_le32(generation, 2);
	assert_int_equal(pwrite(filled.fetch.present_fd, generation, 4, (off_t)present_mark(CHUNKS, 0)), 4);
	clear_first_bits(&filled);
	fake_server_hold(filled.fetch.server, false);
	while (!is_sealed(&filled) && filled.failures == 0)
		pause_shortly();
	assert_false(is_sealed(&filled));
	assert_int_equal(fetch_fill_state(filled.fill, filled.fetch.blob), FETCH_FILL_NONE);
	assert_non_null(strstr(filled.last_report, "evicted"));
	stop(&filled);
}

/* Two writers of one byte of the bitmap may undo each other's bits; a seal without them would be none. */
static void test_lost_bits_come_back(void **state _unused_)
{
	Filled filled;
	start_almost_proven(&filled);
	clear_first_bits(&filled);
	fake_server_hold(filled.fetch.server, false);
	await_state(&filled, FETCH_FILL_SEALED);
	_cleanup_free_ uint8_t *bits = cache_bits_read(filled.fetch.present_fd, CHUNKS);
	assert_non_null(bits);
	for (uint32_t i = 0; i < CHUNKS; i++)
		assert_true(cache_bits_have(bits, i));
	assert_whole(&filled);
	stop(&filled);
}

static void test_rot_is_mended(void **state _unused_)
{
	Filled filled;
	start_plain(&filled);
	assert_int_equal(fetch_and_compare(&filled.fetch, 0, CHUNKS * CHUNK_SIZE, PATIENCE), 0);
	fetch_fixture_restart(&filled.fetch, false);
	spoil(&filled, 7);
	fill(&filled);
	await_state(&filled, FETCH_FILL_SEALED);
	assert_int_equal(counters_of(&filled).chunks, 1);
	assert_whole(&filled);
	stop(&filled);
}

static void test_bad_source(void **state _unused_)
{
	Filled filled;
	start_plain(&filled);
	fake_server_fault(filled.fetch.server, FAKE_CORRUPT, 2);
	fill(&filled);
	await_state(&filled, FETCH_FILL_SEALED);
	assert_true(counters_of(&filled).verify_failures > 0);
	assert_whole(&filled);
	stop(&filled);
}

static void test_source_away(void **state _unused_)
{
	Filled filled;
	start_plain(&filled);
	fake_server_kill(filled.fetch.server);
	fill(&filled);
	while (counters_of(&filled).retries < 2)
		pause_shortly();
	assert_int_equal(fetch_fill_state(filled.fill, filled.fetch.blob), FETCH_FILL_FETCHING);
	assert_int_equal(fake_server_revive(filled.fetch.server), 0);
	await_state(&filled, FETCH_FILL_SEALED);
	stop(&filled);
}

/* The disk takes no more than the first half; readers get all the same, and the fill goes on once there is room. */
static void test_full_disk(void **state _unused_)
{
	Filled filled;
	struct rlimit before;
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	(void)signal(SIGXFSZ, SIG_IGN);
	struct rlimit small = { .rlim_cur = 10 * CHUNK_SIZE, .rlim_max = before.rlim_max };
	start_plain(&filled);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	fill(&filled);
	await_state(&filled, FETCH_FILL_FULL);
	assert_int_equal(fetch_and_compare(&filled.fetch, 15 * CHUNK_SIZE, 2 * CHUNK_SIZE, PATIENCE), 0);
	/* It tries again and again, but says so once. */
	uint64_t requests = counters_of(&filled).requests;
	while (counters_of(&filled).requests < requests + 2)
		pause_shortly();
	assert_int_equal(filled.failures, 1);
	assert_false(is_sealed(&filled));
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	await_state(&filled, FETCH_FILL_SEALED);
	assert_int_equal(filled.failures, 1);
	assert_whole(&filled);
	stop(&filled);
}

/* At a byte a second there is nothing after the first chunk for a long time. */
static void test_rate(void **state _unused_)
{
	Filled filled;
	start_plain(&filled);
	fill_with(&filled, 1, &filled.fetch.layer.layer.diff_id);
	while (counters_of(&filled).chunks < 1)
		pause_shortly();
	for (unsigned i = 0; i < 50; i++)
		pause_shortly();
	assert_int_equal(counters_of(&filled).chunks, 1);
	/* Readers are not held by it. */
	assert_int_equal(fetch_and_compare(&filled.fetch, 10 * CHUNK_SIZE, 5 * CHUNK_SIZE, PATIENCE), 0);
	stop(&filled);
}

/* Blobs go while they are filled, before it and after it; the Fetcher goes on. */
static void test_removal(void **state _unused_)
{
	Filled filled;
	start_plain(&filled);
	fake_server_hold(filled.fetch.server, true);
	fill(&filled);
	await_requests(&filled.fetch, 1);
	remove_and_wait(&filled);
	assert_int_equal(fetch_fill_state(filled.fill, filled.fetch.blob), FETCH_FILL_NONE);
	remove_and_wait(&filled);
	fake_server_hold(filled.fetch.server, false);
	const Digest *diff_id = &filled.fetch.layer.layer.diff_id;
	assert_int_equal(fetch_fill_add(filled.fill, filled.fetch.blob, diff_id, dup(filled.seal_fd), -1), 0);
	await_state(&filled, FETCH_FILL_SEALED);
	remove_and_wait(&filled);
	assert_int_equal(fetch_fill_add(filled.fill, filled.fetch.blob, diff_id, -1, -1), -EBADF);
	assert_int_equal(fetch_and_compare(&filled.fetch, 0, CHUNKS * CHUNK_SIZE, PATIENCE), 0);
	stop(&filled);
}

/* A file that has a name, since a place without one is taken for evicted. */
static void make_place(Filled *filled, char path[static PATH_MAX])
{
	(void)snprintf(path, PATH_MAX, "%s/imgfs-place-XXXXXX", getenv("TMPDIR") ?: "/tmp");
	filled->place = mkstemp(path);
	assert_true(filled->place >= 0);
}

static void await_copy(const Filled *filled)
{
	while (!atomic_load(&filled->fetch.blob->decoded))
		pause_shortly();
}

/* No copy, or one of which every page is right. */
static bool has_copy(const Filled *filled)
{
	const BlobFixture *layer = &filled->fetch.layer;
	CacheDecoded *copy;
	if (cache_decoded_open(dup(filled->place), &layer->layer.diff_id, layer->table.tar_size, &copy) < 0)
		return false;
	assert_int_equal(cache_decoded_check(copy), 0);
	assert_null(cache_decoded_free(copy));
	return true;
}

/* Reads go to the copy at once: the blob's own bytes can go. */
static void test_makes_a_copy(void **state _unused_)
{
	Filled filled;
	char path[PATH_MAX];
	start_plain(&filled);
	make_place(&filled, path);
	fill(&filled);
	await_state(&filled, FETCH_FILL_SEALED);
	await_copy(&filled);
	assert_true(has_copy(&filled));
	for (uint32_t i = 0; i < CHUNKS; i++)
		cache_blob_forget(filled.fetch.cache, i);
	assert_int_equal(fetch_and_compare(&filled.fetch, 0, CHUNKS * CHUNK_SIZE, PATIENCE), 0);
	assert_int_equal(counters_of(&filled).chunks, CHUNKS);
	assert_int_equal(filled.failures, 0);
	assert_int_equal(unlink(path), 0);
	stop(&filled);
}

/* A layer that is sealed already is decoded for it; half a copy that a dead server has left is none. */
static void test_copy_of_a_sealed_layer(void **state _unused_)
{
	Filled filled;
	char path[PATH_MAX];
	start_plain(&filled);
	fill(&filled);
	await_state(&filled, FETCH_FILL_SEALED);
	make_place(&filled, path);
	CacheDecodedWriter *half;
	const BlobFixture *layer = &filled.fetch.layer;
	assert_int_equal(
		cache_decoded_writer_in(filled.place, &layer->layer.diff_id, layer->table.tar_size, 0, &half, NULL), 0);
	assert_int_equal(cache_decoded_writer_add(half, layer->blob, CHUNK_SIZE, NULL), 0);
	/* As a kill leaves it: what the writer would take back is put there again. */
	size_t size = (size_t)lseek(filled.place, 0, SEEK_END);
	uint8_t *bytes = malloc(size);
	assert_non_null(bytes);
	assert_int_equal(pread(filled.place, bytes, size, 0), size);
	assert_null(cache_decoded_writer_free(half));
	assert_int_equal(lseek(filled.place, 0, SEEK_END), 0);
	assert_int_equal(pwrite(filled.place, bytes, size, 0), size);
	free(bytes);
	assert_true(cache_decoded_is_place(filled.place));
	assert_int_equal(fetch_fill_add(filled.fill, filled.fetch.blob, &layer->layer.diff_id, dup(filled.seal_fd),
					dup(filled.place)),
			 0);
	await_copy(&filled);
	assert_true(has_copy(&filled));
	assert_true(is_sealed(&filled));
	assert_int_equal(counters_of(&filled).chunks, CHUNKS);
	assert_int_equal(unlink(path), 0);
	stop(&filled);
}

/* Of what is not the layer no copy is made, and none in a place that is gone. */
static void test_no_copy(void **state _unused_)
{
	Filled filled;
	char path[PATH_MAX];
	Digest other;
	start_plain(&filled);
	make_place(&filled, path);
	assert_int_equal(digest_of("x", 1, &other), 0);
	fill_with(&filled, 0, &other);
	await_state(&filled, FETCH_FILL_WRONG);
	assert_null(fetch_fill_free(filled.fill));
	assert_true(cache_decoded_is_place(filled.place));
	assert_int_equal(lseek(filled.place, 0, SEEK_END), 0);
	assert_int_equal(unlink(path), 0);
	fill(&filled);
	await_state(&filled, FETCH_FILL_SEALED);
	assert_null(fetch_fill_free(filled.fill));
	filled.fill = NULL;
	assert_false(has_copy(&filled));
	assert_null(atomic_load(&filled.fetch.blob->decoded));
	stop(&filled);
}

static void test_end_under_way(void **state _unused_)
{
	Filled filled;
	start_plain(&filled);
	fake_server_fault(filled.fetch.server, FAKE_STALL_BODY, 0);
	fill(&filled);
	await_requests(&filled.fetch, 1);
	stop(&filled);
}

/* Nobody who takes an image away waits for the disk; the blob is the fill's until that has answered. */
static void test_removed_while_the_disk_syncs(void **state _unused_)
{
	Filled filled;
	_Atomic bool gone = false;
	start_plain(&filled);
	slow = true;
	syncing = false;
	fill(&filled);
	while (!syncing)
		pause_shortly();
	fetch_fill_remove(filled.fill, filled.fetch.blob, note_gone, (void *)(uintptr_t)&gone);
	assert_false(gone);
	assert_int_equal(fetch_fill_state(filled.fill, filled.fetch.blob), FETCH_FILL_NONE);
	slow = false;
	while (!gone)
		pause_shortly();
	/* And at the end of the fill at the latest. */
	gone = false;
	slow = true;
	syncing = false;
	assert_int_equal(cache_seal_clear(filled.seal_fd), 0);
	assert_int_equal(fetch_fill_add(filled.fill, filled.fetch.blob, &filled.fetch.layer.layer.diff_id,
					dup(filled.seal_fd), -1),
			 0);
	while (!syncing)
		pause_shortly();
	fetch_fill_remove(filled.fill, filled.fetch.blob, note_gone, (void *)(uintptr_t)&gone);
	slow = false;
	assert_null(fetch_fill_free(filled.fill));
	assert_true(gone);
	filled.fill = NULL;
	stop(&filled);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fills_and_seals),
		cmocka_unit_test(test_resumes),
		cmocka_unit_test(test_seal_without_chunk),
		cmocka_unit_test(test_sealed_by_another),
		cmocka_unit_test(test_wrong_layer_is_not_sealed),
		cmocka_unit_test(test_spoiled_layer_is_not_sealed),
		cmocka_unit_test(test_rot_is_mended),
		cmocka_unit_test(test_late_rot_is_mended),
		cmocka_unit_test(test_evicted_is_not_sealed),
		cmocka_unit_test(test_lost_bits_come_back),
		cmocka_unit_test(test_bad_source),
		cmocka_unit_test(test_source_away),
		cmocka_unit_test(test_full_disk),
		cmocka_unit_test(test_rate),
		cmocka_unit_test(test_removal),
		cmocka_unit_test(test_makes_a_copy),
		cmocka_unit_test(test_copy_of_a_sealed_layer),
		cmocka_unit_test(test_no_copy),
		cmocka_unit_test(test_end_under_way),
		cmocka_unit_test(test_removed_while_the_disk_syncs),
	};
	fetch_set_quiet(100);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
