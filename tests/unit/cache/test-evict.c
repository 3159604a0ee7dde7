#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "evict-fixture.h"
#include "fs/cache/cache-contents.h"
#include "fs/cache/cache-decoded.h"
#include "fs/cache/cache-evict.h"
#include "fs/cache/cache-pins.h"
#include "fs/cache/cache-present.h"
#include "fs/cache/cache-seal.h"
#include "fs/format/manifest.h"

#define DIRECTORY_MAX 16384u /* bytes on the disk */

static void fill(const EvictFixture *fixture, const Digest *digest, CacheBlob *blob, uint32_t age)
{
	for (uint32_t i = 0; i < EVICT_CHUNKS; i++) {
		evict_fixture_put(fixture, blob, i);
		evict_fixture_age(fixture, digest, i, age);
	}
}

static CacheEvicted evict(const EvictFixture *fixture, uint64_t quota, uint64_t bytes)
{
	CacheEvicted evicted = { 0 };
	CacheEvict options = { .quota = quota, .free = bytes };
	assert_int_equal(cache_evict(fixture->store, &options, &evicted, NULL), 0);
	assert_false(evicted.busy);
	return evicted;
}

static void test_evicted_is_absent(void **state)
{
	EvictFixture *fixture = *state;
	CacheBlob *one = evict_fixture_open(fixture, &fixture->digest), *two;
	fill(fixture, &fixture->digest, one, 100);
	two = evict_fixture_open(fixture, &fixture->digest);
	assert_int_equal(evict_fixture_read(fixture, one, 4), 0);
	assert_int_equal(evict_fixture_read(fixture, two, 5), 0);
	uint64_t before = evict_fixture_bytes(fixture, &fixture->digest);
	evict_fixture_punch(fixture, &fixture->digest, 3, 5);
	assert_true(evict_fixture_bytes(fixture, &fixture->digest) + 4 * EVICT_FRAME_SIZE < before);
	for (uint32_t i = 0; i < EVICT_CHUNKS; i++) {
		bool gone = i >= 3 && i < 8;
		assert_int_equal(evict_fixture_read(fixture, one, i), gone ? -ENODATA : 0);
		assert_int_equal(evict_fixture_read(fixture, two, i), gone ? -ENODATA : 0);
		assert_int_equal(cache_blob_has(one, i), !gone);
	}
	/* Fetched again by one, it is there for both; who had not noticed checks it anew. */
	evict_fixture_put(fixture, one, 3);
	assert_int_equal(evict_fixture_read(fixture, one, 3), 0);
	evict_fixture_punch(fixture, &fixture->digest, 10, 1);
	evict_fixture_put(fixture, one, 10);
	assert_int_equal(evict_fixture_read(fixture, two, 10), 0);
	assert_int_equal(evict_fixture_read(fixture, two, 10), 0);
	assert_null(cache_blob_free(two));
	two = evict_fixture_open(fixture, &fixture->digest);
	assert_true(cache_blob_has(two, 3) && cache_blob_has(two, 10) && !cache_blob_has(two, 4));
	assert_null(cache_blob_free(two));
	assert_null(cache_blob_free(one));
}

static void test_oldest_go_first(void **state)
{
	EvictFixture *fixture = *state;
	CacheBlob *blob = evict_fixture_open(fixture, &fixture->digest);
	fill(fixture, &fixture->digest, blob, 1000);
	for (uint32_t i = 0; i < EVICT_CHUNKS; i += 2)
		evict_fixture_age(fixture, &fixture->digest, i, 500 + i);
	CacheEvicted evicted = evict(fixture, 0, 0);
	assert_int_equal(evicted.chunks, 0);
	assert_true(evicted.enough);
	evicted = evict(fixture, UINT64_C(1) << 40, 0);
	assert_int_equal(evicted.chunks, 0);

	/* The half that was used longest ago, and of the rest the oldest. */
	evicted = evict(fixture, 0, (uint64_t)(EVICT_CHUNKS / 2 + 3) * EVICT_FRAME_SIZE);
	assert_true(evicted.enough);
	assert_true(evicted.chunks >= EVICT_CHUNKS / 2 + 3);
	uint64_t bytes = evict_fixture_bytes(fixture, &fixture->digest);
	assert_in_range(evicted.after, bytes, bytes + DIRECTORY_MAX);
	for (uint32_t i = 0; i < EVICT_CHUNKS; i++) {
		if (i % 2 == 1 || i >= EVICT_CHUNKS - 4)
			assert_int_equal(evict_fixture_read(fixture, blob, i), -ENODATA);
		else if (i < EVICT_CHUNKS / 2)
			assert_int_equal(evict_fixture_read(fixture, blob, i), 0);
	}
	assert_null(cache_blob_free(blob));
}

