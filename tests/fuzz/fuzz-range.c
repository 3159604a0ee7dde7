/* Range, If-Range and If-None-Match: what is sent must lie inside of what there is. First 8 bytes: the size, then the header. */
#include <stdlib.h>
#include <string.h>

#include "fs/base/bytes.h"
#include "fs/base/cleanup.h"
#include "tools/serve/serve-range.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 8)
		return 0;
	uint64_t total = load_le64(data);
	_cleanup_free_ char *header = strndup((const char *)data + 8, size - 8);
	if (!header)
		return 0;
	ServeRange range = serve_range_parse(header, total);
	bool good = range_within(range.offset, range.length, total);
	if (range.kind == SERVE_RANGE_WHOLE)
		good = good && range.length == total;
	else if (range.kind == SERVE_RANGE_PART)
		good = good && range.length > 0;
	else
		good = good && range.length == 0;
	if (!good)
		abort();
	/* A tag in no list is matched only by "*". */
	if (!strchr(header, '*') && serve_range_none_match(header, "\"\x01\"") && !strstr(header, "\"\x01\""))
		abort();
	if (serve_range_if_range(header, "\"tag\"") && !strstr(header, "\"tag\""))
		abort();
	return 0;
}
