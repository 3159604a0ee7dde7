#include "tools/export/layer-writer.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "fs/base/fd.h"
#include "fs/format/chunker.h"
#include "fs/format/frame.h"
#include "tests/unit/export/layer-fixture.h"
#include "tests/unit/export/tar-builder.h"

static const LayerOptions fast = { .level = FRAME_FAST, .jobs = 2 };
static Layer layer;

/* Bytes without much order, the same in every run. */
static void fill(uint8_t *data, size_t size, uint64_t seed)
{
	for (size_t i = 0; i < size; i++) {
		seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
		data[i] = i % 4 ? (uint8_t)(seed >> 33) : 'a';
	}
}

static void put_file(Buffer *tar, const char *name, size_t size, uint64_t seed)
{
	_cleanup_free_ uint8_t *data = malloc(size + 1);
	assert_non_null(data);
	fill(data, size, seed);
	tar_file(tar, name, data, size);
}

/* What entries are where, as the tests put them; the cuts are worked out from this and docs/format.md alone. */
typedef struct Placed {
	size_t header, data, size;
	char name[256];
} Placed;

static Placed placed[4000];
static size_t placed_count;

static void place(Buffer *tar, const char *name, size_t size, uint64_t seed)
{
	Placed *entry = &placed[placed_count++];
	entry->header = tar->size;
	entry->size = size;
	snprintf(entry->name, sizeof(entry->name), "%s", name);
	put_file(tar, name, size, seed);
	entry->data = entry->header + BLOCK;
}

/* The cutting rules of docs/format.md section 2, over the whole tar at once. */
static size_t expected_cuts(const Buffer *tar, size_t *cuts)
{
	size_t count = 0, start = 0;
	for (size_t i = 0; i <= placed_count; i++) {
		size_t end = i < placed_count ? placed[i].header : tar->size;
		while (end - start >= FORMAT_CHUNK_MAX)
			cuts[count++] = start += FORMAT_CHUNK_MAX;
		if (i == placed_count)
			break;
		const Placed *entry = &placed[i];
		bool large = entry->size >= FORMAT_LARGE_FILE;
		size_t length = entry->data - entry->header + (large ? 0 : entry->size);
		if (chunker_run_ends(end - start, length, entry->name, strlen(entry->name)))
			cuts[count++] = start = end;
		if (!large)
			continue;
		while (entry->data - start > FORMAT_CHUNK_MAX)
			cuts[count++] = start += FORMAT_CHUNK_MAX;
		cuts[count++] = start = entry->data;
		while (start < entry->data + entry->size)
			cuts[count++] = start +=
				chunker_cut(tar->data + start, entry->data + entry->size - start, true);
	}
	if (start < tar->size)
		cuts[count++] = tar->size;
	return count;
}

static void check_cuts(const Buffer *tar)
{
	static size_t cuts[10000];
	size_t count = expected_cuts(tar, cuts);
	assert_int_equal(layer.chunks.count, count);
	for (uint32_t i = 0; i < count; i++) {
		Chunk chunk;
		chunk_table_get(&layer.chunks, i, &chunk);
		assert_int_equal(chunk.tar_offset + chunk.tar_size, cuts[i]);
	}
}

static void put_mix(Buffer *tar)
{
	char name[64];
	placed_count = 0;
	place(tar, "first", 1000, 1);
	place(tar, "large", 3000000, 2);
	place(tar, "aligned", 8192, 3);
	place(tar, "just large", 4096, 4);
	place(tar, "just small", 4095, 5);
	for (unsigned i = 0; i < 900; i++) {
		snprintf(name, sizeof(name), "small/%u", i);
		place(tar, name, i * 7 % 4000, i);
	}
	place(tar, "large again", 700001, 6);
}

static void test_empty(void **state _unused_)
{
	Buffer tar = { 0 };
	layer_open_tar(&tar, &fast, &layer);
	assert_int_equal(layer.chunks.count, 0);
	assert_int_equal(layer.result.entry_count, 0);
	layer_done(&layer);
}

static void test_cuts(void **state _unused_)
{
	Buffer tar = { 0 };
	put_mix(&tar);
	tar_end(&tar);
	layer_open_tar(&tar, &fast, &layer);
	check_cuts(&tar);
	assert_int_equal(layer.result.entry_count, placed_count);
	layer_done(&layer);
	/* Neither padding nor end marker. */
	tar.size -= 2 * BLOCK + -(size_t)700001 % BLOCK;
	layer_open_tar(&tar, &fast, &layer);
	check_cuts(&tar);
	layer_done(&layer);
	buffer_done(&tar);
}

/* Zeros and junk behind the end are a run like any other. */
static void test_long_tail(void **state _unused_)
{
	Buffer tar = { 0 };
	placed_count = 0;
	place(&tar, "f", 10, 1);
	tar_end(&tar);
	uint8_t *junk = buffer_extend(&tar, 700000);
	assert_non_null(junk);
	fill(junk, 700000, 9);
	layer_open_tar(&tar, &fast, &layer);
	check_cuts(&tar);
	assert_int_equal(layer.chunks.count, 3);
	layer_done(&layer);
	buffer_done(&tar);
}

