/* Byte offsets of the image's header and section table (docs/format.md section 3.1), for reader and writer. */
#pragma once

#include <stdint.h>

#define IMAGE_MAGIC "imgfsidx"

enum {
	IMAGE_AT_VERSION = 8,
	IMAGE_AT_KIND = 12,
	IMAGE_AT_SIZE = 16,
	IMAGE_AT_SECTION_COUNT = 24,
	IMAGE_AT_CODEC = 28,
	IMAGE_AT_TAR_SIZE = 32,
	IMAGE_AT_CHUNKS_SIZE = 40,
	IMAGE_AT_ID = 48,
	IMAGE_AT_RESERVED = 80,
	IMAGE_HEADER_SIZE = 96,
};

enum {
	IMAGE_SECTION_AT_TYPE = 0,
	IMAGE_SECTION_AT_FLAGS = 4,
	IMAGE_SECTION_AT_OFFSET = 8,
	IMAGE_SECTION_AT_SIZE = 16,
	IMAGE_SECTION_ENTRY_SIZE = 24,
};

#define IMAGE_ALIGNMENT 8u
#define IMAGE_SUM_SIZE  8u

static inline uint64_t image_align(uint64_t offset)
{
	return (offset + IMAGE_ALIGNMENT - 1) / IMAGE_ALIGNMENT * IMAGE_ALIGNMENT;
}
