/* Chunks as LZ4 frames: what liblz4 itself makes of ours, and what ours makes of other frames. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <lz4frame.h>
#include <stdbool.h>
#include <string.h>

#include "fs/base/bytes.h"
#include "fs/format/format.h"
#include "fs/format/frame.h"

static const int levels[] = { FRAME_ADAPTIVE, FRAME_FAST, 3, 9, 12 };
static const size_t sizes[] = { 1, 2, 12, 13, 64, 4096, 65535, 65536, 65547, 131072, 262143, 262144 };

/* `kind` 0 is random, 1 words, 2 all one byte. */
static void fill(uint8_t *data, size_t size, int kind)
{
	static const char words[8][9] = { "chunk   ", "layer   ", "frame   ", "index   ",
					  "digest  ", "opaque  ", "snapshot", "manifest" };
	uint64_t state = size + 1;
	uint8_t random = 0;
	for (size_t i = 0; i < size; i++) {
		if (kind == 0 || i % 8 == 0) {
			state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
			random = (uint8_t)(state >> 56);
		}
		data[i] = kind == 0 ? random : kind == 1 ? (uint8_t)words[random % 8][i % 8] : 'x';
	}
}

static size_t encode(int level, const void *data, size_t size, uint8_t *frame)
{
	_cleanup_(frame_encoder_free_p) FrameEncoder *encoder = NULL;
	size_t frame_size = 0;
	assert_int_equal(frame_encoder_new(level, &encoder), 0);
	assert_int_equal(frame_encode(encoder, data, size, frame, &frame_size), 0);
	return frame_size;
}

static int decode(const uint8_t *frame, size_t frame_size, void *data, size_t size)
{
	_cleanup_(frame_decoder_free_p) FrameDecoder *decoder = NULL;
	/* A copy of the exact size shows reads past its end. */
	_cleanup_free_ uint8_t *exact = malloc(frame_size ? frame_size : 1);
	assert_non_null(exact);
	memcpy(exact, frame, frame_size);
	assert_int_equal(frame_decoder_new(&decoder), 0);
	return frame_decode(decoder, exact, frame_size, data, size);
}

/* liblz4's own reading of a frame, and what its header says. */
static void check_with_lz4f(const uint8_t *frame, size_t frame_size, const uint8_t *data, size_t size)
{
	static uint8_t out[FORMAT_CHUNK_MAX + 1];
	LZ4F_dctx *context;
	LZ4F_frameInfo_t info;
	size_t consumed = frame_size, produced = sizeof(out);
	assert_false(LZ4F_isError(LZ4F_createDecompressionContext(&context, LZ4F_VERSION)));
	assert_false(LZ4F_isError(LZ4F_getFrameInfo(context, &info, frame, &consumed)));
	assert_int_equal(info.blockSizeID, LZ4F_max256KB);
	assert_int_equal(info.blockMode, LZ4F_blockIndependent);
	assert_int_equal(info.contentChecksumFlag, LZ4F_contentChecksumEnabled);
	assert_int_equal(info.blockChecksumFlag, LZ4F_noBlockChecksum);
	assert_int_equal(info.contentSize, size);
	size_t header = consumed;
	consumed = frame_size - header;
	assert_int_equal(LZ4F_decompress(context, out, &produced, frame + header, &consumed, NULL), 0);
	assert_int_equal(consumed, frame_size - header);
	assert_int_equal(produced, size);
	assert_memory_equal(out, data, size);
	assert_false(LZ4F_isError(LZ4F_freeDecompressionContext(context)));
}

