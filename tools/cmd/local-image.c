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

static int read_manifest(Store *store, const Reference *reference, char **ret_json, size_t *ret_size)
{
	if (reference->has_digest)
		return store_blob_read(store, &reference->digest, MANIFEST_SIZE_MAX, ret_json, ret_size);
	return store_tag_get(store, reference->name, reference->tag, ret_json, ret_size);
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
	_cleanup_free_ char *json = NULL;
	size_t size;
	r = read_manifest(store, ret_reference, &json, &size);
	if (r == -ENOENT)
		return error_set(error, r, "store %s does not hold %s; `imgfs ls` lists what it holds",
				 store_path(store), text);
	if (r < 0)
		return error_set(error, r, "store %s: the manifest of %s cannot be read: %s", store_path(store), text,
				 error_text(NULL, r));
	return fetch_image_local(json, size, open_store_blob, store, cache, ret_image, error);
}
