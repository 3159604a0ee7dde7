#include "tools/cmd/pull-containerd.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "fs/format/blob.h"
#include "snapshotter/client.h"

#define LABEL_REF       "containerd.io/snapshot.ref"
#define LABEL_REFERENCE "containerd.io/snapshot/imgfs.reference"
#define LABEL_CONFIG    "containerd.io/gc.ref.content.config"
#define LABEL_SNAPSHOT  "containerd.io/gc.ref.snapshot."

/* OCI image-spec, config.md, "Layer ChainID". `chain` is that of what is below, and becomes that of the layer on it. */
static int add_to_chain(char chain[static DIGEST_TEXT_SIZE], const char *diff_id)
{
	char both[2 * DIGEST_TEXT_SIZE];
	Digest digest;
	if (!chain[0]) {
		(void)snprintf(chain, DIGEST_TEXT_SIZE, "%s", diff_id);
		return 0;
	}
	int size = snprintf(both, sizeof(both), "%s %s", chain, diff_id);
	int r = digest_of(both, (size_t)size, &digest);
	if (r == 0)
		(void)digest_text(&digest, chain);
	return r;
}

static int make_snapshot(Client *client, const PullContainerd *what, const ManifestLayer *layer,
			 char chain[static DIGEST_TEXT_SIZE], Error *error)
{
	char below[DIGEST_TEXT_SIZE], diff_id[DIGEST_TEXT_SIZE], blob[DIGEST_TEXT_SIZE], index[DIGEST_TEXT_SIZE];
	char blob_size[24], index_offset[24], index_size[24];
	(void)snprintf(below, sizeof(below), "%s", chain);
	if (add_to_chain(chain, digest_text(&layer->diff_id, diff_id)) < 0)
		return error_set(error, -ENOMEM, "out of memory");
	(void)snprintf(blob_size, sizeof(blob_size), "%" PRIu64, layer->blob_size);
	(void)snprintf(index_offset, sizeof(index_offset), "%" PRIu64, layer->index_offset);
	(void)snprintf(index_size, sizeof(index_size), "%" PRIu64, layer->index_size);
	const ClientLabel labels[] = {
		{ LABEL_REF, chain },
		{ LABEL_REFERENCE, what->reference },
		{ BLOB_ANNOTATION_VERSION, "1" },
		{ BLOB_ANNOTATION_DIGEST, digest_text(&layer->blob, blob) },
		{ BLOB_ANNOTATION_SIZE, blob_size },
		{ BLOB_ANNOTATION_INDEX_OFFSET, index_offset },
		{ BLOB_ANNOTATION_INDEX_SIZE, index_size },
		{ BLOB_ANNOTATION_INDEX_DIGEST, digest_text(&layer->index, index) },
		{ BLOB_ANNOTATION_DIFF_ID, diff_id },
		{ 0 },
	};
	return client_lazy_snapshot(client, what->snapshotter, chain, below[0] ? below : NULL, labels, error);
}

/* Config and manifest, each referring to what has to stay with it. */
static int put_contents(Client *client, const PullContainerd *what, const RemoteOptions *remote,
			const Reference *reference, CacheStore *cache, const FetchImage *image, const char *chain,
			Error *error)
{
	_cleanup_free_ uint8_t *config = NULL;
	_cleanup_free_ char *manifest = NULL, *snapshot_label = NULL;
	size_t config_size = 0, manifest_size = 0;
	char config_digest[DIGEST_TEXT_SIZE], digest[DIGEST_TEXT_SIZE];
	(void)digest_text(&image->config, config_digest);
	(void)digest_text(&image->manifest, digest);
	if (asprintf(&snapshot_label, LABEL_SNAPSHOT "%s", what->snapshotter) < 0)
		return error_set(error, -ENOMEM, "out of memory");
	int r = remote_options_config(remote, reference, what->timeout, &image->config, &config, &config_size, error);
	if (r == 0)
		r = client_put_content(client, config_digest, config, config_size,
				       (ClientLabel[]){ { snapshot_label, chain }, { 0 } }, error);
	if (r == 0) {
		r = cache_store_read_checked(cache, CACHE_MANIFEST, &image->manifest, MANIFEST_SIZE_MAX, &manifest,
					     &manifest_size);
		if (r < 0)
			(void)error_set(error, r,
					"the manifest, which was in the cache, cannot be read: %s; pull again",
					strerror(-r));
	}
	if (r == 0)
		r = client_put_content(client, digest, manifest, manifest_size,
				       (ClientLabel[]){ { LABEL_CONFIG, config_digest }, { 0 } }, error);
	return r < 0 ? r
		     : client_put_image(client, what->reference, MANIFEST_MEDIA_TYPE, digest, (int64_t)manifest_size,
					error);
}

int pull_containerd(const PullContainerd *what, const RemoteOptions *remote, const Reference *reference,
		    CacheStore *cache, const FetchImage *image, Error *error)
{
	_cleanup_(client_close_p) Client *client = NULL;
	char chain[DIGEST_TEXT_SIZE] = "";
	int r = client_open(what->socket, what->name_space, &client, error);
	for (size_t i = 0; r == 0 && i < image->layer_count; i++)
		r = make_snapshot(client, what, &image->layers[i].layer, chain, error);
	return r < 0 ? r : put_contents(client, what, remote, reference, cache, image, chain, error);
}
