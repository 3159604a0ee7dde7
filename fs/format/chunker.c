#include "fs/format/chunker.h"

#include "fs/format/format.h"
#include "fs/format/gear-table.h"

#define GEAR_WINDOW 64u

size_t chunker_cut(const uint8_t *data, size_t size, bool last)
{
	size_t limit = size < FORMAT_CHUNK_MAX ? size : FORMAT_CHUNK_MAX;
	uint64_t hash = 0;
	size_t position = FORMAT_CHUNK_MIN - GEAR_WINDOW;

	/* The hash depends on 64 bytes only, and no chunk ends before the minimum: what lies before them is skipped. */
	if (limit >= FORMAT_CHUNK_MIN) {
		for (; position < FORMAT_CHUNK_MIN - 1; position++)
			hash = (hash << 1) + gear_table[data[position]];
		for (; position < limit; position++) {
			hash = (hash << 1) + gear_table[data[position]];
			if (hash >> (64 - FORMAT_CHUNK_HASH_BITS) == 0)
				return position + 1;
		}
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
