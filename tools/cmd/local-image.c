#include "tools/cmd/local-image.h"

#include "tools/cmd/cmd-store.h"
#include "tools/export/store-image.h"

static int open_store_blob(void *arg, const Digest *blob)
{
	int fd;
	uint64_t size;
	int r = store_blob_open(arg, blob, &fd, &size);
	return r < 0 ? r : fd;
}

int local_image_open(const char *path, const char *text, CacheStore *cache, Reference *ret_reference,
		     FetchImage *ret_image, Error *error)
{
	_cleanup_(store_free_p) Store *store = NULL;
	int r = reference_parse_local(text, ret_reference, error);
	if (r == 0)
		r = cmd_store_open(path, false, &store, error);
	if (r < 0)
		return r;
	_cleanup_(store_image_done) StoreImage image = { 0 };
	r = store_image_open(store, text, &image, error);
	return r < 0 ? r
		     : fetch_image_local(image.json, image.json_size, open_store_blob, store, cache, ret_image, error);
}