static void test_round_trip(void **state)
{
	(void)state;
	static uint8_t data[FORMAT_CHUNK_MAX], out[FORMAT_CHUNK_MAX], frame[FORMAT_FRAME_MAX];
	for (size_t l = 0; l < ELEMENTS(levels); l++)
		for (size_t s = 0; s < ELEMENTS(sizes); s++)
			for (int kind = 0; kind < 3; kind++) {
				fill(data, sizes[s], kind);
				size_t frame_size = encode(levels[l], data, sizes[s], frame);
				assert_in_range(frame_size, 1, sizes[s] + 27);
				memset(out, 0xee, sizes[s]);
				assert_int_equal(decode(frame, frame_size, out, sizes[s]), 0);
				assert_memory_equal(out, data, sizes[s]);
				check_with_lz4f(frame, frame_size, data, sizes[s]);
			}
}

static void test_levels(void **state)
{
	(void)state;
	static uint8_t data[131072], random[131072], frame[FORMAT_FRAME_MAX], other[FORMAT_FRAME_MAX];
	fill(data, sizeof(data), 1);
	fill(random, sizeof(random), 0);
	size_t fast = encode(FRAME_FAST, data, sizeof(data), other);
	size_t hc = encode(6, data, sizeof(data), other);
	assert_true(hc < fast);
	assert_int_equal(encode(FRAME_ADAPTIVE, data, sizeof(data), frame), hc);
	assert_memory_equal(frame, other, hc);
	/* What does not shrink is stored, and bit 31 of the block's header says so. */
	assert_int_equal(encode(FRAME_ADAPTIVE, random, sizeof(random), frame), sizeof(random) + 27);
	assert_int_equal(load_le32(frame + 15), sizeof(random) | 1u << 31);
	assert_memory_equal(frame + 19, random, sizeof(random));

	_cleanup_(frame_encoder_free_p) FrameEncoder *encoder = NULL;
	const int wrong[] = { -1, 2, 13, INT32_MAX };
	for (size_t i = 0; i < ELEMENTS(wrong); i++)
		assert_int_equal(frame_encoder_new(wrong[i], &encoder), -EINVAL);
}

/* Random bytes but for words in [from, from + count): what level do they get? */
static void check_adaptive(size_t size, size_t from, size_t count, int level)
{
	static uint8_t data[131072], frame[FORMAT_FRAME_MAX], expected[3][FORMAT_FRAME_MAX];
	const int all[3] = { FRAME_FAST, 5, 6 };
	size_t sizes_of[3];
	fill(data, size, 0);
	fill(data + from, count, 1);
	for (size_t i = 0; i < 3; i++)
		sizes_of[i] = encode(all[i], data, size, expected[i]);
	assert_true(sizes_of[1] < sizes_of[0]);
	/* Of few words both levels of HC make the same. */
	assert_true(sizes_of[2] < sizes_of[1] || (sizes_of[2] == sizes_of[1] && count < 10000));
	size_t found = encode(FRAME_ADAPTIVE, data, size, frame);
	for (size_t i = 0; i < 3; i++) {
		if (all[i] != level)
			continue;
		assert_int_equal(found, sizes_of[i]);
		assert_memory_equal(frame, expected[i], found);
	}
}

/* Adaptive takes HC where fast saves enough of the first and last 4 KiB, or of a chunk as short as these. */
static void test_adaptive_sample(void **state)
{
	(void)state;
	check_adaptive(131072, 0, 2000, 5);
	check_adaptive(131072, 131072 - 2000, 2000, 5);
	check_adaptive(131072, 0, 131072 - 4096, 5);
	check_adaptive(131072, 4096, 131072 - 2 * 4096, FRAME_FAST);
	check_adaptive(131072, 0, 800, FRAME_FAST);
	check_adaptive(131072, 0, 131072, 6);
	check_adaptive(8192, 1000, 3000, 5);
	check_adaptive(8192, 1000, 7000, 6);
	check_adaptive(8192, 3000, 800, FRAME_FAST);
}