static void test_use_counts(void **state)
{
	EvictFixture *fixture = *state;
	CacheBlob *blob = evict_fixture_open(fixture, &fixture->digest);
	fill(fixture, &fixture->digest, blob, 1000);
	assert_null(cache_blob_free(blob));
	blob = evict_fixture_open(fixture, &fixture->digest);
	assert_int_equal(evict_fixture_read(fixture, blob, 9), 0);
	/* All may go, but what was read just now. */
	CacheEvicted evicted = evict(fixture, 1, 0);
	assert_int_equal(evicted.chunks, EVICT_CHUNKS - 1);
	assert_false(evicted.enough);
	assert_int_equal(evict_fixture_read(fixture, blob, 9), 0);
	assert_int_equal(evict_fixture_read(fixture, blob, 8), -ENODATA);
	assert_null(cache_blob_free(blob));
}

static void test_quota(void **state)
{
	EvictFixture *fixture = *state;
	Digest other = { { 9 } };
	CacheBlob *old = evict_fixture_open(fixture, &other), *young = evict_fixture_open(fixture, &fixture->digest);
	fill(fixture, &other, old, 1000);
	fill(fixture, &fixture->digest, young, 100);
	uint64_t quota = evict_fixture_bytes(fixture, &fixture->digest) * 3 / 2;
	CacheEvicted evicted = evict(fixture, quota, 0);
	assert_true(evicted.enough);
	assert_true(evicted.before > quota && evicted.after <= quota - quota / 16 && evicted.after > quota / 2);
	for (uint32_t i = 0; i < EVICT_CHUNKS; i++)
		assert_int_equal(evict_fixture_read(fixture, young, i), 0);
	assert_int_equal(evict_fixture_read(fixture, old, 0), -ENODATA);
	assert_null(cache_blob_free(old));
	assert_null(cache_blob_free(young));
}

static void pin(const EvictFixture *fixture, CachePinKind kind, const Digest *blob)
{
	ManifestLayer layer = {
		.tar_size = 1, .blob = *blob, .blob_size = 200 + FORMAT_FOOTER_SIZE, .index_size = 200
	};
	Manifest manifest = { .config_size = 10, .layer_count = 1, .layers = &layer };
	char *json;
	size_t size;
	Digest digest;
	assert_int_equal(manifest_encode(&manifest, &json, &size), 0);
	assert_int_equal(digest_of(json, size, &digest), 0);
	assert_int_equal(cache_store_put(fixture->store, CACHE_MANIFEST, &digest, json, size, NULL), 0);
	assert_int_equal(cache_pin_add(fixture->store, kind, &digest, "h/a:1", NULL), 0);
	free(json);
}