/* Headers of one entry beyond a chunk's length are held until the entry is known. */
static void test_huge_headers(void **state _unused_)
{
	Buffer tar = { 0 }, records = { 0 };
	static char comment[1000000];
	placed_count = 0;
	for (unsigned i = 0; i < 20; i++)
		place(&tar, "before", 3000, i);
	memset(comment, 'c', sizeof(comment));
	tar_record(&records, "comment", comment, sizeof(comment));
	size_t start = tar.size;
	for (unsigned i = 0; i < 3; i++)
		tar_extension(&tar, i ? 'g' : 'x', records.data, records.size);
	place(&tar, "small", 3000, 7);
	placed[20].header = start;
	start = tar.size;
	tar_extension(&tar, 'x', records.data, records.size);
	place(&tar, "large", 300000, 7);
	placed[21].header = start;
	start = tar.size;
	/* A global header in front of the end belongs to no entry. */
	tar_extension(&tar, 'g', records.data, records.size);
	tar_end(&tar);
	buffer_done(&records);
	layer_open_tar(&tar, &fast, &layer);
	check_cuts(&tar);
	layer_done(&layer);
	buffer_done(&tar);
}

static int write_to_memory(const Buffer *tar, size_t step, const LayerOptions *options, LayerResult *result,
			   Error *error)
{
	LayerFeed feed = { .tar = tar, .step = step };
	LayerSource source = { .read = layer_feed_read, .arg = &feed };
	_cleanup_close_ int fd = memfd_create("blob", MFD_CLOEXEC);
	assert_true(fd >= 0);
	return layer_write(&source, options, fd, result, error);
}

/* The blob depends neither on how the tar arrives nor on the number of threads. */
static void test_deterministic(void **state _unused_)
{
	static const unsigned jobs[] = { 0, 1, 2, 3, 8, 33 };
	static const size_t steps[] = { 0, 1000, 511, 65537 };
	Buffer tar = { 0 };
	put_mix(&tar);
	tar_text(tar_header(&tar, "link with data", '1', 5000), 157, "first");
	uint8_t data[5000];
	fill(data, sizeof(data), 1);
	tar_data(&tar, data, sizeof(data));
	tar_end(&tar);
	layer_open_tar(&tar, &fast, &layer);
	for (size_t i = 0; i < ELEMENTS(jobs); i++) {
		LayerResult result = { 0 };
		LayerOptions options = { .level = FRAME_FAST, .jobs = jobs[i] };
		assert_int_equal(write_to_memory(&tar, steps[i % ELEMENTS(steps)], &options, &result, NULL), 0);
		assert_true(digest_equal(&result.layer.blob, &layer.result.layer.blob));
		layer_result_done(&result);
	}
	layer_done(&layer);
	buffer_done(&tar);
}

static void test_levels(void **state _unused_)
{
	static const int levels[] = { FRAME_ADAPTIVE, FRAME_FAST, 3, 9, 12 };
	static const int bad[] = { -1, 2, 13 };
	Buffer tar = { 0 };
	put_mix(&tar);
	for (size_t i = 0; i < ELEMENTS(levels); i++) {
		LayerOptions options = { .level = levels[i], .jobs = 2 };
		layer_open_tar(&tar, &options, &layer);
		layer_done(&layer);
	}
	for (size_t i = 0; i < ELEMENTS(bad); i++) {
		LayerOptions options = { .level = bad[i], .jobs = 2 };
		assert_int_equal(layer_write_tar(&tar, &options, &layer), -EINVAL);
		assert_non_null(strstr(layer.error.message, "levels are"));
	}
	LayerOptions options = { .level = 1, .jobs = 257 };
	assert_int_equal(layer_write_tar(&tar, &options, &layer), -EINVAL);
	buffer_done(&tar);
}

/* A store of one blob's frames. */
typedef struct Frames {
	const Layer *from;
	unsigned asked;
	enum { HONEST, WRONG_DIGEST, WRONG_CONTENT, WRONG_SIZE, NOTHING, BROKEN } behaviour;
} Frames;

static int find_frame(void *arg, uint64_t content, uint32_t content_size, uint8_t *frame, uint32_t *ret_size,
		      Digest *ret_digest)
{
	Frames *frames = arg;
	frames->asked++;
	if (frames->behaviour == NOTHING)
		return -ENOENT;
	if (frames->behaviour == BROKEN)
		return -EIO;
	for (uint32_t i = 0; i < frames->from->chunks.count; i++) {
		Chunk chunk;
		chunk_table_get(&frames->from->chunks, i, &chunk);
		if (content != frames->from->result.contents[i])
			continue;
		assert_int_equal(chunk.tar_size, content_size);
		if (frames->behaviour == WRONG_CONTENT)
			chunk_table_get(&frames->from->chunks, (i + 1) % frames->from->chunks.count, &chunk);
		memcpy(frame, frames->from->blob.data + chunk.blob_offset, chunk.blob_size);
		*ret_size = frames->behaviour == WRONG_SIZE ? FORMAT_FRAME_MAX + 1 : chunk.blob_size;
		*ret_digest = chunk.digest;
		if (frames->behaviour == WRONG_DIGEST)
			frame[20] ^= 1;
		return 0;
	}
	return -ENOENT;
}