/* A frame depends on its data alone, not on what the encoder saw before. */
static void test_deterministic(void **state)
{
	(void)state;
	static uint8_t data[FORMAT_CHUNK_MAX], fresh[FORMAT_FRAME_MAX], reused[FORMAT_FRAME_MAX];
	for (size_t l = 0; l < ELEMENTS(levels); l++) {
		_cleanup_(frame_encoder_free_p) FrameEncoder *encoder = NULL;
		assert_int_equal(frame_encoder_new(levels[l], &encoder), 0);
		for (size_t s = 0; s < ELEMENTS(sizes); s++)
			for (int kind = 2; kind >= 0; kind--) {
				size_t size;
				fill(data, sizes[s], kind);
				size_t fresh_size = encode(levels[l], data, sizes[s], fresh);
				assert_int_equal(frame_encode(encoder, data, sizes[s], reused, &size), 0);
				assert_int_equal(size, fresh_size);
				assert_memory_equal(reused, fresh, size);
			}
	}
}

/* Nor does it after 1 GiB, where liblz4 starts to count positions anew. */
static void test_deterministic_for_long(void **state)
{
	(void)state;
	static uint8_t data[FORMAT_CHUNK_MAX], fresh[FORMAT_FRAME_MAX], reused[FORMAT_FRAME_MAX];
	_cleanup_(frame_encoder_free_p) FrameEncoder *encoder = NULL;
	fill(data, sizeof(data), 2);
	fill(data, sizeof(data) / 16, 1);
	size_t fresh_size = encode(3, data, sizeof(data), fresh);
	assert_int_equal(frame_encoder_new(3, &encoder), 0);
	for (int i = 0; i < 4200; i++) {
		size_t size;
		assert_int_equal(frame_encode(encoder, data, sizeof(data), reused, &size), 0);
		assert_int_equal(size, fresh_size);
		assert_memory_equal(reused, fresh, size);
	}
}

static void test_refuses_sizes(void **state)
{
	(void)state;
	static uint8_t data[FORMAT_CHUNK_MAX + 1], frame[FORMAT_FRAME_MAX];
	_cleanup_(frame_encoder_free_p) FrameEncoder *encoder = NULL;
	size_t size;
	assert_int_equal(frame_encoder_new(FRAME_FAST, &encoder), 0);
	assert_int_equal(frame_encode(encoder, data, 0, frame, &size), -EINVAL);
	assert_int_equal(frame_encode(encoder, data, sizeof(data), frame, &size), -EINVAL);

	size = encode(FRAME_FAST, data, 1000, frame);
	assert_int_equal(decode(frame, size, data, 1000), 0);
	assert_int_equal(decode(frame, size, data, 999), -EBADMSG);
	assert_int_equal(decode(frame, size, data, 1001), -EBADMSG);
	assert_int_equal(decode(frame, size, data, 0), -EBADMSG);
	assert_int_equal(decode(frame, size, data, sizeof(data)), -EBADMSG);
}

/* Every byte of a frame is covered: by its header's checksum, its content's, or the lengths. */
static void test_refuses_every_change(void **state)
{
	(void)state;
	static uint8_t data[1000], out[1000], frame[FORMAT_FRAME_MAX];
	for (int kind = 0; kind < 2; kind++) {
		fill(data, sizeof(data), kind);
		size_t size = encode(FRAME_ADAPTIVE, data, sizeof(data), frame);
		for (size_t at = 0; at < size; at++)
			for (int bit = 0; bit < 8; bit++) {
				frame[at] ^= (uint8_t)(1 << bit);
				int r = decode(frame, size, out, sizeof(out));
				/* Other bytes of LZ4 may stand for the same content, never for another. */
				if (r == 0)
					assert_memory_equal(out, data, sizeof(data));
				else
					assert_int_equal(r, -EBADMSG);
				if (at < 15 || at >= size - 8)
					assert_int_equal(r, -EBADMSG);
				frame[at] ^= (uint8_t)(1 << bit);
			}
		for (size_t cut = 0; cut < size; cut++)
			assert_int_equal(decode(frame, cut, out, sizeof(out)), -EBADMSG);
		frame[size] = 0;
		assert_int_equal(decode(frame, size + 1, out, sizeof(out)), -EBADMSG);
	}
}

