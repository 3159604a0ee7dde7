#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "fs/format/blob.h"
#include "fs/format/manifest-json.h"
#include "fs/format/manifest.h"

/* Annotations that tell snapshotters and runtimes of a layer's compressed form, which the uncompressed one does not have. */
static const char *const form_annotations[] = { "containerd.io/snapshot/", "io.containers.zstd-chunked.",
						"io.containers.estargz." };

static bool tells_of_form(const char *key)
{
	for (size_t i = 0; i < ELEMENTS(form_annotations); i++) {
		if (strncmp(key, form_annotations[i], strlen(form_annotations[i])) == 0)
			return true;
	}
	return false;
}

/* A descriptor in place of the source's, a new reference; keeps the fields it does not set. NULL when memory is out. */
static json_t *encode_descriptor(const json_t *source, const char *type, const Digest *digest, uint64_t size)
{
	char text[DIGEST_TEXT_SIZE];
	json_auto_t *descriptor = json_is_object(source) ? json_deep_copy(source) : json_object();
	if (json_object_set_new(descriptor, "mediaType", json_string(type)) < 0 ||
	    json_object_set_new(descriptor, "digest", json_string(digest_text(digest, text))) < 0 ||
	    json_object_set_new(descriptor, "size", json_integer((json_int_t)size)) < 0)
		return NULL;
	return json_incref(descriptor);
}

/* The source's annotations that still hold, and those of the blob, a new reference; NULL when memory is out. */
static json_t *encode_annotations(const json_t *source, const ManifestLayer *layer)
{
	char blob[DIGEST_TEXT_SIZE], index[DIGEST_TEXT_SIZE], diff_id[DIGEST_TEXT_SIZE];
	char blob_size[24], index_offset[24], index_size[24];
	const char *key;
	json_t *value;
	(void)snprintf(blob_size, sizeof(blob_size), "%" PRIu64, layer->blob_size);
	(void)snprintf(index_offset, sizeof(index_offset), "%" PRIu64, layer->index_offset);
	(void)snprintf(index_size, sizeof(index_size), "%" PRIu64, layer->index_size);
	json_auto_t *annotations = json_object();
	json_object_foreach((json_t *)(uintptr_t)source, key, value)
	{
		if (!tells_of_form(key) && json_object_set(annotations, key, value) < 0)
			return NULL;
	}
	json_auto_t *ours = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s}", BLOB_ANNOTATION_VERSION, "1",
				      BLOB_ANNOTATION_DIGEST, digest_text(&layer->blob, blob), BLOB_ANNOTATION_SIZE,
				      blob_size, BLOB_ANNOTATION_INDEX_OFFSET, index_offset, BLOB_ANNOTATION_INDEX_SIZE,
				      index_size, BLOB_ANNOTATION_INDEX_DIGEST, digest_text(&layer->index, index),
				      BLOB_ANNOTATION_DIFF_ID, digest_text(&layer->diff_id, diff_id));
	if (!ours || json_object_update(annotations, ours) < 0)
		return NULL;
	return json_incref(annotations);
}

/* The descriptor of a layer, a new reference; NULL when memory is out. `urls` and `data` are of the bytes it was before. */
static json_t *encode_layer(const json_t *source, const ManifestLayer *layer)
{
	json_auto_t *descriptor =
		encode_descriptor(source, MANIFEST_LAYER_MEDIA_TYPE, &layer->diff_id, layer->tar_size);
	if (!descriptor)
		return NULL;
	(void)json_object_del(descriptor, "urls");
	(void)json_object_del(descriptor, "data");
	json_t *annotations = encode_annotations(json_object_get(descriptor, "annotations"), layer);
	if (json_object_set_new(descriptor, "annotations", annotations) < 0)
		return NULL;
	return json_incref(descriptor);
}

/* A manifest in place of the source's, or of its own; a new reference, NULL when memory is out. */
static json_t *encode_root(const json_t *source, const Manifest *manifest)
{
	const json_t *source_layers = json_object_get(source, "layers");
	json_auto_t *root = source ? json_deep_copy(source) : json_object();
	json_auto_t *layers = json_array();
	for (size_t i = 0; i < manifest->layer_count; i++) {
		json_t *layer = encode_layer(json_array_get(source_layers, i), &manifest->layers[i]);
		if (json_array_append_new(layers, layer) < 0)
			return NULL;
	}
	json_t *config = encode_descriptor(json_object_get(source, "config"), MANIFEST_CONFIG_MEDIA_TYPE,
					   &manifest->config, manifest->config_size);
	if (json_object_set_new(root, "schemaVersion", json_integer(2)) < 0 ||
	    json_object_set_new(root, "mediaType", json_string(MANIFEST_MEDIA_TYPE)) < 0 ||
	    json_object_set_new(root, "config", config) < 0 || json_object_set(root, "layers", layers) < 0)
		return NULL;
	return json_incref(root);
}

int manifest_encode_from(const Manifest *manifest, const char *source, size_t source_size, char **ret_json,
			 size_t *ret_size, Error *error)
{
	json_auto_t *from = NULL;
	int r = source ? manifest_json_load(source, source_size, "source's manifest", &from, error) : 0;
	if (r < 0)
		return r;
	json_auto_t *root = encode_root(from, manifest);
	char *json = root ? json_dumps(root, JSON_COMPACT) : NULL;
	if (!json)
		return -ENOMEM;
	*ret_json = json;
	*ret_size = strlen(json);
	return 0;
}

int manifest_encode(const Manifest *manifest, char **ret_json, size_t *ret_size)
{
	return manifest_encode_from(manifest, NULL, 0, ret_json, ret_size, NULL);
}
