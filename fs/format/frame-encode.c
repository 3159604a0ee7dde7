/*
 * The frame is laid out here rather than by LZ4F. A frame must depend on its data alone, which only the block
 * functions promise: they start from a cleared state, where a reused LZ4F context keeps its tables.
 */
#include <errno.h>
#include <lz4.h>
#include <lz4hc.h>
#include <string.h>

#include "fs/base/bytes.h"
#include "fs/format/format.h"
#include "fs/format/frame-layout.h"
#include "fs/format/frame.h"

#define LEVEL_ADAPTIVE_HC 5
#define ADAPTIVE_KEPT     90 /* percent of its content above which what fast made of a chunk is kept */

struct FrameEncoder {
	int level;
	void *fast; /* state of LZ4; NULL when the level is HC */
	void *hc;   /* state of LZ4 HC; NULL when the level is FRAME_FAST */
	char block[FORMAT_CHUNK_MAX];
};

int frame_encoder_new(int level, FrameEncoder **ret_encoder)
{
	if (level != FRAME_ADAPTIVE && level != FRAME_FAST && (level < LZ4HC_CLEVEL_MIN || level > LZ4HC_CLEVEL_MAX))
		return -EINVAL;
	_cleanup_(frame_encoder_free_p) FrameEncoder *encoder = calloc(1, sizeof(*encoder));
	if (!encoder)
		return -ENOMEM;
	encoder->level = level;
	if (level == FRAME_ADAPTIVE || level == FRAME_FAST) {
		encoder->fast = malloc((size_t)LZ4_sizeofState());
		if (!encoder->fast)
			return -ENOMEM;
	}
	if (level != FRAME_FAST) {
		encoder->hc = malloc((size_t)LZ4_sizeofStateHC());
		if (!encoder->hc)
			return -ENOMEM;
	}
	*ret_encoder = TAKE_PTR(encoder);
	return 0;
}

FrameEncoder *frame_encoder_free(FrameEncoder *encoder)
{
	if (encoder) {
		free(encoder->fast);
		free(encoder->hc);
		free(encoder);
	}
	return NULL;
}

/* Both compress into at most `room` bytes and return the length, 0 when it does not fit. */
static int compress_fast(FrameEncoder *encoder, const void *data, size_t size, void *block, int room)
{
	return LZ4_compress_fast_extState(encoder->fast, data, block, (int)size, room, 1);
}

static int compress_hc(FrameEncoder *encoder, const void *data, size_t size, void *block, int room, int level)
{
	return LZ4_compress_HC_extStateHC(encoder->hc, data, block, (int)size, room, level);
}

/*
 * Fast first: what it cannot shrink by a tenth, HC does not shrink by much more either, at its slowest (docs/decisions has the
 * figures).
 */
static int compress_adaptive(FrameEncoder *encoder, const void *data, size_t size, void *block, int room)
{
	int fast = compress_fast(encoder, data, size, block, room);
	if (fast <= 0 || (size_t)fast * 100 > size * ADAPTIVE_KEPT)
		return fast;
	int hc = compress_hc(encoder, data, size, encoder->block, fast, LEVEL_ADAPTIVE_HC);
	if (hc <= 0 || hc >= fast)
		return fast;
	memcpy(block, encoder->block, (size_t)hc);
	return hc;
}

/* Writes the one block of a frame and returns its length: compressed only if that is shorter. */
static size_t put_block(FrameEncoder *encoder, const void *data, size_t size, uint8_t *to)
{
	uint8_t *block = to + FRAME_BLOCK_HEADER;
	int room = (int)size - 1, length;
	if (encoder->level == FRAME_ADAPTIVE)
		length = compress_adaptive(encoder, data, size, block, room);
	else if (encoder->level == FRAME_FAST)
		length = compress_fast(encoder, data, size, block, room);
	else
		length = compress_hc(encoder, data, size, block, room, encoder->level);

	if (length > 0) {
		store_le32(to, (uint32_t)length);
		return FRAME_BLOCK_HEADER + (size_t)length;
	}
	store_le32(to, (uint32_t)size | FRAME_BLOCK_STORED);
	memcpy(block, data, size);
	return FRAME_BLOCK_HEADER + size;
}

int frame_encode(FrameEncoder *encoder, const void *data, size_t size, uint8_t *frame, size_t *ret_frame_size)
{
	if (size == 0 || size > FORMAT_CHUNK_MAX)
		return -EINVAL;
	frame_put_header(frame, size);
	size_t length = FRAME_HEADER;
	length += put_block(encoder, data, size, frame + length);
	store_le32(frame + length, 0);
	store_le32(frame + length + FRAME_BLOCK_HEADER, XXH32(data, size, 0));
	*ret_frame_size = length + FRAME_BLOCK_HEADER + FRAME_CHECKSUM;
	return 0;
}
