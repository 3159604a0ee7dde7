#include "fs/format/manifest.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/format/blob.h"
#include "fs/format/manifest-json.h"

#define DOCKER_MEDIA_TYPE        "application/vnd.docker.distribution.manifest.v2+json"
#define DOCKER_CONFIG_MEDIA_TYPE "application/vnd.docker.container.image.v1+json"

void manifest_done(Manifest *manifest)
{
	free(manifest->layers);
	*manifest = (Manifest){ 0 };
}

/* A decimal number as our own annotations carry it: digits, no leading zero, below 2^63. */
static int parse_decimal(const char *text, uint64_t *ret_value)
{
	size_t length = strspn(text, "0123456789");
	if (length == 0 || length > 19 || text[length] != '\0' || (text[0] == '0' && length > 1))
		return -EINVAL;
	uint64_t value = strtoull(text, NULL, 10);
	if (value > INT64_MAX)
		return -EINVAL;
	*ret_value = value;
	return 0;
}

static int annotation_decimal(const json_t *annotations, size_t layer, const char *key, uint64_t *ret_value,
			      Error *error)
{
	const char *text = json_string_value(json_object_get(annotations, key));
	if (!text || parse_decimal(text, ret_value) < 0)
		return error_set(
			error, -EBADMSG,
			"layer %zu of the manifest: annotation %s is not a decimal number; export the image again",
			layer, key);
	return 0;
}

static int annotation_digest(const json_t *annotations, size_t layer, const char *key, Digest *ret_digest, Error *error)
{
	const char *text = json_string_value(json_object_get(annotations, key));
	if (!text || digest_from_text(text, ret_digest) < 0)
		return error_set(
			error, -EBADMSG,
			"layer %zu of the manifest: annotation %s is not a sha256 digest; export the image again",
			layer, key);
	return 0;
}

static int parse_annotations(const json_t *annotations, size_t number, ManifestLayer *layer, Error *error)
{
	int r = annotation_digest(annotations, number, BLOB_ANNOTATION_DIGEST, &layer->blob, error);
	if (r == 0)
		r = annotation_decimal(annotations, number, BLOB_ANNOTATION_SIZE, &layer->blob_size, error);
	if (r == 0)
		r = annotation_decimal(annotations, number, BLOB_ANNOTATION_INDEX_OFFSET, &layer->index_offset, error);
	if (r == 0)
		r = annotation_decimal(annotations, number, BLOB_ANNOTATION_INDEX_SIZE, &layer->index_size, error);
	if (r == 0)
		r = annotation_digest(annotations, number, BLOB_ANNOTATION_INDEX_DIGEST, &layer->index, error);
	if (r < 0)
		return r;

	/* The index ends where the footer starts, and the footer ends the blob (docs/format.md section 1). */
	uint64_t after = layer->index_size + FORMAT_FOOTER_SIZE;
	if (layer->index_size <= FORMAT_SKIPPABLE_HEADER || layer->index_size > FORMAT_IMAGE_MAX ||
	    after > layer->blob_size || layer->index_offset != layer->blob_size - after)
		return error_set(error, -EBADMSG,
				 "layer %zu of the manifest: an index of %" PRIu64 " bytes at %" PRIu64
				 " does not fit a blob of %" PRIu64 " bytes; export the image again",
				 number, layer->index_size, layer->index_offset, layer->blob_size);
	return 0;
}

static int parse_layer(const json_t *json, size_t number, ManifestLayer *ret_layer, Error *error)
{
	ManifestLayer layer = { 0 };
	char what[48];
	(void)snprintf(what, sizeof(what), "layer %zu", number);
	if (!json_is_object(json))
		return error_set(error, -EBADMSG, "%s of the manifest is not an object", what);
	const json_t *annotations = json_object_get(json, "annotations");
	const char *version = json_string_value(json_object_get(annotations, BLOB_ANNOTATION_VERSION));
	if (!version)
		return error_set(
			error, -ENODATA,
			"%s of the manifest has no imgfs annotations, so this is not an imgfs image; make one of "
			"it with `imgfs export`, and name the `imgfs serve` that has it",
			what);
	if (strcmp(version, "1") != 0)
		return error_set(error, -EPROTONOSUPPORT,
				 "%s of the manifest is of imgfs format version \"%s\", and this imgfs reads version 1 "
				 "only; upgrade imgfs",
				 what, version);
	static const char *const types[] = { MANIFEST_LAYER_MEDIA_TYPE, NULL };
	int r = manifest_json_descriptor(json, what, types, &layer.diff_id, &layer.tar_size, error);
	if (r == 0)
		r = parse_annotations(annotations, number, &layer, error);
	if (r == 0)
		*ret_layer = layer;
	return r;
}

