#include "tools/export/export-image.h"

#include <string.h>

#include "fs/base/digest-list.h"
#include "fs/base/fd.h"
#include "fs/format/format.h"
#include "fs/format/manifest.h"
#include "tools/export/export-finish.h"
#include "tools/export/export-links.h"
#include "tools/export/export-tags.h"
#include "tools/export/layer-writer.h"
#include "tools/export/profile-carry.h"
#include "tools/export/store-lock.h"

/* What is at hand while an image comes in. */
typedef struct Export {
	Store *store;
	const ExportOptions *options;
	ExportResult result;
	ExportFinish *finish; /* the last layer read, or NULL */
	Digest *written;      /* diffIDs of the layers this export wrote */
	size_t written_count;
	DigestList whole; /* diffIDs of those that were verified and found whole, in no order */
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
	const Platform *platform = export->options->platform;
	int r = platform ? platform_check_config(platform, content->config, content->config_size, error) : 0;
	if (r < 0 || export->result.tags)
		return r;
	return export_tags_choose(NULL, content->names, content->name_count, &export->result.tags,
				  &export->result.tag_count, error);
}

/* Waits for the layer that is being finished, if there is one, and counts it. */
static int finish_layer(Export *export, Error *error)
{
	ExportFinished finished;
	if (!export->finish)
		return 0;
	int r = export_finish_wait(TAKE_PTR(export->finish), &finished, error);
	if (r < 0 || !finished.published)
		return r;
	Digest *written = reallocarray(export->written, export->written_count + 1, sizeof(*written));
	if (!written)
		return error_set(error, -ENOMEM, "out of memory for the list of layers");
	export->written = written;
	written[export->written_count++] = finished.layer.diff_id;
	export->result.stored_size += finished.layer.blob_size;
	export->result.chunk_count += finished.chunk_count;
	export->result.chunks_reused += finished.chunks_reused;
	return 0;
}

/* As options say; a layer is read for that once, however often a source asks. */
static bool store_has_layer(Export *export, const Digest *diff_id)
{
	if (!export->options->verify)
		return export_has_layer(export->store, diff_id, false);
	for (size_t i = 0; i < export->whole.count; i++)
		if (digest_equal(&export->whole.digests[i], diff_id))
			return true;
	return export_has_layer(export->store, diff_id, true) && digest_list_add(&export->whole, diff_id) == 0;
}

/* A layer that is being finished is as good as there: if that fails, the export does. */
static bool on_has_layer(void *arg, const Digest *diff_id)
{
	Export *export = arg;
	if (export->finish && digest_equal(export_finish_layer(export->finish), diff_id))
		return true;
	return store_has_layer(export, diff_id);
}

/* A frame the store has. */
static int find_frame(void *arg, uint64_t content, uint32_t content_size _unused_, uint8_t *frame, uint32_t *ret_size,
		      Digest *ret_digest)
{
	const Export *export = arg;
	StoreFrame found;
	int r = store_frame_find(export->store, content, &found);
	if (r < 0)
		return r;
	if (found.size > FORMAT_FRAME_MAX || fd_pread_all(found.fd, frame, found.size, found.offset) < 0)
		return -ENOENT;
	*ret_size = found.size;
	*ret_digest = found.digest;
	return 0;
}

static int read_layer(Export *export, const Digest *diff_id, const LayerSource *tar, StoreUpload **ret_upload,
		      LayerDraft **ret_draft, Digest *ret_diff_id, Error *error)
{
	LayerOptions options = { .level = export->options->level,
				 .jobs = export->options->jobs,
				 .diff_id = diff_id,
				 .find_frame = export->options->reproducible ? NULL : find_frame,
				 .find_frame_arg = export };
	_cleanup_(store_upload_free_p) StoreUpload *upload = NULL;
	int r = store_upload_new(export->store, &upload, error);
	if (r == 0)
		r = layer_read(tar, &options, store_upload_fd(upload), ret_draft, ret_diff_id, error);
	if (r == 0)
		*ret_upload = TAKE_PTR(upload);
	/* The blob's file: a source has no disk to fill. */
	return r == -ENOSPC || r == -EDQUOT ? store_error(export->store, r, "a layer", error) : r;
}

