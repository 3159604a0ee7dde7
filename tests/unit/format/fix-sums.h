/* Makes the page sums of a changed image right again, so that what lies behind them is reached. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <xxhash.h>

#include "fs/base/bytes.h"
#include "fs/format/format.h"
#include "fs/format/image-layout.h"

/* Any bytes at all: those without a section of sums in its place are left as they are. */
static inline void fix_sums(uint8_t *data, size_t size)
{
	if (size < IMAGE_HEADER_SIZE)
		return;
	uint64_t count = load_le32(data + IMAGE_AT_SECTION_COUNT);
	if (count == 0 || !range_within(IMAGE_HEADER_SIZE, count * IMAGE_SECTION_ENTRY_SIZE, size))
		return;
	const uint8_t *entry = data + IMAGE_HEADER_SIZE + (count - 1) * IMAGE_SECTION_ENTRY_SIZE;
	uint64_t offset = load_le64(entry + IMAGE_SECTION_AT_OFFSET);
	if (offset > size || size - offset != ((offset + FORMAT_PAGE_SIZE - 1) / FORMAT_PAGE_SIZE + 1) * IMAGE_SUM_SIZE)
		return;
	uint8_t *sum = data + offset;
	for (uint64_t start = 0; start < offset; start += FORMAT_PAGE_SIZE, sum += IMAGE_SUM_SIZE) {
		uint64_t length = offset - start < FORMAT_PAGE_SIZE ? offset - start : FORMAT_PAGE_SIZE;
		store_le64(sum, XXH64(data + start, length, 0));
	}
	store_le64(sum, XXH64(data + offset, (size_t)(sum - data) - offset, 0));
}
