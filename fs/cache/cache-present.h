/*
 * Private to the room: a blob's file `present`, little-endian.
 *
 *   bitmap   a bit a chunk, least significant first; zeros up to a multiple of 8 bytes
 *   marks    16 bytes a chunk: generation (4), last use in seconds since 1970 (4), where its frame is in the blob: length (20 bits) above
 *            offset (44 bits), 0 as long as no server has said so
 *
 * Several processes have the file open: any number of servers, which set bits and say when chunks were used, and one that evicts, by
 * the cache's lock. Whoever evicts a chunk makes its generation odd, clears its bit, punches the hole, and makes the generation the next even
 * number. So a reader, who copies a frame to memory of his own first and looks at the generation then, knows whether a hole was being made under
 * him: if the generation is the one under which he came to trust the chunk, none was. A writer looks before and after. All the rest is hints.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "fs/base/bytes.h"
#include "fs/base/fd.h"
#include "fs/format/format.h"

#define PRESENT_MARK_SIZE   16u
#define PRESENT_OFFSET_BITS 44u

enum { AT_GENERATION = 0, AT_USED = 4, AT_PLACE = 8 };

/* What comes before the marks, and all of it. */
static inline uint64_t present_bits_size(uint32_t count)
{
	return ((uint64_t)count + 63) / 64 * 8;
}

static inline uint64_t present_size(uint32_t count)
{
	return present_bits_size(count) + (uint64_t)count * PRESENT_MARK_SIZE;
}

static inline uint64_t present_mark(uint32_t count, uint32_t chunk)
{
	return present_bits_size(count) + (uint64_t)chunk * PRESENT_MARK_SIZE;
}

/* 0: it cannot be said. */
static inline uint64_t present_place(uint64_t offset, uint32_t size)
{
	return offset >> PRESENT_OFFSET_BITS ? 0 : (uint64_t)size << PRESENT_OFFSET_BITS | offset;
}

static inline uint64_t present_place_offset(uint64_t place)
{
	return place & ((UINT64_C(1) << PRESENT_OFFSET_BITS) - 1);
}

static inline uint32_t present_place_size(uint64_t place)
{
	return (uint32_t)(place >> PRESENT_OFFSET_BITS);
}

/* A generation that is being made: a hole is punched just now, or whoever did that was killed. */
static inline bool present_is_odd(uint32_t generation)
{
	return generation & 1;
}

/* What is not there of the file was never evicted. Anything else that cannot be read counts as odd. */
static inline uint32_t present_generation(int present_fd, uint32_t count, uint32_t chunk)
{
	uint8_t bytes[4];
	int r = fd_pread_all(present_fd, bytes, sizeof(bytes), present_mark(count, chunk) + AT_GENERATION);
	return r == 0 ? load_le32(bytes) : r == -ENODATA ? 0 : UINT32_MAX;
}
