/* Private to the room: sums of the pages of a decoded copy. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/*
 * The sum of a page: XXH3, 64 bits, of CACHE_DECODED_PAGE bytes. `total`: how many bytes the caller is about to sum up one after the other,
 * which decides with what instructions, not about the result.
 */
uint64_t page_sum(const void *page, size_t total);
