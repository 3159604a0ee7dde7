#include "fs/fetch/fetch-contents.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "fs/base/digest-list.h"
#include "fs/cache/cache-blob.h"
#include "fs/cache/cache-decoded.h"
#include "fs/cache/cache-pins.h"
#include "fs/fetch/fetch-layer.h"
#include "fs/fetch/fetch-manifest.h"
#include "fs/view/view.h"

static void add_blob(CacheStore *cache, const ManifestLayer *layer, FetchContents *contents)
{
	FetchIndex index = { .fd = -1 };
	_cleanup_close_ int data = -1, present = -1;
	if (cache_store_blob_get(cache, &layer->blob, &data, &present) < 0 ||
	    fetch_index_open(cache, layer, &index, NULL) < 0)
		return;
	_cleanup_free_ uint8_t *bits = cache_bits_read(present, index.table.count);
	for (uint32_t i = 0; bits && i < index.table.count; i++) {
		Chunk chunk;
		chunk_table_get(&index.table, i, &chunk);
		if (cache_bits_have(bits, i))
			contents->present += chunk.blob_size;
	}
	int64_t used = cache_bits_used(present, index.table.count);
	if (used > contents->used)
		contents->used = used;
	fetch_index_close(&index);
}

static bool has_decoded(CacheStore *cache, const ManifestLayer *layer)
{
	_cleanup_close_ int fd = -1;
	return cache_store_get(cache, CACHE_DECODED, &layer->diff_id, &fd) == 0 && !cache_decoded_is_place(fd);
}

int fetch_contents_describe(CacheStore *cache, const Digest *manifest, FetchContents *ret_contents)
{
	_cleanup_(fetch_manifest_done) FetchManifest image = { 0 };
	int r = fetch_manifest_cached(cache, manifest, &image);
	if (r < 0)
		return r == -ENOMEM ? r : -ENOENT;
	*ret_contents = (FetchContents){
		.config = image.manifest.config,
		.layers = image.manifest.layer_count,
		.pinned = cache_pin_has(cache, CACHE_PIN, manifest),
	};
	for (size_t i = 0; i < image.manifest.layer_count; i++) {
		ret_contents->total += image.manifest.layers[i].index_offset;
		add_blob(cache, &image.manifest.layers[i], ret_contents);
		ret_contents->decoded += has_decoded(cache, &image.manifest.layers[i]);
	}
	return 0;
}

/* Manifest, config, blobs, indexes and view of an image. One whose manifest is not there keeps nothing. */
static int keep_image(CacheStore *cache, const Digest *manifest, DigestList *keep)
{
	_cleanup_(fetch_manifest_done) FetchManifest image = { 0 };
	int r = fetch_manifest_cached(cache, manifest, &image);
	if (r < 0)
		return r == -ENOMEM ? r : 0;
	size_t count = image.manifest.layer_count;
	_cleanup_free_ Digest *diff_ids = calloc(count + 1, sizeof(*diff_ids));
	r = diff_ids ? digest_list_add(keep, manifest) : -ENOMEM;
	if (r == 0)
		r = digest_list_add(keep, &image.manifest.config);
	for (size_t i = 0; r == 0 && i < count; i++) {
		diff_ids[i] = image.manifest.layers[i].diff_id;
		r = digest_list_add(keep, &image.manifest.layers[i].blob);
		if (r == 0)
			r = digest_list_add(keep, &image.manifest.layers[i].index);
		if (r == 0)
			r = digest_list_add(keep, &diff_ids[i]); /* its decoded copy */
	}
	Digest chain_id;
	if (r == 0 && count > 0)
		r = view_chain_id(diff_ids, count, &chain_id);
	return r == 0 && count > 0 ? digest_list_add(keep, &chain_id) : r;
}

/* With what the pins themselves say, in case a manifest is gone. */
static int keep_pinned(CacheStore *cache, DigestList *keep, Error *error)
{
	CachePin *pins = NULL;
	size_t count = 0;
	int r = cache_pins_list(cache, &pins, &count, error);
	for (size_t i = 0; r == 0 && i < count; i++) {
		r = keep_image(cache, &pins[i].manifest, keep);
		for (size_t j = 0; r == 0 && j < pins[i].keep.count; j++)
			r = digest_list_add(keep, &pins[i].keep.digests[j]);
	}
	cache_pins_free(pins, count);
	return r;
}

bool fetch_contents_has_layers(CacheStore *cache, const Digest *manifest, const ManifestLayer *layers, size_t count)
{
	_cleanup_(fetch_manifest_done) FetchManifest image = { 0 };
	if (fetch_manifest_cached(cache, manifest, &image) < 0 || image.manifest.layer_count < count)
		return false;
	for (size_t i = 0; i < count; i++)
		if (!digest_equal(&image.manifest.layers[i].blob, &layers[i].blob))
			return false;
	return true;
}

static int prune_kind(CacheStore *cache, CacheKind kind, const FetchPrune *prune, const DigestList *keep,
		      FetchPruned *pruned)
{
	_cleanup_free_ CacheObject *objects = NULL;
	size_t count = 0;
	int r = cache_contents_list(cache, kind, &objects, &count);
	for (size_t i = 0; r == 0 && i < count; i++) {
		/* A clock that was put back makes an age negative: that is young, but not for who asks for no age. */
		bool young = prune->min_age > 0 && objects[i].age < prune->min_age;
		if (young || digest_list_has(keep, &objects[i].digest))
			continue;
		if (!prune->dry_run)
			r = cache_contents_remove(cache, kind, &objects[i].digest);
		if (r == 0) {
			pruned->objects++;
			pruned->bytes += objects[i].bytes;
		}
	}
	return r;
}

int fetch_contents_prune(CacheStore *cache, const FetchPrune *prune, FetchPruned *ret_pruned, Error *error)
{
	/* Manifests first: who finds one expects the rest to be worth looking for. */
	static const CacheKind kinds[] = { CACHE_MANIFEST, CACHE_CONFIG,  CACHE_PROFILE, CACHE_VIEW,
					   CACHE_INDEX,    CACHE_DECODED, CACHE_BLOB };
	DigestList keep = { 0 };
	FetchPruned pruned = { 0 };
	Error own = { 0 };
	int r = keep_pinned(cache, &keep, &own);
	for (size_t i = 0; r == 0 && i < prune->manifest_count; i++)
		r = keep_image(cache, &prune->manifests[i], &keep);
	for (size_t i = 0; r == 0 && i < prune->object_count; i++)
		r = digest_list_add(&keep, &prune->objects[i]);
	digest_list_sort(&keep);
	for (size_t i = 0; r == 0 && i < ELEMENTS(kinds); i++)
		r = prune_kind(cache, kinds[i], prune, &keep, &pruned);
	digest_list_done(&keep);
	if (r < 0)
		return error_set(error, r, "the cache cannot be cleared up: %s", error_text(&own, r));
	*ret_pruned = pruned;
	return 0;
}
