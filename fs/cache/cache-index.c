#include "fs/cache/cache-index.h"

#include <errno.h>
#include <string.h>

static int load(int fd, FdMap *map, Image *ret_image, Error *error)
{
	size_t end, sums, head = map->size < IMAGE_HEAD_MAX ? map->size : IMAGE_HEAD_MAX;
	int r = fd_load_part(fd, map, 0, head);
	if (r < 0)
		return error_set(error, r, "cannot read the index: %s", strerror(-r));
	r = image_part(map->data, map->size, &end, &sums, error);
	if (r < 0)
		return r;
	if (end > head)
		r = fd_load_part(fd, map, head, end - head);
	if (r == 0)
		r = fd_load_part(fd, map, sums, map->size - sums);
	if (r < 0)
		return error_set(error, r, "cannot read the index: %s", strerror(-r));
	return image_open_part(map->data, map->size, ret_image, error);
}

int cache_index_load(int fd, FdMap *ret_map, Image *ret_image, Error *error)
{
	FdMap map = { 0 };
	int r = fd_load_begin(fd, &map);
	if (r < 0)
		return error_set(error, r, "cannot read the index: %s", strerror(-r));
	if (!map.data)
		return error_set(error, -EBADMSG, "the index is empty");
	r = load(fd, &map, ret_image, error);
	if (r < 0) {
		fd_unmap(&map);
		return r;
	}
	*ret_map = map;
	return 0;
}
