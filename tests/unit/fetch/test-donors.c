/* Frames copied from other blobs instead of being fetched. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "fs/base/bytes.h"
#include "fs/base/fd.h"
#include "fs/fetch/fetch-fill.h"
#include "tests/fake/fake-server.h"
#include "tests/unit/fetch/fetch-fixture.h"

#define CHUNKS            8u
#define PATIENCE          60000
#define AT(donor, offset) ((uint64_t)(donor) << 48 | (offset))

/* A fetcher of which nothing has been set but its blob. */
typedef struct Donors {
	FetchFixture fixture;
	uint64_t twins[CHUNKS];
} Donors;

static int memory_file(const void *data, size_t size)
{
	int fd = memfd_create("donor", MFD_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(fd_write_all(fd, data, size), 0);
	return fd;
}

static uint64_t offset_of(const Donors *donors, uint32_t chunk)
{
	Chunk entry;
	chunk_table_get(&donors->fixture.layer.table, chunk, &entry);
	return entry.blob_offset;
}

static void setup(Donors *donors)
{
	*donors = (Donors){ .fixture = { .directory = scratch_make() } };
	FetchFixture *fixture = &donors->fixture;
	char url[256], text[DIGEST_TEXT_SIZE];
	blob_fixture_make(&fixture->layer, CHUNKS, CHUNK_SIZE, 1);
	fixture->cache = blob_fixture_cache(&fixture->layer, &fixture->data_fd, &fixture->present_fd);
	blob_fixture_publish(&fixture->layer, fixture->directory);
	assert_int_equal(fake_server_new(fixture->directory, &fixture->server), 0);
	assert_int_equal(fetch_reader_new(&fixture->reader), 0);
	(void)snprintf(url, sizeof(url), "http://%s/v2/app/blobs/%s", fake_server_host(fixture->server),
		       digest_text(&fixture->layer.layer.blob, text));
	assert_int_equal(fetcher_new(&(FetcherOptions){ 0 }, &fixture->fetcher), 0);
	assert_int_equal(fetcher_add_blob(fixture->fetcher, fixture->cache, url, &fixture->blob), 0);
}

static void set_twins(FetchFixture *fixture, const int fds[2], int table)
{
	FetchDonors *donors;
	assert_int_equal(fetch_donors_new(fds, 2, &donors), 0);
	assert_int_equal(fetch_blob_set_twins(fixture->blob, donors, table), 0);
	assert_null(fetch_donors_unref(donors)); /* the blob keeps them */
}

/* Sets the twins as they stand, and two donors: one with nothing of use, and the blob itself. */
static void start(Donors *donors)
{
	FetchFixture *fixture = &donors->fixture;
	uint8_t bytes[CHUNKS * 8];
	for (size_t i = 0; i < CHUNKS; i++)
		store_le64(bytes + i * 8, donors->twins[i]);
	_cleanup_close_ int twins = memory_file(bytes, sizeof(bytes));
	const int fds[] = { memory_file("nothing", 7), memory_file(fixture->layer.blob, fixture->layer.blob_size) };
	set_twins(fixture, fds, twins);
	assert_int_equal(fetcher_start(fixture->fetcher), 0);
}

static void check(Donors *donors, uint64_t copies, uint64_t fetched)
{
	FetchCounters counters;
	assert_int_equal(fetch_and_compare(&donors->fixture, 0, CHUNKS * CHUNK_SIZE, PATIENCE), 0);
	fetcher_counters(donors->fixture.fetcher, &counters);
	assert_int_equal(counters.copies, copies);
	assert_int_equal(counters.chunks, fetched);
	assert_int_equal(counters.verify_failures, 0);
	for (uint32_t i = 0; i < CHUNKS; i++)
		assert_true(cache_blob_has(donors->fixture.cache, i));
	fetch_fixture_stop(&donors->fixture);
}

static void test_nothing_is_fetched_that_is_here(void **state _unused_)
{
	Donors donors;
	setup(&donors);
	for (uint32_t i = 0; i < CHUNKS; i++)
		donors.twins[i] = AT(2, offset_of(&donors, i));
	start(&donors);
	check(&donors, CHUNKS, 0);
}

/* The fill copies as readers do, and fetches the rest. */
static void test_fill_copies(void **state _unused_)
{
	Donors donors;
	FetchFill *fill;
	setup(&donors);
	for (uint32_t i = 0; i < CHUNKS / 2; i++)
		donors.twins[i] = AT(2, offset_of(&donors, i));
	start(&donors);
	fetch_set_quiet(10);
	assert_int_equal(fetch_fill_new(&(FetchFillOptions){ 0 }, &fill), 0);
	assert_int_equal(
		fetch_fill_add(fill, donors.fixture.blob, &donors.fixture.layer.layer.diff_id, memory_file("", 0), -1),
		0);
	struct timespec pause = { .tv_nsec = 1000000 };
	while (fetch_fill_state(fill, donors.fixture.blob) != FETCH_FILL_SEALED)
		(void)nanosleep(&pause, NULL);
	assert_null(fetch_fill_free(fill));
	check(&donors, CHUNKS / 2, CHUNKS / 2);
}

static void test_what_no_donor_has_is_fetched(void **state _unused_)
{
	Donors donors;
	setup(&donors);
	/* Not every other one: a range that is fetched goes over small gaps. */
	for (uint32_t i = 0; i < CHUNKS / 2; i++)
		donors.twins[i] = AT(2, offset_of(&donors, i));
	start(&donors);
	check(&donors, CHUNKS / 2, CHUNKS / 2);
}

/* A table that lies costs a fetch: another frame, the end of the file, a donor that there is not. */
static void test_wrong_twins_cost_a_fetch(void **state _unused_)
{
	Donors donors;
	setup(&donors);
	donors.twins[4] = AT(2, offset_of(&donors, 1));
	donors.twins[1] = AT(1, 0);
	donors.twins[2] = AT(3, offset_of(&donors, 2));
	donors.twins[3] = AT(0xffff, UINT64_C(0xffffffffffff));
	donors.twins[0] = AT(2, offset_of(&donors, 0));
	start(&donors);
	check(&donors, 1, CHUNKS - 1);
}

static void test_table_too_short(void **state _unused_)
{
	Donors donors;
	setup(&donors);
	_cleanup_close_ int fd = memory_file("short", 5);
	FetchDonors *none;
	assert_int_equal(fetch_donors_new(NULL, 0, &none), 0);
	assert_int_equal(fetch_blob_set_twins(donors.fixture.blob, none, fd), -ENODATA);
	assert_null(fetch_donors_unref(none));
	start(&donors);
	check(&donors, 0, CHUNKS);
}

/* An entry of the table of small files, for `size` bytes of the tar at `tar_offset`, to be found where `chunk` stands in a donor. */
static void put_packed(uint8_t *entry, const Donors *donors, uint32_t chunk, uint64_t tar_offset, uint32_t size,
		       uint64_t donor)
{
	Chunk place;
	Digest digest;
	chunk_table_get(&donors->fixture.layer.table, chunk, &place);
	assert_int_equal(digest_of(donors->fixture.layer.tar + tar_offset, size, &digest), 0);
	store_le64(entry, tar_offset);
	store_le64(entry + 8, AT(donor, place.blob_offset));
	store_le32(entry + 16, place.blob_size);
	store_le32(entry + 20, place.tar_size);
	store_le32(entry + 24, (uint32_t)(tar_offset - place.tar_offset) % place.tar_size);
	store_le32(entry + 28, size);
	memcpy(entry + 32, digest.bytes, sizeof(digest.bytes));
}

static int read_of(Donors *donors, uint64_t offset, uint32_t size)
{
	uint8_t *got = malloc(size);
	assert_non_null(got);
	int r = fetch_read(donors->fixture.blob, donors->fixture.reader, offset, size, got);
	if (r == 0)
		assert_memory_equal(got, donors->fixture.layer.tar + offset, size);
	free(got);
	return r;
}

/* Small files in chunks that no donor has come from the donor's chunk, if what is there is what the digest says. */
static void test_small_files(void **state _unused_)
{
	Donors donors;
	setup(&donors);
	enum { FILES = 5, SIZE = 1000 };
	uint8_t table[CHUNKS * 8 + FILES * 64] = { 0 }, *files = table + (size_t)CHUNKS * 8;
	put_packed(files, &donors, 0, 100, SIZE, 2);
	put_packed(files + 64, &donors, 1, CHUNK_SIZE + 5, SIZE, 2);
	put_packed(files + 128, &donors, 2, 2 * CHUNK_SIZE, SIZE, 1);  /* a donor that has nothing */
	put_packed(files + 192, &donors, 1, 3 * CHUNK_SIZE, SIZE, 2);  /* other content */
	put_packed(files + 256, &donors, 4, 4 * CHUNK_SIZE, SIZE, 77); /* no donor */
	_cleanup_close_ int fd = memory_file(table, sizeof(table));
	const int fds[] = { memory_file("nothing", 7),
			    memory_file(donors.fixture.layer.blob, donors.fixture.layer.blob_size) };
	set_twins(&donors.fixture, fds, fd);

	assert_int_equal(read_of(&donors, 100, SIZE), 0);
	assert_int_equal(read_of(&donors, 101, 7), 0);
	assert_int_equal(read_of(&donors, 100 + SIZE - 1, 1), 0);
	assert_int_equal(read_of(&donors, CHUNK_SIZE + 5, SIZE), 0);
	assert_int_equal(read_of(&donors, 99, 10), -EAGAIN);
	assert_int_equal(read_of(&donors, 100 + SIZE - 1, 2), -EAGAIN);
	for (uint32_t i = 2; i < FILES; i++)
		assert_int_equal(read_of(&donors, (uint64_t)i * CHUNK_SIZE, SIZE), -EAGAIN);
	assert_int_equal(fetcher_start(donors.fixture.fetcher), 0);
	check(&donors, 0, CHUNKS);
}

/* Lengths that cannot be and a wrong order make the table as good as none. */
static void test_wrong_table_of_small_files(void **state _unused_)
{
	static const struct {
		size_t at;
		uint32_t value;
	} wrong[] = { { 16, UINT32_MAX },
		      { 20, FORMAT_CHUNK_MAX + 1 },
		      { 24, UINT32_MAX },
		      { 28, CHUNK_SIZE + 1 },
		      { 0, UINT32_MAX } };
	for (size_t i = 0; i < ELEMENTS(wrong); i++) {
		Donors donors;
		setup(&donors);
		uint8_t table[CHUNKS * 8 + 128] = { 0 }, *files = table + (size_t)CHUNKS * 8;
		put_packed(files, &donors, 0, 0, 500, 2);
		put_packed(files + 64, &donors, 0, 600, 500, 2);
		store_le32(files + wrong[i].at, wrong[i].value);
		_cleanup_close_ int fd = memory_file(table, sizeof(table));
		const int fds[] = { memory_file("nothing", 7),
				    memory_file(donors.fixture.layer.blob, donors.fixture.layer.blob_size) };
		set_twins(&donors.fixture, fds, fd);
		assert_int_equal(read_of(&donors, 600, 500), -EAGAIN);
		fetch_fixture_stop(&donors.fixture);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nothing_is_fetched_that_is_here),
		cmocka_unit_test(test_what_no_donor_has_is_fetched),
		cmocka_unit_test(test_fill_copies),
		cmocka_unit_test(test_wrong_twins_cost_a_fetch),
		cmocka_unit_test(test_table_too_short),
		cmocka_unit_test(test_small_files),
		cmocka_unit_test(test_wrong_table_of_small_files),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
