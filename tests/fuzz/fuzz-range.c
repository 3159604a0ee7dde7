/* Range, If-Range and If-None-Match: what is sent must lie inside of what there is. First 8 bytes: the size, then the header. */
#include <stdlib.h>
#include <string.h>

#include "fs/base/bytes.h"
#include "fs/base/cleanup.h"
#include "tools/serve/serve-range.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Does every range lie inside, none of them twice, and as many as the kind says? */
static bool is_good(const ServeRanges *set, uint64_t total)
{
	uint64_t sum = 0;
	for (size_t i = 0; i < set->count; i++) {
		const ServeRange *range = &set->ranges[i];
		if (!range_within(range->offset, range->length, total) || range->length > total - sum)
			return false;
		sum += range->length;
		if (range->length == 0 && set->kind != SERVE_RANGE_WHOLE)
			return false;
	}
	switch (set->kind) {
	case SERVE_RANGE_WHOLE:
		return set->count == 1 && sum == total;
	case SERVE_RANGE_PART:
		return set->count == 1;
	case SERVE_RANGE_PARTS:
		return set->count > 1 && set->count <= SERVE_RANGES_MAX;
	case SERVE_RANGE_UNSATISFIABLE:
		return set->count == 0;
	}
	return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 8)
		return 0;
	uint64_t total = load_le64(data);
	_cleanup_free_ char *header = strndup((const char *)data + 8, size - 8);
	if (!header)
		return 0;
	ServeRanges set;
	serve_range_parse(header, total, &set);
	if (!is_good(&set, total))
		abort();
	/* A tag in no list is matched only by "*". */
	if (!strchr(header, '*') && serve_range_none_match(header, "\"\x01\"") && !strstr(header, "\"\x01\""))
		abort();
	if (serve_range_if_range(header, "\"tag\"") && !strstr(header, "\"tag\""))
		abort();
	return 0;
}
