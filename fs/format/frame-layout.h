/*
 * The LZ4 frame of docs/format.md section 1.1 (lz4 frame format 1.6): 15 bytes of header, blocks, end mark, checksum.
 * Header: magic, FLG, BD, content size, header checksum. Only FLG and BD as given here are valid in a blob.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <xxhash.h>

#include "fs/base/bytes.h"

#define FRAME_MAGIC        0x184D2204u
#define FRAME_FLG          0x6Cu /* version 1, independent blocks, content size, content checksum */
#define FRAME_BD           0x50u /* blocks of up to 256 KiB */
#define FRAME_HEADER       15u
#define FRAME_BLOCK_HEADER 4u
#define FRAME_BLOCK_STORED 0x80000000u /* bit 31 of a block's header: not compressed */
#define FRAME_CHECKSUM     4u

/* Writes the FRAME_HEADER bytes that open a frame of `size` bytes of content. */
static inline void frame_put_header(uint8_t *to, size_t size)
{
	store_le32(to, FRAME_MAGIC);
	to[4] = FRAME_FLG;
	to[5] = FRAME_BD;
	store_le64(to + 6, size);
	to[14] = (uint8_t)(XXH32(to + 4, 10, 0) >> 8);
}
