/* Private to the room: the sum of a page of a decoded copy. */
#pragma once

#include <stdint.h>

/* XXH3, 64 bits, of CACHE_DECODED_PAGE bytes, by the widest instructions that the processor has. */
uint64_t page_sum(const void *page);