static void test_pinned_stays(void **state)
{
	EvictFixture *fixture = *state;
	Digest sealed = { { 8 } }, other = { { 9 } };
	const Digest *digests[] = { &fixture->digest, &sealed, &other };
	CacheBlob *blobs[3];
	for (size_t i = 0; i < 3; i++) {
		blobs[i] = evict_fixture_open(fixture, digests[i]);
		fill(fixture, digests[i], blobs[i], 1000);
	}
	pin(fixture, CACHE_PIN, digests[0]);
	pin(fixture, CACHE_SEAL, digests[1]);
	CacheEvicted evicted = evict(fixture, 1, 0);
	assert_int_equal(evicted.chunks, EVICT_CHUNKS);
	assert_false(evicted.enough);
	uint64_t bytes = evict_fixture_bytes(fixture, digests[0]) + evict_fixture_bytes(fixture, digests[1]);
	assert_in_range(evicted.kept, bytes, bytes + 2 * DIRECTORY_MAX);
	for (uint32_t i = 0; i < EVICT_CHUNKS; i++)
		for (size_t j = 0; j < 3; j++)
			assert_int_equal(evict_fixture_read(fixture, blobs[j], i), j < 2 ? 0 : -ENODATA);
	for (size_t i = 0; i < 3; i++)
		assert_null(cache_blob_free(blobs[i]));

	/* Nobody knows what is protected: nothing goes. */
	char path[PATH_MAX + 8];
	Error error = { 0 };
	(void)snprintf(path, sizeof(path), "%s/pins", fixture->directory);
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(
		fd_replace_file(fd, "0000000000000000000000000000000000000000000000000000000000000000", "", 0, 0600),
		0);
	(void)close(fd);
	assert_int_equal(cache_evict(fixture->store, &(CacheEvict){ .quota = 1 }, &evicted, &error), -EBADMSG);
}

#define TAR_SIZE 100000u

static void copy_path(const EvictFixture *fixture, const Digest *layer, char ret_path[static PATH_MAX + 80])
{
	char hex[DIGEST_HEX_SIZE];
	(void)snprintf(ret_path, PATH_MAX + 80, "%s/decoded/%s", fixture->directory, digest_hex(layer, hex));
}

