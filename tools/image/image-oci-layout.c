#include "tools/image/image-oci-layout.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/base/fd.h"
#include "fs/format/manifest.h"
#include "tools/image/image-decompress.h"
#include "tools/image/image-input.h"
#include "tools/image/image-oci-index.h"

#define INDEX_DEPTH_MAX 4

typedef struct OciLayout {
	ImageSource source;
	char *path;
	char *wanted;
	int fd; /* of the directory */
	ImageProgress progress;
} OciLayout;

static ImageSource *layout_destroy(ImageSource *source)
{
	OciLayout *layout = (OciLayout *)source;
	if (layout->fd >= 0)
		(void)close(layout->fd);
	free(layout->path);
	free(layout->wanted);
	free(layout);
	return NULL;
}

static const char *blob_path(const Digest *digest, char path[static 96])
{
	char hex[DIGEST_HEX_SIZE];
	(void)snprintf(path, 96, "blobs/sha256/%s", digest_hex(digest, hex));
	return path;
}

/* A small blob whole, its size and digest verified. */
static int read_blob(const OciLayout *layout, const ImageDescriptor *descriptor, size_t limit, char **ret_data,
		     Error *error)
{
	char path[96];
	_cleanup_free_ char *data = NULL;
	size_t size;
	Digest digest;
	int r = fd_read_file(layout->fd, blob_path(&descriptor->digest, path), limit, &data, &size);
	if (r < 0)
		return error_set(error, r, "cannot read %s: %s; copy the image again", path, error_text(NULL, r));
	r = digest_of(data, size, &digest);
	if (r < 0)
		return r;
	if (size != descriptor->size || !digest_equal(&digest, &descriptor->digest))
		return error_set(error, -EKEYREJECTED, "%s is not what its name and size say; copy the image again",
				 path);
	*ret_data = TAKE_PTR(data);
	return 0;
}

static int read_json(const OciLayout *layout, const ImageDescriptor *descriptor, json_t **ret_json, Error *error)
{
	_cleanup_free_ char *data = NULL;
	json_error_t where;
	int r = read_blob(layout, descriptor, MANIFEST_SIZE_MAX, &data, error);
	if (r < 0)
		return r;
	json_t *json = json_loadb(data, descriptor->size, 0, &where);
	if (!json)
		return error_set(error, -EBADMSG, "a manifest or index is no JSON: %s", where.text);
	*ret_json = json;
	return 0;
}

static int read_index(const OciLayout *layout, json_t **ret_index, Error *error)
{
	_cleanup_free_ char *data = NULL;
	size_t size;
	json_error_t where;
	int r = fd_read_file(layout->fd, "index.json", MANIFEST_SIZE_MAX, &data, &size);
	if (r < 0)
		return error_set(error, r, "cannot read its index.json: %s", error_text(NULL, r));
	*ret_index = json_loadb(data, size, 0, &where);
	return *ret_index ? 0 : error_set(error, -EBADMSG, "its index.json is no JSON: %s", where.text);
}

/* One step from an index: what it means for this image, read and verified, and whether that is an index again. */
static int step_down(const OciLayout *layout, const json_t *index, const char *wanted, json_t **ret_next,
		     bool *ret_is_index, const char **ret_name, Error *error)
{
	const json_t *chosen;
	ImageDescriptor descriptor;
	int r = image_index_choose(index, wanted, &chosen, ret_name, error);
	if (r == 0)
		r = image_descriptor_parse(chosen, "an image", &descriptor, error);
	if (r == 0)
		r = read_json(layout, &descriptor, ret_next, error);
	if (r == 0)
		*ret_is_index = image_descriptor_is_index(&descriptor);
	return r;
}

