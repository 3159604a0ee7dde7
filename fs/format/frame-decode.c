/*
 * Blocks are decoded by LZ4 straight into the caller's memory. LZ4F would decode a block into memory of its own and
 * copy it unless there is room for a whole 256 KiB, which takes a quarter longer.
 */
#include <errno.h>
#include <lz4.h>
#include <stdbool.h>
#include <string.h>

#include "fs/format/format.h"
#include "fs/format/frame-layout.h"
#include "fs/format/frame.h"

/*
 * Independent LZ4 blocks need no state; a codec that does (docs/format.md section 3.1 numbers them) keeps its own
 * here.
 */
struct FrameDecoder {
	uint32_t codec;
};

int frame_decoder_new(FrameDecoder **ret_decoder)
{
	FrameDecoder *decoder = malloc(sizeof(*decoder));
	if (!decoder)
		return -ENOMEM;
	decoder->codec = FORMAT_CODEC_LZ4;
	*ret_decoder = decoder;
	return 0;
}

FrameDecoder *frame_decoder_free(FrameDecoder *decoder)
{
	free(decoder);
	return NULL;
}

/* Decodes one block of `length` bytes into at most `room`; returns the length of its content or -EBADMSG. */
static int decode_block(const uint8_t *block, uint32_t length, bool stored, uint8_t *to, size_t room)
{
	if (!stored) {
		int count = LZ4_decompress_safe((const char *)block, (char *)to, (int)length, (int)room);
		return count > 0 ? count : -EBADMSG;
	}
	if (length > room)
		return -EBADMSG;
	memcpy(to, block, length);
	return (int)length;
}

int frame_decode(FrameDecoder *decoder, const uint8_t *frame, size_t frame_size, void *data, size_t size)
{
	if (decoder->codec != FORMAT_CODEC_LZ4)
		return -EBADMSG;
	uint8_t header[FRAME_HEADER];
	if (size == 0 || size > FORMAT_CHUNK_MAX || frame_size < FRAME_HEADER)
		return -EBADMSG;
	frame_put_header(header, size);
	if (memcmp(frame, header, sizeof(header)) != 0)
		return -EBADMSG;

	uint8_t *to = data;
	size_t position = FRAME_HEADER, done = 0;
	for (;;) {
		if (!range_within(position, FRAME_BLOCK_HEADER, frame_size))
			return -EBADMSG;
		uint32_t word = load_le32(frame + position), length = word & ~FRAME_BLOCK_STORED;
		position += FRAME_BLOCK_HEADER;
		if (word == 0)
			break;
		if (length == 0 || length > FORMAT_CHUNK_MAX || !range_within(position, length, frame_size))
			return -EBADMSG;
		int count = decode_block(frame + position, length, word & FRAME_BLOCK_STORED, to + done, size - done);
		if (count < 0)
			return count;
		position += length;
		done += (size_t)count;
	}
	if (done != size || frame_size - position != FRAME_CHECKSUM)
		return -EBADMSG;
	return load_le32(frame + position) == XXH32(data, size, 0) ? 0 : -EBADMSG;
}
