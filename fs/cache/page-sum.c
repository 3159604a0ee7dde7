#include "fs/cache/page-sum.h"

#include <xxhash.h>

#include "fs/cache/cache-decoded.h"

/*
 * On x86 the library has a second set of functions, which use the widest registers that this processor has: three times as fast, but
 * then the kernel has these registers to save at each switch, which costs 0.5 to 1 µs of a small read's 8 (docs/decisions/0004).
 */
#ifdef HAVE_XXH_X86DISPATCH
XXH64_hash_t XXH3_64bits_dispatch(const void *input,
				  size_t size); /* xxh_x86dispatch.h, which would take the other's name too */
#define WIDE XXH3_64bits_dispatch
#else
#define WIDE XXH3_64bits
#endif

#define WIDE_FROM (32u << 10)

uint64_t page_sum(const void *page, size_t total)
{
	return total < WIDE_FROM ? XXH3_64bits(page, CACHE_DECODED_PAGE) : WIDE(page, CACHE_DECODED_PAGE);
}