static size_t lz4f_frame(const LZ4F_preferences_t *preferences, const void *data, size_t size, uint8_t *frame,
			 size_t room)
{
	size_t frame_size = LZ4F_compressFrame(frame, room, data, size, preferences);
	assert_false(LZ4F_isError(frame_size));
	return frame_size;
}

static LZ4F_preferences_t good_preferences(size_t size)
{
	return (LZ4F_preferences_t){
		.frameInfo = {
			.blockSizeID = LZ4F_max256KB,
			.blockMode = LZ4F_blockIndependent,
			.contentChecksumFlag = LZ4F_contentChecksumEnabled,
			.contentSize = size,
		},
	};
}

static void test_other_writers(void **state)
{
	(void)state;
	static uint8_t data[100000], out[100000], frame[2 * FORMAT_FRAME_MAX];
	fill(data, sizeof(data), 1);

	/* Two blocks in one frame. */
	LZ4F_cctx *context;
	LZ4F_preferences_t good = good_preferences(sizeof(data));
	good.autoFlush = 1;
	assert_false(LZ4F_isError(LZ4F_createCompressionContext(&context, LZ4F_VERSION)));
	size_t size = LZ4F_compressBegin(context, frame, sizeof(frame), &good);
	size += LZ4F_compressUpdate(context, frame + size, sizeof(frame) - size, data, 60000, NULL);
	size += LZ4F_compressUpdate(context, frame + size, sizeof(frame) - size, data + 60000, 40000, NULL);
	size += LZ4F_compressEnd(context, frame + size, sizeof(frame) - size, NULL);
	assert_false(LZ4F_isError(LZ4F_freeCompressionContext(context)));
	assert_int_equal(decode(frame, size, out, sizeof(out)), 0);
	assert_memory_equal(out, data, sizeof(data));

	/* A second frame behind the first, and frames of another make. */
	assert_int_equal(
		decode(frame, size + lz4f_frame(&good, data, 10, frame + size, sizeof(frame) - size), out, sizeof(out)),
		-EBADMSG);
	LZ4F_preferences_t bad[6];
	for (size_t i = 0; i < ELEMENTS(bad); i++)
		bad[i] = good_preferences(50000);
	bad[0].frameInfo.blockMode = LZ4F_blockLinked;
	bad[0].frameInfo.blockSizeID = LZ4F_max64KB;
	bad[1].frameInfo.contentChecksumFlag = LZ4F_noContentChecksum;
	bad[2].frameInfo.contentSize = 0;
	bad[3].frameInfo.dictID = 7;
	bad[4].frameInfo.blockChecksumFlag = LZ4F_blockChecksumEnabled;
	/* LZ4F_compressFrame lowers the block size to what the data needs. */
	bad[5].frameInfo.blockSizeID = LZ4F_max1MB;
	for (size_t i = 0; i < ELEMENTS(bad); i++) {
		size = lz4f_frame(&bad[i], data, 50000, frame, sizeof(frame));
		assert_int_equal(decode(frame, size, out, 50000), -EBADMSG);
	}
}

static void test_foreign_magic(void **state)
{
	(void)state;
	static uint8_t out[16];
	uint8_t skippable[24] = { 0x5e, 0x2a, 0x4d, 0x18, 16 };
	uint8_t legacy[24] = { 0x02, 0x21, 0x4c, 0x18, 16 };
	assert_int_equal(decode(skippable, sizeof(skippable), out, sizeof(out)), -EBADMSG);
	assert_int_equal(decode(legacy, sizeof(legacy), out, sizeof(out)), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_levels),
		cmocka_unit_test(test_adaptive_sample),
		cmocka_unit_test(test_deterministic),
		cmocka_unit_test(test_deterministic_for_long),
		cmocka_unit_test(test_refuses_sizes),
		cmocka_unit_test(test_refuses_every_change),
		cmocka_unit_test(test_other_writers),
		cmocka_unit_test(test_foreign_magic),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