/* Reads a layer while the one before it is finished, and leaves it to be finished in its turn. */
static int on_layer(void *arg, const Digest *diff_id, const LayerSource *tar, Digest *ret_diff_id, Error *error)
{
	Export *export = arg;
	StoreUpload *upload = NULL;
	LayerDraft *draft = NULL;
	Digest found;
	int r = read_layer(export, diff_id, tar, &upload, &draft, &found, error);
	if (r < 0)
		return r;
	r = finish_layer(export, error);
	if (r < 0) {
		layer_draft_free(draft);
		store_upload_free(upload);
		return r;
	}
	r = export_finish_start(export->store, upload, draft, &found, export->options->verify, &export->finish, error);
	if (r == 0)
		*ret_diff_id = found;
	return r;
}

static void on_progress(void *arg, uint64_t done, uint64_t total)
{
	const Export *export = arg;
	if (export->options->progress)
		export->options->progress(export->options->arg, done, total);
}

static void on_notice(void *arg, const char *sentence)
{
	const Export *export = arg;
	if (export->options->notice)
		export->options->notice(export->options->arg, sentence);
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

/* A start that was recorded with the version before is a good guess for this one; no export fails for want of it. */
static void carry_profile(Export *export)
{
	Error error = { 0 };
	int r = 0;
	for (size_t i = 0; r == 0 && i < export->result.tag_count; i++) {
		const ExportTag *tag = &export->result.tags[i];
		r = profile_carry_tag(export->store, tag->name, tag->tag, &export->result.manifest, &error);
	}
	export->result.profile_carried = r > 0;
	if (r < 0)
		on_notice(export, error_text(&error, r));
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

/* An image whose manifest is there has passed. */
static int check_links(const Export *export, const Manifest *manifest, const char *json, size_t size, Error *error)
{
	Digest digest;
	uint64_t found;
	_cleanup_close_ int fd = -1;
	if (digest_of(json, size, &digest) == 0 && store_blob_open(export->store, &digest, &fd, &found) == 0)
		return 0;
	return export_check_links(export->store, manifest, error);
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
		r = manifest_encode_from(&manifest, content->manifest, content->manifest_size, &json, &size, error);
		if (r == -ENOMEM)
			(void)error_set(error, r, "out of memory for the image's manifest");
		if (r == 0 && size > MANIFEST_SIZE_MAX)
			r = error_set(error, -EFBIG, "the image's manifest takes %zu bytes; up to %u are possible",
				      size, MANIFEST_SIZE_MAX);
	}
	if (r == 0)
		r = check_links(export, &manifest, json, size, error);
	export->result.config = manifest.config;
	manifest_done(&manifest);
	if (r == 0)
		r = store_blob_put(export->store, json, size, &export->result.manifest, error);
	if (r < 0)
		return r;
	carry_profile(export);
	return put_tags(export, json, size, error);
}

int export_image(ImageSource *source, Store *store, const ExportOptions *options, ExportResult *ret_result,
		 Error *error)
{
	Export export = { .store = store, .options = options };
	ImageSink sink = { .begin = on_begin,
			   .has_layer = on_has_layer,
			   .layer = on_layer,
			   .progress = on_progress,
			   .notice = on_notice,
			   .arg = &export };
	ImageContent content = { 0 };
	_cleanup_close_ int hold = -1;
	/* From the first layer that is found in the store to the tag that keeps it there, no collector may come between. */
	int r = store_hold(store, &hold, error);
	if (r == 0 && options->tag)
		r = export_tags_choose(options->tag, NULL, 0, &export.result.tags, &export.result.tag_count, error);
	if (r == 0)
		r = image_source_transfer(source, &sink, &content, error);
	if (r == 0)
		r = finish_layer(&export, error);
	if (r == 0 && content.layer_count > MANIFEST_LAYERS_MAX)
		r = error_set(error, -EFBIG, "the image has %zu layers; a manifest holds up to %u", content.layer_count,
			      MANIFEST_LAYERS_MAX);
	if (r == 0)
		r = publish(&export, &content, error);
	image_content_done(&content);
	export_finish_free(export.finish);
	free(export.written);
	digest_list_done(&export.whole);
	if (r < 0) {
		export_result_done(&export.result);
		return r;
	}
	*ret_result = export.result;
	return 0;
}