static void test_reuse(void **state _unused_)
{
	Buffer tar = { 0 };
	Layer first, again;
	put_mix(&tar);
	LayerOptions hc = { .level = 9, .jobs = 2 };
	layer_open_tar(&tar, &hc, &first);
	Frames frames = { .from = &first };
	LayerOptions plain = { .level = 3, .jobs = 2 };
	LayerOptions reuse = { .level = 3, .jobs = 3, .find_frame = find_frame, .find_frame_arg = &frames };
	layer_open_tar(&tar, &reuse, &again);
	assert_int_equal(again.result.reused_chunks, first.chunks.count);
	assert_int_equal(frames.asked, first.chunks.count);
	assert_true(digest_equal(&first.result.layer.blob, &again.result.layer.blob));
	layer_done(&again);

	/* Frames that are not what was said are compressed anew. */
	layer_open_tar(&tar, &plain, &layer);
	for (frames.behaviour = WRONG_DIGEST; frames.behaviour <= BROKEN; frames.behaviour++) {
		layer_open_tar(&tar, &reuse, &again);
		assert_int_equal(again.result.reused_chunks, 0);
		assert_true(digest_equal(&layer.result.layer.blob, &again.result.layer.blob));
		layer_done(&again);
	}
	layer_done(&layer);
	layer_done(&first);
	buffer_done(&tar);
}

static void test_diff_id(void **state _unused_)
{
	Buffer tar = { 0 };
	put_mix(&tar);
	Digest digest;
	assert_int_equal(digest_of(tar.data, tar.size, &digest), 0);
	LayerOptions options = { .level = 1, .jobs = 2, .diff_id = &digest };
	layer_open_tar(&tar, &options, &layer);
	layer_done(&layer);
	digest.bytes[31] ^= 1;
	assert_int_equal(layer_write_tar(&tar, &options, &layer), -EKEYREJECTED);
	assert_non_null(strstr(layer.error.message, "sha256:"));
	buffer_done(&tar);
}

static void test_bad_tar(void **state _unused_)
{
	Buffer tar = { 0 };
	put_mix(&tar);
	size_t good = tar.size;
	memset(tar.data + placed[500].header, 'x', BLOCK);
	assert_int_equal(layer_write_tar(&tar, &fast, &layer), -EBADMSG);
	assert_non_null(strstr(layer.error.message, placed[499].name));
	tar.size = placed[1].data + 1000000;
	assert_int_equal(layer_write_tar(&tar, &fast, &layer), -EBADMSG);
	assert_non_null(strstr(layer.error.message, "in large"));
	tar.size = good;
	buffer_done(&tar);
	tar_header(&tar, "f", 'V', 0);
	assert_int_equal(layer_write_tar(&tar, &fast, &layer), -EOPNOTSUPP);
	buffer_done(&tar);
}

static void test_broken_ends(void **state _unused_)
{
	Buffer tar = { 0 };
	LayerResult result;
	Error error = { 0 };
	put_mix(&tar);
	LayerFeed feed = { .tar = &tar, .fail_at = 3000000 };
	LayerSource source = { .read = layer_feed_read, .arg = &feed };
	_cleanup_close_ int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	assert_int_equal(layer_write(&source, &fast, null, &result, &error), -EIO);
	assert_string_equal(error.message, "the source broke");
	feed = (LayerFeed){ .tar = &tar };
	_cleanup_close_ int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
	if (full < 0)
		skip();
	assert_int_equal(layer_write(&source, &fast, full, &result, &error), -ENOSPC);
	assert_non_null(strstr(error.message, "cannot be written"));
	buffer_done(&tar);
}

static void count_progress(void *arg, uint64_t tar_bytes)
{
	uint64_t *last = arg;
	assert_true(tar_bytes > *last);
	*last = tar_bytes;
}

static void test_progress(void **state _unused_)
{
	Buffer tar = { 0 };
	uint64_t last = 0;
	put_mix(&tar);
	LayerOptions options = { .level = 1, .jobs = 2, .progress = count_progress, .progress_arg = &last };
	layer_open_tar(&tar, &options, &layer);
	assert_int_equal(last, tar.size);
	layer_done(&layer);
	buffer_done(&tar);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_empty),         cmocka_unit_test(test_cuts),
		cmocka_unit_test(test_long_tail),     cmocka_unit_test(test_huge_headers),
		cmocka_unit_test(test_deterministic), cmocka_unit_test(test_levels),
		cmocka_unit_test(test_reuse),         cmocka_unit_test(test_diff_id),
		cmocka_unit_test(test_bad_tar),       cmocka_unit_test(test_broken_ends),
		cmocka_unit_test(test_progress),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
