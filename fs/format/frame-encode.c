/*
 * The frame is laid out here rather than by LZ4F. A frame must depend on its data alone: LZ4 fast starts from a cleared state, and
 * LZ4 HC from one whose tables hold older positions only, too far back for any match, which saves clearing 256 KiB for each chunk.
 */
#include <errno.h>
#include <lz4.h>
#include <lz4hc.h>
#include <string.h>

#include "fs/base/bytes.h"
#include "fs/format/format.h"
#include "fs/format/frame-layout.h"
#include "fs/format/frame.h"

/* Up to how many percent LZ4 fast must have brought a sample so that LZ4 HC is worth its time, and a level more of it. */
#define ADAPTIVE_HC5 90u
#define ADAPTIVE_HC6 50u
#define SAMPLE_SIZE  4096u /* of a chunk's start, and of its end */

struct FrameEncoder {
	int level;
	void *fast;         /* state of LZ4; NULL when the level is HC */
	LZ4_streamHC_t *hc; /* NULL when the level is FRAME_FAST */
	char sample[LZ4_COMPRESSBOUND(2 * SAMPLE_SIZE)];
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
		encoder->hc = LZ4_createStreamHC();
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
		(void)LZ4_freeStreamHC(encoder->hc);
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
	LZ4_resetStreamHC_fast(encoder->hc, level);
	return LZ4_compress_HC_continue(encoder->hc, data, block, (int)size, room);
}

/* What fast leaves of a sample of at most 2 * SAMPLE_SIZE bytes. */
static size_t compress_sample(FrameEncoder *encoder, const void *data, size_t size)
{
	int length = compress_fast(encoder, data, size, encoder->sample, (int)sizeof(encoder->sample));
	return (size_t)length < size ? (size_t)length : size;
}

/*
 * The level for a chunk. What fast cannot shrink by a tenth, HC does not shrink by much more either, at its slowest; and HC 6 gives
 * most for its time where there is most to be found (docs/decisions has the figures).
 */
static int choose_level(FrameEncoder *encoder, const uint8_t *data, size_t size)
{
	size_t sampled = size, left;
	if (size <= 2 * SAMPLE_SIZE) {
		left = compress_sample(encoder, data, size);
	} else {
		sampled = 2 * SAMPLE_SIZE;
		left = compress_sample(encoder, data, SAMPLE_SIZE) +
		       compress_sample(encoder, data + size - SAMPLE_SIZE, SAMPLE_SIZE);
	}
	if (left * 100 <= sampled * ADAPTIVE_HC6)
		return 6;
	return left * 100 <= sampled * ADAPTIVE_HC5 ? 5 : FRAME_FAST;
}

/* Writes the one block of a frame and returns its length: compressed only if that is shorter. */
static size_t put_block(FrameEncoder *encoder, const void *data, size_t size, uint8_t *to)
{
	uint8_t *block = to + FRAME_BLOCK_HEADER;
	int level = encoder->level == FRAME_ADAPTIVE ? choose_level(encoder, data, size) : encoder->level;
	int room = (int)size - 1;
	int length = level == FRAME_FAST ? compress_fast(encoder, data, size, block, room)
					 : compress_hc(encoder, data, size, block, room, level);

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
