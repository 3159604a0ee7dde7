/* Frames of known content are found where they are, and no damage makes a wrong one of them. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <xxhash.h>

#include "fs/base/fd.h"
#include "fs/format/format.h"
#include "fs/format/frame.h"
#include "tests/unit/export/store-fixture.h"

/* A store with two layers, and the contents of their chunks. */
typedef struct Two {
	StoreFixture fixture;
	ManifestLayer layers[2];
	uint64_t *contents[2];
	size_t counts[2];
} Two;

static void two_open(Two *two)
{
	static const uint32_t seeds[2][2] = { { 1, 2 }, { 3, 4 } };
	store_fixture_open(&two->fixture);
	for (size_t i = 0; i < 2; i++) {
		Buffer tar = { 0 };
		store_fixture_tar(&tar, seeds[i], 2);
		store_fixture_layer(&two->fixture, &tar, &two->layers[i], &two->contents[i], &two->counts[i]);
		assert_true(two->counts[i] > 4);
		buffer_done(&tar);
	}
}

static void two_close(Two *two)
{
	free(two->contents[0]);
	free(two->contents[1]);
	store_fixture_close(&two->fixture);
}

/* The frame decodes to the content asked for. */
static void expect_frame(Store *store, uint64_t content)
{
	StoreFrame frame;
	Digest digest;
	assert_int_equal(store_frame_find(store, content, &frame), 0);
	uint8_t *bytes = malloc(frame.size), *data = malloc(FORMAT_CHUNK_MAX);
	assert_non_null(bytes);
	assert_non_null(data);
	assert_int_equal(fd_pread_all(frame.fd, bytes, frame.size, frame.offset), 0);
	assert_int_equal(digest_of(bytes, frame.size, &digest), 0);
	assert_true(digest_equal(&digest, &frame.digest));
	/* LZ4's frame header holds the length of the content at byte 6. */
	_cleanup_(frame_decoder_free_p) FrameDecoder *decoder = NULL;
	assert_int_equal(frame_decoder_new(&decoder), 0);
	size_t size = (size_t)bytes[6] | (size_t)bytes[7] << 8 | (size_t)bytes[8] << 16;
	assert_true(size <= FORMAT_CHUNK_MAX);
	assert_int_equal(frame_decode(decoder, bytes, frame.size, data, size), 0);
	assert_int_equal(XXH3_64bits(data, size), content);
	free(bytes);
	free(data);
}

static void expect_all(Two *two, size_t layer)
{
	for (size_t i = 0; i < two->counts[layer]; i++)
		expect_frame(two->fixture.store, two->contents[layer][i]);
}

static bool other_has(const Two *two, size_t layer, uint64_t content)
{
	for (size_t i = 0; i < two->counts[1 - layer]; i++) {
		if (two->contents[1 - layer][i] == content)
			return true;
	}
	return false;
}

/* None of the layer's frames is found, but for what the other layer has too (the end of a tar). */
static void expect_none(Two *two, size_t layer)
{
	StoreFrame frame;
	for (size_t i = 0; i < two->counts[layer]; i++) {
		uint64_t content = two->contents[layer][i];
		if (!other_has(two, layer, content))
			assert_int_equal(store_frame_find(two->fixture.store, content, &frame), -ENOENT);
	}
}

static void test_find(void **state _unused_)
{
	Two two;
	StoreFrame frame;
	two_open(&two);
	expect_all(&two, 0);
	expect_all(&two, 1);
	assert_int_equal(store_frame_find(two.fixture.store, XXH3_64bits("unknown", 7), &frame), -ENOENT);
	two_close(&two);
}

static void test_empty_store(void **state _unused_)
{
	StoreFixture fixture;
	StoreFrame frame;
	store_fixture_open(&fixture);
	assert_int_equal(store_frame_find(fixture.store, XXH3_64bits("unknown", 7), &frame), -ENOENT);
	store_fixture_close(&fixture);
}

