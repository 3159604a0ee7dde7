/* A layer blob on its way into the store. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/base/bytes.h"
#include "tools/export/store-private.h"

struct StoreUpload {
	Store *store;
	StoreTemporary temporary;
};

int store_upload_new(Store *store, StoreUpload **ret_upload, Error *error)
{
	_cleanup_(store_upload_free_p) StoreUpload *upload = calloc(1, sizeof(*upload));
	if (!upload)
		return error_set(error, -ENOMEM, "store %s: out of memory", store->path);
	upload->store = store;
	upload->temporary = STORE_TEMPORARY_NULL;
	int r = store_temporary_new(store, &upload->temporary, error);
	if (r < 0)
		return r;
	*ret_upload = TAKE_PTR(upload);
	return 0;
}

StoreUpload *store_upload_free(StoreUpload *upload)
{
	if (upload) {
		store_temporary_done(upload->store, &upload->temporary);
		free(upload);
	}
	return NULL;
}

int store_upload_fd(const StoreUpload *upload)
{
	return upload->temporary.fd;
}

static int put_frame_list(Store *store, const char *hex, const uint64_t *contents, size_t count, Error *error)
{
	char path[STORE_PATH_SIZE];
	_cleanup_free_ uint8_t *list = malloc(count > 0 ? count * STORE_FRAME_KEY_SIZE : 1);
	if (!list)
		return error_set(error, -ENOMEM, "store %s: out of memory for a list of frames", store->path);
	for (size_t i = 0; i < count; i++)
		store_le64(list + i * STORE_FRAME_KEY_SIZE, contents[i]);
	(void)snprintf(path, sizeof(path), "frames/%s", hex);
	return store_put(store, path, list, count * STORE_FRAME_KEY_SIZE, error);
}

int store_upload_commit(StoreUpload *upload, const ManifestLayer *layer, const uint64_t *contents, size_t count,
			Error *error)
{
	Store *store = upload->store;
	char hex[DIGEST_HEX_SIZE], path[STORE_PATH_SIZE];
	struct stat status;
	digest_hex(&layer->blob, hex);
	if (fstat(upload->temporary.fd, &status) < 0)
		return store_error(store, -errno, hex, error);
	if ((uint64_t)status.st_size != layer->blob_size)
		return error_set(error, -EINVAL, "store %s: blob %s was not written whole", store->path, hex);

	store_blob_path(&layer->blob, path);
	int r = store_temporary_publish(store, &upload->temporary, path, error);
	if (r < 0)
		return r;
	r = put_frame_list(store, hex, contents, count, error);
	if (r < 0)
		return r;
	return store_layer_put(store, layer, error);
}