/* As if the copy had been made, and read last, so many seconds ago. */
static void age_copy(const EvictFixture *fixture, const Digest *layer, int made, int used)
{
	char path[PATH_MAX + 80];
	struct timespec times[2] = { { .tv_sec = time(NULL) - used }, { .tv_sec = time(NULL) - made } };
	copy_path(fixture, layer, path);
	assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

static void make_copy(const EvictFixture *fixture, const Digest *layer, int age)
{
	_cleanup_(cache_decoded_writer_free_p) CacheDecodedWriter *writer = NULL;
	_cleanup_free_ uint8_t *tar = malloc(TAR_SIZE);
	assert_non_null(tar);
	memset(tar, 5, TAR_SIZE);
	assert_int_equal(cache_decoded_writer_new(fixture->store, layer, TAR_SIZE, &writer, NULL), 0);
	assert_int_equal(cache_decoded_writer_add(writer, tar, TAR_SIZE, NULL), 0);
	assert_int_equal(cache_decoded_writer_finish(writer, NULL), 0);
	age_copy(fixture, layer, age, age);
}

/* Whole, and under whoever reads it; but not that of an image that is pinned. */
static void test_decoded_copies(void **state)
{
	EvictFixture *fixture = *state;
	Digest layer = { { 1 } }, kept = { { 0 } }; /* pin() has a layer of zeros */
	CacheBlob *blob = evict_fixture_open(fixture, &fixture->digest);
	CacheDecoded *copy;
	uint8_t bytes[100];
	int fd;
	fill(fixture, &fixture->digest, blob, 1000);
	make_copy(fixture, &layer, 2000);
	make_copy(fixture, &kept, 3000);
	pin(fixture, CACHE_PIN, &(Digest){ { 55 } });
	assert_int_equal(cache_store_get(fixture->store, CACHE_DECODED, &layer, &fd), 0);
	assert_int_equal(cache_decoded_open(fd, &layer, TAR_SIZE, &copy), 0);
	assert_int_equal(cache_decoded_read(copy, 500, sizeof(bytes), bytes), 0);
	age_copy(fixture, &layer, 2000, 2000);
	assert_int_equal(evict(fixture, 0, TAR_SIZE / 2).chunks, 1);
	assert_int_equal(cache_decoded_read(copy, 500, sizeof(bytes), bytes), -EBADMSG);
	assert_null(cache_decoded_free(copy));
	assert_int_equal(cache_store_get(fixture->store, CACHE_DECODED, &layer, &fd), -ENOENT);
	assert_int_equal(evict_fixture_read(fixture, blob, 0), 0);
	assert_false(evict(fixture, 1, 0).enough);
	assert_int_equal(cache_store_get(fixture->store, CACHE_DECODED, &kept, &fd), 0);
	assert_int_equal(cache_decoded_open(fd, &kept, TAR_SIZE, &copy), 0);
	assert_int_equal(cache_decoded_check(copy), 0);
	assert_null(cache_decoded_free(copy));
	assert_null(cache_blob_free(blob));
}

/* What was made long ago and is read stays before what nobody has read since it was made; and the kernel is had to note the next read. */
static void test_use_of_copies_counts(void **state)
{
	EvictFixture *fixture = *state;
	Digest read_one = { { 1 } }, unread = { { 2 } };
	char path[PATH_MAX + 80];
	int fd;
	make_copy(fixture, &read_one, 3000);
	make_copy(fixture, &unread, 2000);
	age_copy(fixture, &read_one, 3000, 1000);
	copy_path(fixture, &read_one, path);
	assert_int_equal(evict(fixture, 0, TAR_SIZE / 2).chunks, 1);
	assert_int_equal(cache_store_get(fixture->store, CACHE_DECODED, &unread, &fd), -ENOENT);
	assert_int_equal(cache_store_get(fixture->store, CACHE_DECODED, &read_one, &fd), 0);
	(void)close(fd);
	/* A read later than the last change would be the last one that is noted for a day. */
	struct stat before, after;
	uint32_t now = (uint32_t)time(NULL) + 100, used = 0;
	age_copy(fixture, &read_one, 3000, -50); /* the clock of the file system may be a little behind */
	assert_int_equal(stat(path, &before), 0);
	(void)usleep(20000); /* more than one of its ticks */
	assert_int_equal(cache_evict_copy_used(fixture->store, &read_one, now, &used), 0);
	assert_int_equal(stat(path, &after), 0);
	assert_int_equal(used, before.st_atime);
	assert_int_equal(after.st_atime, before.st_atime);
	assert_int_equal(after.st_mtime, before.st_mtime);
	assert_memory_not_equal(&after.st_ctim, &before.st_ctim, sizeof(after.st_ctim));
}

/* Somebody is about to make a copy there; an older copy goes, which gives room, and the place stays. */
static void test_places_of_copies_stay(void **state)
{
	EvictFixture *fixture = *state;
	Digest layer = { { 1 } }, place = { { 2 } };
	struct stat status;
	int fd;
	make_copy(fixture, &layer, 2000);
	assert_int_equal(cache_decoded_reserve(fixture->store, &place, &fd), 0);
	age_copy(fixture, &place, 3000, 3000);
	assert_int_equal(evict(fixture, 0, TAR_SIZE / 2).chunks, 1);
	assert_int_equal(fstat(fd, &status), 0);
	assert_int_equal(status.st_nlink, 1);
	(void)close(fd);
	assert_int_equal(cache_store_get(fixture->store, CACHE_DECODED, &layer, &fd), -ENOENT);
}

/* A seal that comes between the list of what may go and the hole. */
static void test_sealed_meanwhile(void **state)
{
	EvictFixture *fixture = *state;
	CacheBlob *blob = evict_fixture_open(fixture, &fixture->digest);
	int seal;
	fill(fixture, &fixture->digest, blob, 1000);
	for (uint32_t i = 0; i < EVICT_CHUNKS; i++)
		assert_int_equal(evict_fixture_read(fixture, blob, i), 0);
	assert_int_equal(evict_fixture_punch(fixture, &fixture->digest, 3, 2), 2);
	evict_fixture_put(fixture, blob, 3);
	evict_fixture_put(fixture, blob, 4);
	evict_fixture_age(fixture, &fixture->digest, 3, 500);
	evict_fixture_age(fixture, &fixture->digest, 4, 500);
	assert_int_equal(cache_seal_open(fixture->store, &fixture->digest, &seal), 0);
	assert_int_equal(evict_fixture_punch(fixture, &fixture->digest, 9, 1), 1); /* an empty one is none */
	evict_fixture_put(fixture, blob, 9);
	assert_int_equal(cache_seal_write(seal, &fixture->digest), 0);
	assert_int_equal(evict_fixture_punch(fixture, &fixture->digest, 2, 4), 0);
	for (uint32_t i = 0; i < EVICT_CHUNKS; i++)
		assert_int_equal(evict_fixture_read(fixture, blob, i), 0);
	assert_int_equal(cache_blob_settle(blob), 0);
	assert_null(cache_blob_free(blob));
	blob = evict_fixture_open(fixture, &fixture->digest);
	for (uint32_t i = 0; i < EVICT_CHUNKS; i++)
		assert_true(cache_blob_has(blob, i));
	assert_null(cache_blob_free(blob));
	/* Nothing has become younger by it. */
	assert_int_equal(cache_seal_clear(seal), 0);
	CacheEvicted evicted = evict(fixture, 0, (EVICT_CHUNKS - 3) * EVICT_FRAME_SIZE);
	assert_in_range(evicted.chunks, EVICT_CHUNKS - 4, EVICT_CHUNKS);
	(void)close(seal);
}

static void set_generation(const EvictFixture *fixture, uint32_t chunk, uint32_t generation)
{
	CacheEvictBlob blob;
	uint8_t bytes[4];
	store_le32(bytes, generation);
	assert_int_equal(cache_evict_blob_open(fixture->store, &fixture->digest, &blob), 0);
	assert_int_equal(fd_pwrite_all(blob.present_fd, bytes, 4, present_mark(EVICT_CHUNKS, chunk)), 0);
	cache_evict_blob_close(&blob);
}

/* Where an eviction was killed: nothing of the chunk is trusted, until the next one has ended it. */
static void test_half_evicted(void **state)
{
	EvictFixture *fixture = *state;
	CacheBlob *blob = evict_fixture_open(fixture, &fixture->digest);
	fill(fixture, &fixture->digest, blob, 1000);
	pin(fixture, CACHE_PIN, &fixture->digest);
	set_generation(fixture, 6, 41);
	/* Its bytes are all there still, and are checked at each read. */
	assert_int_equal(evict_fixture_read(fixture, blob, 6), 0);
	assert_int_equal(cache_blob_write(blob, 6, fixture->frames[6], EVICT_FRAME_SIZE), -EBUSY);
	assert_int_equal(evict(fixture, 0, 0).chunks, 0);
	assert_int_equal(evict_fixture_read(fixture, blob, 6), -ENODATA);
	evict_fixture_put(fixture, blob, 6);
	assert_int_equal(evict_fixture_read(fixture, blob, 6), 0);
	assert_int_equal(evict_fixture_read(fixture, blob, 7), 0);
	assert_null(cache_blob_free(blob));
}

/* The same of a chunk that nobody has ever fetched: it was to go with all of its blob. */
static void test_half_evicted_where_nothing_was(void **state)
{
	EvictFixture *fixture = *state;
	CacheBlob *blob = evict_fixture_open(fixture, &fixture->digest);
	evict_fixture_put(fixture, blob, 6);
	set_generation(fixture, 5, 1);
	assert_int_equal(cache_blob_write(blob, 5, fixture->frames[5], EVICT_FRAME_SIZE), -EBUSY);
	assert_int_equal(evict(fixture, 0, 0).chunks, 0);
	evict_fixture_put(fixture, blob, 5);
	assert_int_equal(evict_fixture_read(fixture, blob, 5), 0);
	assert_int_equal(evict_fixture_read(fixture, blob, 6), 0);
	assert_null(cache_blob_free(blob));
}

static bool dies_at_a_hole;

/* In the place of the C library's. */
int fallocate(int fd, int mode, off_t offset, off_t size)
{
	if (dies_at_a_hole)
		(void)raise(SIGKILL);
	return (int)syscall(SYS_fallocate, fd, mode, offset, size);
}

/* Who evicts without wanting room is told of an eviction that was killed, and ends it. */
static void test_killed(void **state)
{
	EvictFixture *fixture = *state;
	CacheBlob *blob = evict_fixture_open(fixture, &fixture->digest);
	fill(fixture, &fixture->digest, blob, 1000);
	assert_false(cache_evict_is_unfinished(fixture->store));
	pid_t child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		dies_at_a_hole = true;
		(void)evict(fixture, 1, 0);
		_exit(0);
	}
	int status;
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	assert_int_equal(cache_blob_write(blob, 3, fixture->frames[3], EVICT_FRAME_SIZE), -EBUSY);
	assert_true(cache_evict_is_unfinished(fixture->store));
	assert_int_equal(evict(fixture, 0, 0).chunks, 0);
	assert_false(cache_evict_is_unfinished(fixture->store));
	for (uint32_t i = 0; i < EVICT_CHUNKS; i++)
		evict_fixture_put(fixture, blob, i);
	assert_null(cache_blob_free(blob));
}

