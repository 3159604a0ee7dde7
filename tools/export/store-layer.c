/* Layer records: layers/<diffID>, JSON. */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "fs/base/bytes.h"
#include "fs/base/fd.h"
#include "fs/format/format.h"
#include "tools/export/store-private.h"

#define RECORD_MAX 65536

static void layer_path(const Digest *diff_id, char ret_path[static STORE_PATH_SIZE])
{
	char hex[DIGEST_HEX_SIZE];
	(void)snprintf(ret_path, STORE_PATH_SIZE, "layers/%s", digest_hex(diff_id, hex));
}

static int get_digest(const json_t *record, const char *key, Digest *ret_digest)
{
	const char *text = json_string_value(json_object_get(record, key));
	return text && digest_from_text(text, ret_digest) == 0 ? 0 : -EBADMSG;
}

static int get_number(const json_t *record, const char *key, uint64_t *ret_number)
{
	const json_t *value = json_object_get(record, key);
	if (!json_is_integer(value) || json_integer_value(value) < 0)
		return -EBADMSG;
	*ret_number = (uint64_t)json_integer_value(value);
	return 0;
}

static int decode_record(const char *text, size_t size, const Digest *diff_id, ManifestLayer *ret_layer)
{
	ManifestLayer layer = { 0 };
	json_t *record = json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL);
	bool bad = get_digest(record, "diffID", &layer.diff_id) < 0 ||
		   get_number(record, "tarSize", &layer.tar_size) < 0 || get_digest(record, "blob", &layer.blob) < 0 ||
		   get_number(record, "blobSize", &layer.blob_size) < 0 ||
		   get_number(record, "indexOffset", &layer.index_offset) < 0 ||
		   get_number(record, "indexSize", &layer.index_size) < 0 ||
		   get_digest(record, "index", &layer.index) < 0;
	json_decref(record);
	if (bad || !digest_equal(&layer.diff_id, diff_id) || layer.blob_size < FORMAT_FOOTER_SIZE ||
	    !range_within(layer.index_offset, layer.index_size, layer.blob_size - FORMAT_FOOTER_SIZE))
		return -EBADMSG;
	*ret_layer = layer;
	return 0;
}

int store_layer_get(Store *store, const Digest *diff_id, ManifestLayer *ret_layer, Error *error)
{
	char path[STORE_PATH_SIZE];
	_cleanup_free_ char *text = NULL;
	size_t size;
	layer_path(diff_id, path);
	int r = fd_read_file(store->fd, path, RECORD_MAX, &text, &size);
	if (r == -ENOENT)
		return error_set(error, r, "store %s does not hold layer %s; export the image again", store->path,
				 path + strlen("layers/"));
	if (r == -EFBIG)
		r = -EBADMSG;
	if (r == 0)
		r = decode_record(text, size, diff_id, ret_layer);
	if (r < 0)
		return error_set(error, r,
				 "store %s: the record %s is damaged or cannot be read (%s); export the image again",
				 store->path, path, error_text(NULL, r));
	return 0;
}

int store_layer_put(Store *store, const ManifestLayer *layer, Error *error)
{
	char diff_id[DIGEST_TEXT_SIZE], blob[DIGEST_TEXT_SIZE], index[DIGEST_TEXT_SIZE], path[STORE_PATH_SIZE];
	json_t *record =
		json_pack("{s:s, s:I, s:s, s:I, s:I, s:I, s:s}", "diffID", digest_text(&layer->diff_id, diff_id),
			  "tarSize", (json_int_t)layer->tar_size, "blob", digest_text(&layer->blob, blob), "blobSize",
			  (json_int_t)layer->blob_size, "indexOffset", (json_int_t)layer->index_offset, "indexSize",
			  (json_int_t)layer->index_size, "index", digest_text(&layer->index, index));
	_cleanup_free_ char *text = record ? json_dumps(record, JSON_INDENT(2)) : NULL;
	json_decref(record);
	if (!text)
		return error_set(error, -ENOMEM, "out of memory for the record of layer %s", diff_id);
	layer_path(&layer->diff_id, path);
	return store_put(store, path, text, strlen(text), error);
}
