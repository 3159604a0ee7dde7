#include "tools/export/export-image.h"

#include <string.h>

#include "fs/base/fd.h"
#include "fs/format/format.h"
#include "fs/format/manifest.h"
#include "tools/export/export-tags.h"
#include "tools/export/layer-writer.h"

/* What is at hand while an image comes in. */
typedef struct Export {
	Store *store;
	const ExportOptions *options;
	ExportResult result;
	Digest *written; /* diffIDs of the layers this export wrote */
	size_t written_count;
} Export;

void export_result_done(ExportResult *result)
{
	export_tags_free(result->tags, result->tag_count);
	*result = (ExportResult){ 0 };
}

/* The tags are settled as early as can be: a name that will not do should not cost a whole export. */
static int on_begin(void *arg, const ImageContent *content, Error *error)
{
	Export *export = arg;
	if (export->result.tags)
		return 0;
	return export_tags_choose(NULL, content->names, content->name_count, &export->result.tags,
				  &export->result.tag_count, error);
}

/* A layer whose record is damaged, or whose blob is gone or cut short, is written anew. */
static bool on_has_layer(void *arg, const Digest *diff_id)
{
	Export *export = arg;
	ManifestLayer layer;
	uint64_t size;
	_cleanup_close_ int fd = -1;
	return store_layer_get(export->store, diff_id, &layer, NULL) == 0 &&
	       store_blob_open(export->store, &layer.blob, &fd, &size) == 0 && size == layer.blob_size;
}

/* A frame the store has, taken only if it is what its index says. */
static int find_frame(void *arg, const Digest *content, uint32_t content_size _unused_, uint8_t *frame,
		      uint32_t *ret_size, Digest *ret_digest)
{
	Export *export = arg;
	StoreFrame found;
	Digest digest;
	int r = store_frame_find(export->store, content, &found);
	if (r < 0)
		return r;
	if (found.size > FORMAT_FRAME_MAX || fd_pread_all(found.fd, frame, found.size, found.offset) < 0 ||
	    digest_of(frame, found.size, &digest) < 0 || !digest_equal(&digest, &found.digest))
		return -ENOENT;
	*ret_size = found.size;
	*ret_digest = digest;
	return 0;
}

static int commit_layer(Export *export, StoreUpload *upload, const LayerResult *layer, Error *error)
{
	Digest *written = reallocarray(export->written, export->written_count + 1, sizeof(*written));
	if (!written)
		return error_set(error, -ENOMEM, "out of memory for the list of layers");
	export->written = written;
	int r = store_upload_commit(upload, &layer->layer, layer->contents, layer->chunk_count, error);
	if (r < 0)
		return r;
	written[export->written_count++] = layer->layer.diff_id;
	export->result.stored_size += layer->layer.blob_size;
	export->result.chunk_count += layer->chunk_count;
	export->result.chunks_reused += layer->reused_chunks;
	return 0;
}

static int on_layer(void *arg, const Digest *diff_id, const LayerSource *tar, Digest *ret_diff_id, Error *error)
{
	Export *export = arg;
	LayerOptions options = { .level = export->options->level,
				 .jobs = export->options->jobs,
				 .diff_id = diff_id,
				 .find_frame = export->options->reproducible ? NULL : find_frame,
				 .find_frame_arg = export };
	LayerResult layer = { 0 };
	_cleanup_(store_upload_free_p) StoreUpload *upload = NULL;
	int r = store_upload_new(export->store, &upload, error);
	if (r == 0)
		r = layer_write(tar, &options, store_upload_fd(upload), &layer, error);
	if (r == -ENOSPC || r == -EDQUOT)
		return store_error(export->store, r, "a layer", error);
	if (r < 0)
		return r;

	/* A stream's layer is known only now, and another export may have been faster: the layer that is there stays. */
	if (!on_has_layer(export, &layer.layer.diff_id))
		r = commit_layer(export, upload, &layer, error);
	if (r == 0)
		*ret_diff_id = layer.layer.diff_id;
	layer_result_done(&layer);
	return r;
}

static void on_progress(void *arg, uint64_t done, uint64_t total)
{
	const Export *export = arg;
	if (export->options->progress)
		export->options->progress(export->options->progress_arg, done, total);
}

static bool was_written(const Export *export, const Digest *diff_id)
{
	for (size_t i = 0; i < export->written_count; i++) {
		if (digest_equal(&export->written[i], diff_id))
			return true;
	}
	return false;
}

static int fill_manifest(Export *export, const ImageContent *content, Manifest *manifest, Error *error)
{
	manifest->layers = calloc(content->layer_count + 1, sizeof(*manifest->layers));
	if (!manifest->layers)
		return error_set(error, -ENOMEM, "out of memory for the manifest");
	manifest->layer_count = content->layer_count;
	manifest->config_size = content->config_size;
	for (size_t i = 0; i < content->layer_count; i++) {
		int r = store_layer_get(export->store, &content->diff_ids[i], &manifest->layers[i], error);
		if (r < 0)
			return r;
		export->result.tar_size += manifest->layers[i].tar_size;
		export->result.layers_new += was_written(export, &content->diff_ids[i]);
	}
	export->result.layer_count = content->layer_count;
	return 0;
}

static int put_tags(Export *export, const char *json, size_t size, Error *error)
{
	for (size_t i = 0; i < export->result.tag_count; i++) {
		const ExportTag *tag = &export->result.tags[i];
		int r = store_tag_put(export->store, tag->name, tag->tag, json, size, error);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Config, manifest, tags, in the order store.h wants. */
static int publish(Export *export, const ImageContent *content, Error *error)
{
	Manifest manifest = { 0 };
	_cleanup_free_ char *json = NULL;
	size_t size = 0;
	int r = store_blob_put(export->store, content->config, content->config_size, &manifest.config, error);
	if (r == 0)
		r = fill_manifest(export, content, &manifest, error);
	if (r == 0) {
		r = manifest_encode(&manifest, &json, &size);
		if (r < 0)
			(void)error_set(error, r, "cannot make the image's manifest: %s", error_text(NULL, r));
	}
	export->result.config = manifest.config;
	manifest_done(&manifest);
	if (r == 0)
		r = store_blob_put(export->store, json, size, &export->result.manifest, error);
	return r == 0 ? put_tags(export, json, size, error) : r;
}

int export_image(ImageSource *source, Store *store, const ExportOptions *options, ExportResult *ret_result,
		 Error *error)
{
	Export export = { .store = store, .options = options };
	ImageSink sink = {
		.begin = on_begin, .has_layer = on_has_layer, .layer = on_layer, .progress = on_progress, .arg = &export
	};
	ImageContent content = { 0 };
	int r = 0;
	if (options->tag)
		r = export_tags_choose(options->tag, NULL, 0, &export.result.tags, &export.result.tag_count, error);
	if (r == 0)
		r = image_source_transfer(source, &sink, &content, error);
	if (r == 0 && content.layer_count > MANIFEST_LAYERS_MAX)
		r = error_set(error, -EFBIG, "the image has %zu layers; a manifest holds up to %u", content.layer_count,
			      MANIFEST_LAYERS_MAX);
	if (r == 0)
		r = publish(&export, &content, error);
	image_content_done(&content);
	free(export.written);
	if (r < 0) {
		export_result_done(&export.result);
		return r;
	}
	*ret_result = export.result;
	return 0;
}
