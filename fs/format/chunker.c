#include "fs/format/chunker.h"

#include "fs/format/format.h"
#include "fs/format/gear-table.h"

#define GEAR_WINDOW 64u

/*
 * Takes the hash over data[position..end) and returns the length up to the first byte after which its top `bits` bits are 0,
 * or 0 when there is none.
 */
static size_t find_cut(const uint8_t *data, size_t position, size_t end, unsigned int bits, uint64_t *hash)
{
	uint64_t h = *hash;
	for (; position < end; position++) {
		h = (h << 1) + gear_table[data[position]];
		if (h >> (64 - bits) == 0)
			return position + 1;
	}
	*hash = h;
	return 0;
}

size_t chunker_cut(const uint8_t *data, size_t size, bool last)
{
	size_t limit = size < FORMAT_CHUNK_MAX ? size : FORMAT_CHUNK_MAX;
	size_t normal = limit < FORMAT_CHUNK_NORMAL ? limit : FORMAT_CHUNK_NORMAL;

	/* The hash depends on 64 bytes only, and no chunk ends before the minimum: what lies before them is skipped. */
	if (limit >= FORMAT_CHUNK_MIN) {
		uint64_t hash = 0;
		for (size_t i = FORMAT_CHUNK_MIN - GEAR_WINDOW; i < FORMAT_CHUNK_MIN - 1; i++)
			hash = (hash << 1) + gear_table[data[i]];
		size_t length = find_cut(data, FORMAT_CHUNK_MIN - 1, normal, FORMAT_CHUNK_EARLY_BITS, &hash);
		if (length == 0)
			length = find_cut(data, normal, limit, FORMAT_CHUNK_LATE_BITS, &hash);
		if (length > 0)
			return length;
	}
	return limit == FORMAT_CHUNK_MAX || last ? limit : 0;
}

bool chunker_run_ends(uint64_t length, uint64_t entry_length, const void *name, size_t name_length)
{
	if (length == 0)
		return false;
	if (length >= FORMAT_CHUNK_MAX || entry_length > FORMAT_CHUNK_MAX - length)
		return true;
	if (length < FORMAT_CHUNK_MIN)
		return false;

	const uint8_t *bytes = name;
	uint64_t hash = 0;
	for (size_t i = name_length > GEAR_WINDOW ? name_length - GEAR_WINDOW : 0; i < name_length; i++)
		hash = (hash << 1) + gear_table[bytes[i]];
	return hash >> (64 - FORMAT_RUN_HASH_BITS) == 0;
}
