#include "tools/export/image-verify.h"

#include <string.h>

#include "tools/export/image-verify-private.h"
#include "tools/export/store-image.h"

int verify_new(Store *store, const VerifyHooks *hooks, Verify **ret_verify)
{
	Verify *verify = calloc(1, sizeof(*verify));
	if (!verify)
		return -ENOMEM;
	verify->store = store;
	verify->hooks = hooks;
	*ret_verify = verify;
	return 0;
}

Verify *verify_free(Verify *verify)
{
	if (verify) {
		free(verify->seen);
		free(verify);
	}
	return NULL;
}

VerifyCounts verify_counts(const Verify *verify)
{
	return verify->counts;
}

void verify_report(Verify *verify, VerifyFault fault)
{
	fault.image = verify->image;
	fault.layer = fault.diff_id ? verify->layer : 0;
	verify->counts.faults++;
	verify->hooks->fault(verify->hooks->arg, &fault);
}

void verify_report_layer(Verify *verify, const ManifestLayer *layer, const char *what)
{
	verify_report(verify,
		      (VerifyFault){ .object = &layer->blob, .diff_id = &layer->diff_id, .what = what, .chunk = -1 });
}

static void report_object(Verify *verify, const Digest *object, const char *what)
{
	verify_report(verify, (VerifyFault){ .object = object, .what = what, .chunk = -1 });
}

/* Takes in a manifest's bytes whatever they are. Errors: -ENOENT, read's. */
static int read_manifest(Store *store, const Reference *reference, StoreImage *image)
{
	if (!reference->has_digest)
		return store_tag_get(store, reference->name, reference->tag, &image->json, &image->json_size);
	return store_blob_read(store, &reference->digest, MANIFEST_SIZE_MAX, &image->json, &image->json_size);
}

/* A tag's bytes must be those of a manifest in blobs/. */
static int verify_manifest(Verify *verify, StoreImage *image)
{
	_cleanup_free_ char *published = NULL;
	size_t size;
	Error wrong = { 0 };
	int r = digest_of(image->json, image->json_size, &image->digest);
	if (r < 0)
		return r;
	r = store_blob_read(verify->store, &image->digest, MANIFEST_SIZE_MAX, &published, &size);
	if (r == -ENOMEM)
		return r;
	if (r == -ENOENT)
		report_object(verify, NULL,
			      "what the tag holds is no manifest of the store; the tag file is rotten, or its manifest "
			      "is gone");
	else if (r == -EBADMSG)
		report_object(verify, &image->digest, "the SHA-256 of the manifest is another");
	else if (r < 0)
		report_object(verify, &image->digest, error_text(NULL, r));
	r = manifest_parse(image->json, image->json_size, &image->manifest, &wrong);
	if (r == -ENOMEM)
		return r;
	if (r < 0) {
		report_object(verify, &image->digest, error_text(&wrong, r));
		return -EBADMSG;
	}
	return 0;
}

static int verify_diff_ids(Verify *verify, const Manifest *manifest, const char *config, size_t size)
{
	_cleanup_free_ Digest *diff_ids = NULL;
	size_t count;
	Error wrong = { 0 };
	int r = manifest_config_diff_ids(config, size, &diff_ids, &count, &wrong);
	if (r == -ENOMEM)
		return r;
	if (r < 0) {
		report_object(verify, &manifest->config, error_text(&wrong, r));
		return 0;
	}
	bool same = count == manifest->layer_count;
	for (size_t i = 0; i < count && same; i++)
		same = digest_equal(&diff_ids[i], &manifest->layers[i].diff_id);
	if (!same)
		report_object(verify, &manifest->config,
			      "the diffIDs of the config are not the layers of the manifest");
	return 0;
}

static int verify_config(Verify *verify, const Manifest *manifest)
{
	_cleanup_free_ char *config = NULL;
	size_t size;
	int r = store_blob_read(verify->store, &manifest->config, MANIFEST_SIZE_MAX, &config, &size);
	if (r == -ENOMEM)
		return r;
	if (r == 0 && size != manifest->config_size)
		report_object(verify, &manifest->config, "the config is of another length than the manifest says");
	if (r == 0)
		return verify_diff_ids(verify, manifest, config, size);
	report_object(verify, &manifest->config,
		      r == -ENOENT    ? "the store does not hold the config"
		      : r == -EBADMSG ? "the SHA-256 of the config is another"
				      : error_text(NULL, r));
	return 0;
}

static int verify_parts(Verify *verify, StoreImage *image, Error *error)
{
	int r = verify_manifest(verify, image);
	if (r == -EBADMSG)
		return 0;
	if (r == 0)
		r = verify_config(verify, &image->manifest);
	for (size_t i = 0; i < image->manifest.layer_count && r == 0; i++) {
		verify->layer = (uint32_t)i + 1;
		r = verify_layer(verify, &image->manifest.layers[i], error);
	}
	return r;
}

int verify_image(Verify *verify, const char *text, Error *error)
{
	StoreImage image = { 0 };
	int r = store_image_parse(text, &image.reference, error);
	if (r < 0)
		return r;
	verify->image = text;
	r = read_manifest(verify->store, &image.reference, &image);
	if (r == -ENOENT)
		return error_set(error, r, "store %s does not hold %s; `imgfs ls` lists what it holds",
				 store_path(verify->store), text);
	if (r == -ENOMEM)
		return error_set(error, r, "out of memory to verify %s", text);
	verify->counts.images++;
	if (r < 0)
		report_object(verify, image.reference.has_digest ? &image.reference.digest : NULL,
			      r == -EBADMSG ? "the SHA-256 of the manifest is another" : error_text(NULL, r));
	else
		r = verify_parts(verify, &image, error);
	if (r == -ENOMEM)
		(void)error_set(error, r, "out of memory to verify %s", text);
	store_image_done(&image);
	return r == -ENOMEM || r == -EAGAIN ? r : 0;
}

uint64_t verify_estimate(Verify *verify, const char *text)
{
	StoreImage image = { 0 };
	uint64_t total = 0;
	if (store_image_open(verify->store, text, &image, NULL) < 0)
		return 0;
	for (size_t i = 0; i < image.manifest.layer_count; i++)
		total += image.manifest.layers[i].blob_size;
	store_image_done(&image);
	return total;
}
