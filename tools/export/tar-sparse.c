#include "tools/export/tar-sparse.h"

#include <string.h>

#include "fs/base/bytes.h"

enum {
	OLD_MAP = 386,
	OLD_MAP_COUNT = 4,
	OLD_EXTENDED = 482,
	OLD_SIZE = 483,
	EXTENSION_COUNT = 21,
	EXTENSION_EXTENDED = 504,
	NUMBER_SIZE = 12,
};

void tar_map_done(TarMap *map)
{
	free(map->extents);
	*map = (TarMap){ 0 };
}

int tar_map_add(TarMap *map, uint64_t offset, uint64_t length, Error *error)
{
	if (map->count == TAR_EXTENTS_MAX)
		return error_set(error, -EOPNOTSUPP, "a sparse file of more than %u extents", TAR_EXTENTS_MAX);
	if (map->count == map->capacity) {
		size_t capacity = map->capacity ? 2 * map->capacity : 16;
		TreeExtent *extents = reallocarray(map->extents, capacity, sizeof(*extents));
		if (!extents)
			return -ENOMEM;
		map->extents = extents;
		map->capacity = capacity;
	}
	map->extents[map->count++] = (TreeExtent){ .file_offset = offset, .length = length };
	return 0;
}

int tar_map_finish(TarMap *map, uint64_t size, uint64_t data_offset, uint64_t data_size, Error *error)
{
	uint64_t at = 0, used = 0;
	size_t kept = 0;
	for (size_t i = 0; i < map->count; i++) {
		TreeExtent extent = map->extents[i];
		if (extent.file_offset < at || !range_within(extent.file_offset, extent.length, size))
			return error_set(error, -EBADMSG, "extents of a sparse file overlap or leave it");
		if (extent.length > data_size - used)
			return error_set(error, -EBADMSG, "a sparse file has less data than its map says");
		extent.tar_offset = data_offset + used;
		at = extent.file_offset + extent.length;
		used += extent.length;
		if (extent.length > 0)
			map->extents[kept++] = extent;
	}
	if (used != data_size)
		return error_set(error, -EBADMSG, "a sparse file has more data than its map says");
	map->count = kept;
	return 0;
}

static int sparse_number(const uint8_t *field, uint64_t *ret_value, Error *error)
{
	int64_t value;
	if (tar_header_number(field, NUMBER_SIZE, &value) < 0 || value < 0)
		return error_set(error, -EBADMSG, "a number of a sparse file's map is none");
	*ret_value = (uint64_t)value;
	return 0;
}

static int add_pairs(TarMap *map, const uint8_t *pairs, size_t count, Error *error)
{
	for (size_t i = 0; i < count; i++, pairs += 2 * NUMBER_SIZE) {
		/* An empty field ends the list, as GNU tar has it. */
		if (pairs[0] == '\0' || pairs[NUMBER_SIZE] == '\0')
			return 0;
		uint64_t offset = 0, length = 0;
		int r = sparse_number(pairs, &offset, error);
		if (r == 0)
			r = sparse_number(pairs + NUMBER_SIZE, &length, error);
		if (r == 0)
			r = tar_map_add(map, offset, length, error);
		if (r < 0)
			return r;
	}
	return 0;
}

int tar_map_add_header(TarMap *map, const uint8_t block[static TAR_BLOCK], uint64_t *ret_size, bool *ret_more,
		       Error *error)
{
	uint64_t size = 0;
	int r = sparse_number(block + OLD_SIZE, &size, error);
	if (r == 0)
		r = add_pairs(map, block + OLD_MAP, OLD_MAP_COUNT, error);
	if (r < 0)
		return r;
	*ret_size = size;
	*ret_more = block[OLD_EXTENDED] != 0;
	return 0;
}

int tar_map_add_extension(TarMap *map, const uint8_t block[static TAR_BLOCK], bool *ret_more, Error *error)
{
	int r = add_pairs(map, block, EXTENSION_COUNT, error);
	if (r < 0)
		return r;
	*ret_more = block[EXTENSION_EXTENDED] != 0;
	return 0;
}

static int text_number(TarMapText *text, TarMap *map, Error *error)
{
	if (!text->counted) {
		if (text->value > TAR_EXTENTS_MAX)
			return error_set(error, -EOPNOTSUPP, "a sparse file of more than %u extents", TAR_EXTENTS_MAX);
		text->counted = true;
		text->left = 2 * text->value;
	} else {
		if (text->left % 2 == 0) {
			text->offset = text->value;
		} else {
			int r = tar_map_add(map, text->offset, text->value, error);
			if (r < 0)
				return r;
		}
		text->left--;
	}
	text->complete = text->left == 0;
	text->value = 0;
	text->digits = 0;
	return 0;
}

int tar_map_text_feed(TarMapText *text, TarMap *map, const uint8_t *bytes, size_t size, Error *error)
{
	for (size_t i = 0; i < size && !text->complete; i++) {
		text->size++;
		if (bytes[i] == '\n' && text->digits > 0) {
			int r = text_number(text, map, error);
			if (r < 0)
				return r;
		} else if (bytes[i] >= '0' && bytes[i] <= '9' && text->digits < 19) {
			text->value = 10 * text->value + (bytes[i] - '0');
			text->digits++;
		} else {
			return error_set(error, -EBADMSG, "the map in front of a sparse file's data is none");
		}
	}
	return 0;
}