/* A bitmap of a version that had no marks, and marks that cannot be: the blob goes as one. */
static void test_blob_without_marks(void **state)
{
	EvictFixture *fixture = *state;
	CacheBlob *blob = evict_fixture_open(fixture, &fixture->digest), *again;
	CacheEvictBlob files;
	fill(fixture, &fixture->digest, blob, 1000);
	assert_int_equal(cache_evict_blob_open(fixture->store, &fixture->digest, &files), 0);
	assert_int_equal(ftruncate(files.present_fd, EVICT_CHUNKS / 8), 0);
	cache_evict_blob_close(&files);
	again = evict_fixture_open(fixture, &fixture->digest);
	assert_true(cache_blob_has(again, EVICT_CHUNKS - 1));
	assert_int_equal(evict(fixture, 1, 0).chunks, 1);
	assert_true(evict_fixture_bytes(fixture, &fixture->digest) < EVICT_FRAME_SIZE);
	for (uint32_t i = 0; i < EVICT_CHUNKS; i++) {
		assert_int_equal(evict_fixture_read(fixture, blob, i), -ENODATA);
		assert_int_equal(evict_fixture_read(fixture, again, i), -ENODATA);
	}
	assert_null(cache_blob_free(again));
	assert_null(cache_blob_free(blob));
}

