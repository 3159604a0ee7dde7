/* One chunk as an LZ4 frame: docs/format.md section 1.1. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "fs/base/cleanup.h"

/* Compression levels: FRAME_ADAPTIVE is the default of the format, FRAME_FAST is LZ4 level 1, 3 to 12 are LZ4 HC. */
enum { FRAME_FAST = 1, FRAME_ADAPTIVE = 0 };

/* Compressor state with its scratch memory. One thread at a time. */
typedef struct FrameEncoder FrameEncoder;

/* `level`: FRAME_ADAPTIVE, FRAME_FAST, or 3 to 12. Errors: -EINVAL, -ENOMEM. */
int frame_encoder_new(int level, FrameEncoder **ret_encoder) _must_check_;
FrameEncoder *frame_encoder_free(FrameEncoder *encoder);
DEFINE_CLEANUP(FrameEncoder, frame_encoder_free);

/*
 * Encodes 1 to FORMAT_CHUNK_MAX bytes into `frame`, which holds FORMAT_FRAME_MAX. The frame depends on nothing
 * but data, level and liblz4's version. Allocates nothing. Errors: -EINVAL.
 */
int frame_encode(FrameEncoder *encoder, const void *data, size_t size, uint8_t *frame, size_t *ret_frame_size)
	_must_check_;

/* Decoder state. One thread at a time. */
typedef struct FrameDecoder FrameDecoder;

int frame_decoder_new(FrameDecoder **ret_decoder) _must_check_;
FrameDecoder *frame_decoder_free(FrameDecoder *decoder);
DEFINE_CLEANUP(FrameDecoder, frame_decoder_free);

/*
 * Decodes a frame that must yield exactly `size` bytes and end at frame + frame_size; verifies LZ4's content
 * checksum. `frame` may be any bytes at all. Allocates nothing. Errors: -EBADMSG (then `data` holds rubbish).
 */
int frame_decode(FrameDecoder *decoder, const uint8_t *frame, size_t frame_size, void *data, size_t size) _must_check_;
