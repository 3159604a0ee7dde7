/*
 * Three bytes of content size and one of flags, then a frame. Flag 1 makes the frame's header right first; flag 2
 * takes the bytes for content instead, which must come back from the frame made of them.
 */
#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fs/format/format.h"
#include "fs/format/frame-layout.h"
#include "fs/format/frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void decode(const uint8_t *data, size_t size, size_t content_size, bool fix_header)
{
	_cleanup_(frame_decoder_free_p) FrameDecoder *decoder = NULL;
	_cleanup_free_ uint8_t *frame = malloc(size ? size : 1), *content = malloc(content_size ? content_size : 1);
	if (!frame || !content || frame_decoder_new(&decoder) < 0)
		return;
	memcpy(frame, data, size);
	if (fix_header && size >= FRAME_HEADER)
		frame_put_header(frame, content_size);
	int r = frame_decode(decoder, frame, size, content, content_size);
	assert(r == 0 || r == -EBADMSG);
}

static void round_trip(const uint8_t *data, size_t size, int level)
{
	_cleanup_(frame_encoder_free_p) FrameEncoder *encoder = NULL;
	_cleanup_(frame_decoder_free_p) FrameDecoder *decoder = NULL;
	_cleanup_free_ uint8_t *frame = malloc(FORMAT_FRAME_MAX), *content = malloc(size);
	size_t frame_size;
	if (!frame || !content || frame_encoder_new(level, &encoder) < 0 || frame_decoder_new(&decoder) < 0)
		return;
	int r = frame_encode(encoder, data, size, frame, &frame_size);
	assert(r == 0 && frame_size <= FORMAT_FRAME_MAX);
	r = frame_decode(decoder, frame, frame_size, content, size);
	assert(r == 0 && memcmp(content, data, size) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 4)
		return 0;
	size_t content_size = data[0] | (size_t)data[1] << 8 | (size_t)data[2] << 16;
	if ((data[3] & 2) && size > 4 && size - 4 <= FORMAT_CHUNK_MAX)
		round_trip(data + 4, size - 4, data[3] & 1 ? FRAME_FAST : FRAME_ADAPTIVE);
	else
		decode(data + 4, size - 4, content_size % (FORMAT_CHUNK_MAX + 2), data[3] & 1);
	return 0;
}