static const char *blob_name(const Two *two, size_t layer, const char *directory)
{
	static char name[128];
	char hex[DIGEST_HEX_SIZE];
	(void)snprintf(name, sizeof(name), "%s/%s", directory, digest_hex(&two->layers[layer].blob, hex));
	return name;
}

/* Each damage takes one layer's frames away and leaves the other's. */
static void test_blob_gone(void **state _unused_)
{
	Two two;
	two_open(&two);
	assert_int_equal(unlink(store_fixture_path(&two.fixture, blob_name(&two, 0, "blobs/sha256"))), 0);
	expect_none(&two, 0);
	expect_all(&two, 1);
	two_close(&two);
}

static void test_blob_cut_short(void **state _unused_)
{
	Two two;
	two_open(&two);
	const char *path = store_fixture_path(&two.fixture, blob_name(&two, 0, "blobs/sha256"));
	assert_int_equal(truncate(path, (off_t)two.layers[0].blob_size - 1), 0);
	expect_none(&two, 0);
	expect_all(&two, 1);
	store_fixture_reopen(&two.fixture);
	assert_int_equal(truncate(store_fixture_path(&two.fixture, blob_name(&two, 0, "blobs/sha256")), 10), 0);
	expect_none(&two, 0);
	two_close(&two);
}

/* Two blobs have the same content; the one that is found first is gone. */
static void test_other_blob(void **state _unused_)
{
	static const uint32_t seeds[2][5] = { { 1, 2, 3, 4, 5 }, { 9, 2, 3, 4, 5 } };
	for (size_t gone = 0; gone < 2; gone++) {
		Two two = { 0 };
		size_t shared = 0;
		store_fixture_open(&two.fixture);
		for (size_t i = 0; i < 2; i++) {
			Buffer tar = { 0 };
			store_fixture_tar(&tar, seeds[i], 5);
			store_fixture_layer(&two.fixture, &tar, &two.layers[i], &two.contents[i], &two.counts[i]);
			buffer_done(&tar);
		}
		const char *name = blob_name(&two, gone, "blobs/sha256");
		assert_int_equal(unlink(store_fixture_path(&two.fixture, name)), 0);
		expect_all(&two, 1 - gone);
		for (size_t i = 0; i < two.counts[gone]; i++) {
			StoreFrame frame;
			shared += store_frame_find(two.fixture.store, two.contents[gone][i], &frame) == 0;
		}
		assert_true(shared > 1 && shared < two.counts[gone]);
		two_close(&two);
	}
}

static void test_list_damaged(void **state _unused_)
{
	Two two;
	two_open(&two);
	/* Another number of chunks than the blob has, and then no whole number. */
	store_fixture_write(&two.fixture, blob_name(&two, 0, "frames"), two.contents[0], sizeof(uint64_t));
	expect_none(&two, 0);
	store_fixture_reopen(&two.fixture);
	store_fixture_write(&two.fixture, blob_name(&two, 0, "frames"), two.contents[0], sizeof(uint64_t) + 1);
	store_fixture_write(&two.fixture, "frames/no-digest", two.contents[0], sizeof(uint64_t));
	expect_none(&two, 0);
	expect_all(&two, 1);

	/* A list as builds of before wrote it, with 32 bytes a chunk. */
	uint64_t *old = calloc(two.counts[0], 32);
	assert_non_null(old);
	for (size_t i = 0; i < two.counts[0]; i++)
		old[4 * i] = two.contents[0][i];
	store_fixture_reopen(&two.fixture);
	store_fixture_write(&two.fixture, blob_name(&two, 0, "frames"), old, 32 * two.counts[0]);
	free(old);
	expect_none(&two, 0);
	expect_all(&two, 1);
	two_close(&two);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_find),       cmocka_unit_test(test_empty_store),
		cmocka_unit_test(test_blob_gone),  cmocka_unit_test(test_blob_cut_short),
		cmocka_unit_test(test_other_blob), cmocka_unit_test(test_list_damaged),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