static void test_one_at_a_time(void **state)
{
	EvictFixture *fixture = *state;
	CacheEvicted evicted = { 0 };
	int lock;
	assert_int_equal(cache_evict_lock(fixture->store, false, &lock), 0);
	assert_int_equal(cache_evict(fixture->store, &(CacheEvict){ .quota = 1 }, &evicted, NULL), 0);
	assert_true(evicted.busy);
	(void)close(lock);
	/* A cache that is empty, and blobs that are none. */
	char path[PATH_MAX + 80];
	(void)snprintf(path, sizeof(path), "%s/blobs/%064d", fixture->directory, 0);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(evict(fixture, 1, 0).chunks, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_evicted_is_absent, evict_fixture_set_up, evict_fixture_tear_down),
		cmocka_unit_test_setup_teardown(test_oldest_go_first, evict_fixture_set_up, evict_fixture_tear_down),
		cmocka_unit_test_setup_teardown(test_use_counts, evict_fixture_set_up, evict_fixture_tear_down),
		cmocka_unit_test_setup_teardown(test_quota, evict_fixture_set_up, evict_fixture_tear_down),
		cmocka_unit_test_setup_teardown(test_pinned_stays, evict_fixture_set_up, evict_fixture_tear_down),
		cmocka_unit_test_setup_teardown(test_decoded_copies, evict_fixture_set_up, evict_fixture_tear_down),
		cmocka_unit_test_setup_teardown(test_places_of_copies_stay, evict_fixture_set_up,
						evict_fixture_tear_down),
		cmocka_unit_test_setup_teardown(test_use_of_copies_counts, evict_fixture_set_up,
						evict_fixture_tear_down),
		cmocka_unit_test_setup_teardown(test_sealed_meanwhile, evict_fixture_set_up, evict_fixture_tear_down),
		cmocka_unit_test_setup_teardown(test_half_evicted, evict_fixture_set_up, evict_fixture_tear_down),
		cmocka_unit_test_setup_teardown(test_half_evicted_where_nothing_was, evict_fixture_set_up,
						evict_fixture_tear_down),
		cmocka_unit_test_setup_teardown(test_killed, evict_fixture_set_up, evict_fixture_tear_down),
		cmocka_unit_test_setup_teardown(test_blob_without_marks, evict_fixture_set_up, evict_fixture_tear_down),
		cmocka_unit_test_setup_teardown(test_one_at_a_time, evict_fixture_set_up, evict_fixture_tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