/* Goes from index.json to the manifest, over indexes below it. The name is the outermost one's; malloc'ed, or NULL. */
static int find_manifest(const OciLayout *layout, json_t **ret_manifest, char **ret_name, Error *error)
{
	json_t *json = NULL;
	_cleanup_free_ char *name = NULL;
	bool is_index = true;
	int r = read_index(layout, &json, error);
	for (int depth = 0; r == 0 && is_index; depth++) {
		json_t *next = NULL;
		const char *called = NULL;
		if (depth >= INDEX_DEPTH_MAX)
			r = error_set(error, -EBADMSG, "its indexes are nested more than %d deep", INDEX_DEPTH_MAX);
		else
			r = step_down(layout, json, depth == 0 ? layout->wanted : NULL, &next, &is_index, &called,
				      error);
		if (r == 0 && depth == 0 && called && !(name = strdup(called)))
			r = error_set(error, -ENOMEM, "out of memory for a name");
		json_decref(json);
		json = next;
	}
	if (r < 0) {
		json_decref(json);
		return r;
	}
	*ret_manifest = json;
	*ret_name = TAKE_PTR(name);
	return 0;
}

static int fill_content(const OciLayout *layout, const json_t *manifest, ImageContent *content, Error *error)
{
	ImageDescriptor config;
	int r = image_descriptor_parse(json_object_get(manifest, "config"), "the config", &config, error);
	if (r == 0)
		r = read_blob(layout, &config, IMAGE_CONFIG_MAX, &content->config, error);
	if (r < 0)
		return r;
	content->config_size = config.size;
	r = manifest_config_diff_ids(content->config, content->config_size, &content->diff_ids, &content->layer_count,
				     error);
	if (r < 0)
		return error_prefix(error, r, "config");
	if (content->layer_count != json_array_size(json_object_get(manifest, "layers")))
		return error_set(error, -EBADMSG, "its manifest names %zu layers, but its config %zu",
				 json_array_size(json_object_get(manifest, "layers")), content->layer_count);
	return 0;
}

