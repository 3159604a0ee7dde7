/* Response headers, line by line, as a server sends them. */
#include <stdlib.h>
#include <string.h>

#include "fs/net/net-headers.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	NetHeaders headers = { 0 };
	while (size > 0) {
		const uint8_t *end = memchr(data, '\n', size);
		size_t length = end ? (size_t)(end - data) + 1 : size;
		net_headers_add(&headers, (const char *)data, length);
		data += length;
		size -= length;
	}
	if (headers.has_range && !headers.bad_range) {
		const NetContentRange *range = &headers.range;
		if (range->first > range->last || (range->total_known && range->last >= range->total))
			abort();
		/* An accepted range is the one asked for; a whole file of 2^64 bytes cannot be asked for. */
		uint64_t length = range->last - range->first + 1;
		bool right = length > 0 && net_headers_check_range(&headers, range->first, length, NULL) == 0;
		if (right != (headers.status == 206 && length > 0))
			abort();
		if (length > 1 && net_headers_check_range(&headers, range->first, length - 1, NULL) == 0)
			abort();
	}
	return 0;
}
