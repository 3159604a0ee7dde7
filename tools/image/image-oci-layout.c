#include "tools/image/image-oci-layout.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/format/manifest.h"
#include "tools/image/image-decompress.h"
#include "tools/image/image-input.h"
#include "tools/image/image-oci-files.h"
#include "tools/image/image-oci-index.h"

#define INDEX_DEPTH_MAX 4

typedef struct OciLayout {
	ImageSource source;
	char *name; /* for sentences: "OCI layout DIR" */
	char *wanted;
	bool platform_given;
	Platform platform;
	int archive; /* the tar, or -1 */
	ImageOciFiles *files;
	ImageProgress progress;
} OciLayout;

/* The manifest of the image, as JSON and as it stands. */
typedef struct Found {
	json_t *json;
	char *text;
	size_t size;
	char *name; /* what the outermost index calls the image, or NULL */
} Found;

static void found_done(Found *found)
{
	json_decref(found->json);
	free(found->text);
	free(found->name);
	*found = (Found){ 0 };
}

static ImageSource *layout_destroy(ImageSource *source)
{
	OciLayout *layout = (OciLayout *)source;
	if (layout->archive >= 0)
		(void)close(layout->archive);
	image_oci_files_free(layout->files);
	free(layout->name);
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
	int r = image_oci_files_read(layout->files, blob_path(&descriptor->digest, path), limit, &data, &size);
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

static int load_json(const char *data, size_t size, const char *what, json_t **ret_json, Error *error)
{
	json_error_t where;
	json_t *json = json_loadb(data, size, JSON_REJECT_DUPLICATES, &where);
	if (!json)
		return error_set(error, -EBADMSG, "%s is no JSON: %s", what, where.text);
	*ret_json = json;
	return 0;
}

static int read_index(const OciLayout *layout, json_t **ret_index, Error *error)
{
	_cleanup_free_ char *data = NULL;
	size_t size;
	int r = image_oci_files_read(layout->files, "index.json", MANIFEST_SIZE_MAX, &data, &size);
	if (r < 0)
		return error_set(error, r, "cannot read its index.json: %s", error_text(NULL, r));
	return load_json(data, size, "its index.json", ret_index, error);
}

/* One step from an index: reads what it means for this image, an index again or the manifest. */
static int step_down(const OciLayout *layout, const json_t *index, const char *wanted, Found *next, bool *ret_is_index,
		     Error *error)
{
	const json_t *chosen = NULL;
	const char *name = NULL;
	ImageDescriptor descriptor = { 0 };
	int r = image_index_choose(index, wanted, &layout->platform, &chosen, &name, error);
	if (r == 0)
		r = image_descriptor_parse(chosen, "an image", &descriptor, error);
	if (r == 0)
		r = read_blob(layout, &descriptor, MANIFEST_SIZE_MAX, &next->text, error);
	if (r == 0)
		r = load_json(next->text, descriptor.size, "a manifest or index", &next->json, error);
	if (r < 0)
		return r;
	next->size = descriptor.size;
	*ret_is_index = image_descriptor_is_index(&descriptor, next->json);
	if (name && !(next->name = strdup(name)))
		return error_set(error, -ENOMEM, "out of memory for a name");
	return 0;
}

/* Goes from index.json to the manifest, over indexes below it. */
static int find_manifest(const OciLayout *layout, Found *ret_found, Error *error)
{
	Found found = { 0 };
	bool is_index = true;
	int r = read_index(layout, &found.json, error);
	for (int depth = 0; r == 0 && is_index; depth++) {
		Found next = { 0 };
		if (depth >= INDEX_DEPTH_MAX)
			r = error_set(error, -EBADMSG, "its indexes are nested more than %d deep", INDEX_DEPTH_MAX);
		else
			r = step_down(layout, found.json, depth == 0 ? layout->wanted : NULL, &next, &is_index, error);
		if (depth > 0) {
			free(next.name);
			next.name = TAKE_PTR(found.name);
		}
		found_done(&found);
		found = next;
	}
	if (r < 0) {
		found_done(&found);
		return r;
	}
	*ret_found = found;
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
	if (layout->platform_given) {
		r = platform_check_config(&layout->platform, content->config, content->config_size, error);
		if (r < 0)
			return r;
	}
	if (content->layer_count != json_array_size(json_object_get(manifest, "layers")))
		return error_set(error, -EBADMSG, "its manifest names %zu layers, but its config %zu",
				 json_array_size(json_object_get(manifest, "layers")), content->layer_count);
	return 0;
}

/* Where a layer's blob is; `ret_fd` is the caller's to close. */
static int open_layer(const OciLayout *layout, const ImageDescriptor *descriptor, const char *path, ImageInput *input,
		      int *ret_fd, Error *error)
{
	uint64_t size = 0;
	int r = image_descriptor_check_layer(descriptor, error);
	if (r < 0)
		return error_prefix(error, r, "layer %s", path);
	r = image_oci_files_open(layout->files, path, ret_fd, &input->offset, &size);
	if (r == -ENOENT && image_descriptor_is_foreign(descriptor))
		return error_set(
			error, r,
			"layer %s is one that images may leave out (%.100s), and this copy does; get a copy with it",
			path, descriptor->media_type);
	if (r < 0)
		return error_set(error, r, "cannot read layer %s: %s; copy the image again", path, error_text(NULL, r));
	if (size != descriptor->size)
		return error_set(error, -EKEYREJECTED, "layer %s has %llu bytes, not %llu; copy the image again", path,
				 (unsigned long long)size, (unsigned long long)descriptor->size);
	input->fd = *ret_fd;
	input->left = size;
	return 0;
}

/* Hands a layer on; the digest of the blob as it stands, and the diffID of what is in it, are both verified. */
static int transfer_layer(OciLayout *layout, const ImageSink *sink, const ImageDescriptor *descriptor,
			  const Digest *diff_id, Error *error)
{
	char path[96];
	Digest found;
	_cleanup_(digest_state_free_p) DigestState *digest = NULL;
	_cleanup_(image_decompressor_free_p) ImageDecompressor *decompressor = NULL;
	_cleanup_close_ int fd = -1;
	ImageInput input = { .path = path, .progress = &layout->progress };
	int r = open_layer(layout, descriptor, blob_path(&descriptor->digest, path), &input, &fd, error);
	if (r < 0)
		return r;
	r = digest_state_new(&digest);
	input.digest = digest;
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

/* The marker of a layout, and its version (OCI image-spec 1.1, image-layout.md, "oci-layout file"). */
static int check_marker(const OciLayout *layout, Error *error)
{
	_cleanup_free_ char *data = NULL;
	size_t size;
	int r = image_oci_files_read(layout->files, "oci-layout", 65536, &data, &size);
	if (r == -ENOENT)
		return error_set(error, r, "it is no OCI image layout: it holds no file oci-layout%s",
				 layout->archive >= 0 ? "; what docker save made is exported as docker-archive:FILE"
						      : "");
	if (r < 0)
		return error_set(error, r, "cannot read its oci-layout: %s", error_text(NULL, r));
	json_t *marker = json_loadb(data, size, 0, NULL);
	const char *version = json_string_value(json_object_get(marker, "imageLayoutVersion"));
	bool known = version && strncmp(version, "1.", 2) == 0;
	json_decref(marker);
	return known ? 0 : error_set(error, -EBADMSG, "its oci-layout names no version 1");
}

static int fill_names(Found *found, ImageContent *content, Error *error)
{
	content->manifest = TAKE_PTR(found->text);
	content->manifest_size = found->size;
	if (!found->name)
		return 0;
	content->names = calloc(1, sizeof(*content->names));
	if (!content->names)
		return error_set(error, -ENOMEM, "out of memory for a name");
	content->names[content->name_count++] = TAKE_PTR(found->name);
	return 0;
}

static int transfer(OciLayout *layout, const ImageSink *sink, Found *found, ImageContent *content, Error *error)
{
	int r = 0;
	if (!layout->files)
		r = image_oci_files_archive(layout->archive, sink, &layout->files, error);
	if (r == 0)
		r = check_marker(layout, error);
	if (r == 0)
		r = find_manifest(layout, found, error);
	if (r == 0)
		r = fill_content(layout, found->json, content, error);
	if (r == 0)
		r = fill_names(found, content, error);
	if (r < 0)
		return error_prefix(error, r, "%s", layout->name);
	r = sink->begin(sink->arg, content, error);
	if (r < 0)
		return r;
	r = transfer_layers(layout, json_object_get(found->json, "layers"), sink, content, error);
	return r < 0 ? error_prefix(error, r, "%s", layout->name) : 0;
}

static int layout_transfer(ImageSource *source, const ImageSink *sink, ImageContent *ret_content, Error *error)
{
	OciLayout *layout = (OciLayout *)source;
	ImageContent content = { 0 };
	Found found = { 0 };
	layout->progress = (ImageProgress){ .sink = sink };
	int r = transfer(layout, sink, &found, &content, error);
	found_done(&found);
	if (r < 0) {
		image_content_done(&content);
		return r;
	}
	*ret_content = content;
	return 0;
}

static OciLayout *layout_new(const char *kind, const char *path, const char *wanted, const Platform *platform)
{
	OciLayout *layout = calloc(1, sizeof(*layout));
	if (!layout)
		return NULL;
	layout->archive = -1;
	layout->source.transfer = layout_transfer;
	layout->source.destroy = layout_destroy;
	layout->platform_given = platform;
	if (platform)
		layout->platform = *platform;
	else
		platform_of_machine(&layout->platform);
	layout->wanted = wanted ? strdup(wanted) : NULL;
	if (asprintf(&layout->name, "%s %s", kind, path) < 0)
		layout->name = NULL;
	if (!layout->name || (wanted && !layout->wanted)) {
		layout_destroy(&layout->source);
		return NULL;
	}
	return layout;
}

int image_oci_layout_open(const char *path, const char *wanted, const Platform *platform, ImageSource **ret_source,
			  Error *error)
{
	_cleanup_(image_source_free_p) ImageSource *source = NULL;
	OciLayout *layout = layout_new("OCI layout", path, wanted, platform);
	if (!layout)
		return error_set(error, -ENOMEM, "out of memory to open %s", path);
	source = &layout->source;
	int r = image_oci_files_directory(path, &layout->files, error);
	if (r == 0) {
		r = check_marker(layout, error);
		if (r < 0)
			(void)error_prefix(error, r, "%s", layout->name);
	}
	if (r == 0)
		*ret_source = TAKE_PTR(source);
	return r;
}

int image_oci_archive_open(const char *path, const char *wanted, const Platform *platform, ImageSource **ret_source,
			   Error *error)
{
	bool standard = strcmp(path, "-") == 0;
	struct stat status;
	OciLayout *layout = layout_new("OCI archive", path, wanted, platform);
	_cleanup_(image_source_free_p) ImageSource *source = layout ? &layout->source : NULL;
	if (!layout)
		return error_set(error, -ENOMEM, "out of memory to open %s", path);
	layout->archive =
		standard ? fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3) : open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (layout->archive < 0 || fstat(layout->archive, &status) < 0)
		return error_set(error, -errno, "cannot open %s: %s", layout->name, strerrordesc_np(errno));
	if (S_ISDIR(status.st_mode))
		return error_set(error, -EISDIR, "%s is a directory; an OCI image layout is exported as oci:DIR", path);
	*ret_source = TAKE_PTR(source);
	return 0;
}