/* Hands a layer on; the digest of the blob as it stands, and the diffID of what is in it, are both verified. */
static int transfer_layer(OciLayout *layout, const ImageSink *sink, const ImageDescriptor *descriptor,
			  const Digest *diff_id, Error *error)
{
	char path[96];
	struct stat status;
	Digest found;
	_cleanup_(digest_state_free_p) DigestState *digest = NULL;
	_cleanup_(image_decompressor_free_p) ImageDecompressor *decompressor = NULL;
	_cleanup_close_ int fd =
		openat(layout->fd, blob_path(&descriptor->digest, path), O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (fd < 0 || fstat(fd, &status) < 0)
		return error_set(error, -errno, "cannot read layer %s: %s; copy the image again", path,
				 strerrordesc_np(errno));
	if ((uint64_t)status.st_size != descriptor->size)
		return error_set(error, -EKEYREJECTED, "layer %s has %llu bytes, not %llu; copy the image again", path,
				 (unsigned long long)status.st_size, (unsigned long long)descriptor->size);
	int r = digest_state_new(&digest);
	ImageInput input = {
		.fd = fd, .left = descriptor->size, .path = path, .digest = digest, .progress = &layout->progress
	};
	LayerSource blob = image_input_source(&input);
	if (r == 0)
		r = image_decompressor_new(&blob, &decompressor);
	if (r < 0)
		return error_set(error, r, "out of memory to read layer %s", path);
	LayerSource tar = image_decompressor_source(decompressor);
	r = sink->layer(sink->arg, diff_id, &tar, &found, error);
	if (r < 0)
		return error_prefix(error, r, "layer %s", path);
	return image_input_verify(&input, &descriptor->digest, error);
}

static int transfer_layers(OciLayout *layout, const json_t *layers, const ImageSink *sink, const ImageContent *content,
			   Error *error)
{
	ImageDescriptor descriptor;
	int r = 0;
	for (size_t i = 0; i < content->layer_count && r == 0; i++) {
		r = image_descriptor_parse(json_array_get(layers, i), "a layer", &descriptor, error);
		if (r == 0 && !sink->has_layer(sink->arg, &content->diff_ids[i]) &&
		    __builtin_add_overflow(layout->progress.total, descriptor.size, &layout->progress.total))
			r = error_set(error, -EBADMSG, "its layers have impossible sizes");
	}
	for (size_t i = 0; i < content->layer_count && r == 0; i++) {
		r = image_descriptor_parse(json_array_get(layers, i), "a layer", &descriptor, error);
		if (r == 0 && !sink->has_layer(sink->arg, &content->diff_ids[i]))
			r = transfer_layer(layout, sink, &descriptor, &content->diff_ids[i], error);
	}
	return r;
}

static int layout_transfer(ImageSource *source, const ImageSink *sink, ImageContent *ret_content, Error *error)
{
	OciLayout *layout = (OciLayout *)source;
	ImageContent content = { 0 };
	json_t *manifest = NULL;
	char *name = NULL;
	layout->progress = (ImageProgress){ .sink = sink };
	int r = find_manifest(layout, &manifest, &name, error);
	if (r == 0)
		r = fill_content(layout, manifest, &content, error);
	if (r == 0 && name) {
		content.names = calloc(1, sizeof(*content.names));
		if (!content.names)
			r = error_set(error, -ENOMEM, "out of memory for a name");
		else
			content.names[content.name_count++] = TAKE_PTR(name);
	}
	if (r < 0)
		(void)error_prefix(error, r, "OCI layout %s", layout->path);
	if (r == 0)
		r = sink->begin(sink->arg, &content, error);
	if (r == 0) {
		r = transfer_layers(layout, json_object_get(manifest, "layers"), sink, &content, error);
		if (r < 0)
			(void)error_prefix(error, r, "OCI layout %s", layout->path);
	}
	json_decref(manifest);
	free(name);
	if (r < 0) {
		image_content_done(&content);
		return r;
	}
	*ret_content = content;
	return 0;
}

/* The marker of a layout, and its version (OCI image-spec 1.1, image-layout.md, "oci-layout file"). */
static int check_marker(const OciLayout *layout, Error *error)
{
	_cleanup_free_ char *data = NULL;
	size_t size;
	int r = fd_read_file(layout->fd, "oci-layout", 65536, &data, &size);
	if (r == -ENOENT)
		return error_set(error, r, "%s is no OCI image layout: it holds no file oci-layout", layout->path);
	if (r < 0)
		return error_set(error, r, "OCI layout %s: cannot read oci-layout: %s", layout->path,
				 error_text(NULL, r));
	json_t *marker = json_loadb(data, size, 0, NULL);
	const char *version = json_string_value(json_object_get(marker, "imageLayoutVersion"));
	bool known = version && strncmp(version, "1.", 2) == 0;
	json_decref(marker);
	if (!known)
		return error_set(error, -EBADMSG, "OCI layout %s: its oci-layout names no version 1", layout->path);
	return 0;
}

int image_oci_layout_open(const char *path, const char *wanted, ImageSource **ret_source, Error *error)
{
	_cleanup_(image_source_free_p) ImageSource *source = NULL;
	OciLayout *layout = calloc(1, sizeof(*layout));
	if (!layout)
		return error_set(error, -ENOMEM, "out of memory to open %s", path);
	source = &layout->source;
	layout->fd = -1;
	layout->source.transfer = layout_transfer;
	layout->source.destroy = layout_destroy;
	layout->path = strdup(path);
	layout->wanted = wanted ? strdup(wanted) : NULL;
	if (!layout->path || (wanted && !layout->wanted))
		return error_set(error, -ENOMEM, "out of memory to open %s", path);
	layout->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (layout->fd < 0)
		return error_set(error, -errno, "cannot open OCI layout %s: %s", path, strerrordesc_np(errno));
	int r = check_marker(layout, error);
	if (r < 0)
		return r;
	*ret_source = TAKE_PTR(source);
	return 0;
}