static int parse_layers(const json_t *array, Manifest *manifest, Error *error)
{
	if (!json_is_array(array))
		return error_set(error, -EBADMSG, "the manifest has no array \"layers\"; it is not an image manifest");
	size_t count = json_array_size(array);
	if (count > MANIFEST_LAYERS_MAX)
		return error_set(error, -EBADMSG, "the manifest has %zu layers, more than the %u an image may have",
				 count, MANIFEST_LAYERS_MAX);
	manifest->layers = calloc(count ? count : 1, sizeof(*manifest->layers));
	if (!manifest->layers)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		int r = parse_layer(json_array_get(array, i), i, &manifest->layers[i], error);
		if (r < 0)
			return r;
	}
	manifest->layer_count = count;
	return 0;
}

/* Is it an image manifest at all? Its media type may be left out (OCI image-spec, manifest.md "mediaType"). */
static int check_type(const json_t *root, Error *error)
{
	const json_t *version = json_object_get(root, "schemaVersion");
	if (!json_is_integer(version))
		return error_set(error, -EBADMSG, "the manifest has no schemaVersion; it is not an image manifest");
	if (json_integer_value(version) != 2)
		return error_set(error, -EPROTONOSUPPORT,
				 "the manifest is of schema version %" JSON_INTEGER_FORMAT
				 ", and imgfs reads version 2 only; push the image again with a current client",
				 json_integer_value(version));
	const json_t *type = json_object_get(root, "mediaType");
	if (!type)
		return 0;
	const char *text = json_string_value(type);
	if (!text || (strcmp(text, MANIFEST_MEDIA_TYPE) != 0 && strcmp(text, DOCKER_MEDIA_TYPE) != 0))
		return error_set(error, text ? -ENODATA : -EBADMSG,
				 "the manifest is of type \"%s\", which is not an image manifest, so this is not an "
				 "imgfs image; make one of it with "
				 "`imgfs export`, and name the `imgfs serve` that has it",
				 text ? text : "");
	return 0;
}

static int parse_root(const json_t *root, Manifest *manifest, Error *error)
{
	static const char *const types[] = { MANIFEST_CONFIG_MEDIA_TYPE, DOCKER_CONFIG_MEDIA_TYPE, NULL };
	int r = check_type(root, error);
	if (r == 0)
		r = manifest_json_descriptor(json_object_get(root, "config"), "config", types, &manifest->config,
					     &manifest->config_size, error);
	if (r < 0)
		return r;
	if (manifest->config_size > MANIFEST_SIZE_MAX)
		return error_set(error, -EBADMSG, "the image config takes %" PRIu64 " bytes, more than the %u it may",
				 manifest->config_size, MANIFEST_SIZE_MAX);
	return parse_layers(json_object_get(root, "layers"), manifest, error);
}

int manifest_parse(const char *json, size_t size, Manifest *ret_manifest, Error *error)
{
	json_auto_t *root = NULL;
	Manifest manifest = { 0 };
	int r = manifest_json_load(json, size, "manifest", &root, error);
	if (r == 0)
		r = parse_root(root, &manifest, error);
	if (r < 0) {
		manifest_done(&manifest);
		return r;
	}
	*ret_manifest = manifest;
	return 0;
}

int manifest_config_diff_ids(const char *json, size_t size, Digest **ret_diff_ids, size_t *ret_count, Error *error)
{
	json_auto_t *root = NULL;
	int r = manifest_json_load(json, size, "image config", &root, error);
	if (r < 0)
		return r;
	const json_t *rootfs = json_object_get(root, "rootfs");
	const char *type = json_string_value(json_object_get(rootfs, "type"));
	const json_t *array = json_object_get(rootfs, "diff_ids");
	size_t count = json_array_size(array);
	if (!type || strcmp(type, "layers") != 0 || !json_is_array(array) || count > MANIFEST_LAYERS_MAX)
		return error_set(
			error, -EBADMSG,
			"the image config has no rootfs of type \"layers\" with up to %u diff_ids; it is not the "
			"config of an image",
			MANIFEST_LAYERS_MAX);

	_cleanup_free_ Digest *diff_ids = calloc(count ? count : 1, sizeof(*diff_ids));
	if (!diff_ids)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		const char *text = json_string_value(json_array_get(array, i));
		if (!text || digest_from_text(text, &diff_ids[i]) < 0)
			return error_set(error, -EBADMSG, "diff_id %zu of the image config is not a sha256 digest", i);
	}
	*ret_diff_ids = TAKE_PTR(diff_ids);
	*ret_count = count;
	return 0;
}
