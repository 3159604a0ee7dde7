#include "fs/fetch/fetch-check.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/base/digest-list.h"
#include "fs/cache/cache-blob.h"
#include "fs/cache/cache-decoded.h"
#include "fs/cache/cache-evict.h"
#include "fs/cache/cache-pins.h"
#include "fs/fetch/fetch-config.h"
#include "fs/fetch/fetch-layer.h"
#include "fs/fetch/fetch-manifest.h"

typedef struct Checking {
	CacheStore *cache;
	const FetchCheck *options;
	FetchChecked result;
	ManifestLayer *layers; /* of all images */
	size_t layer_count, layer_room;
	DigestList broken; /* manifests and blobs of which something is gone since just now */
	uint8_t *frame;    /* FORMAT_FRAME_MAX */
} Checking;

static void checking_done(Checking *checking)
{
	free(checking->layers);
	free(checking->frame);
	digest_list_done(&checking->broken);
}

static void tell_rotten(Checking *checking, CacheKind kind, const Digest *digest, uint64_t chunks)
{
	checking->result.rotten += chunks ? chunks : 1;
	if (checking->options->rotten)
		checking->options->rotten(checking->options->arg, kind, digest, chunks);
}

static void tell_progress(Checking *checking, uint64_t bytes)
{
	checking->result.bytes += bytes;
	if (checking->options->progress)
		checking->options->progress(checking->options->arg, checking->result.bytes);
}

/* An index or a view. */
static int check_tree(Checking *checking, CacheKind kind, const Digest *digest)
{
	_cleanup_close_ int fd = -1;
	FdMap map = { 0 };
	Image image;
	Tree tree;
	ChunkTable table;
	int r = cache_store_get(checking->cache, kind, digest, &fd);
	if (r == 0)
		r = fd_load(fd, &map);
	if (r < 0)
		return r;
	r = map.data ? image_open(map.data, map.size, &image, NULL) : -EBADMSG;
	if (r == 0 && kind == CACHE_INDEX)
		r = chunk_table_open(&image, &table, NULL);
	if (r == 0)
		r = tree_open(&image, &tree, NULL);
	fd_unmap(&map);
	return r;
}

/* Its layers are noted: they are what is checked after that. */
static int check_manifest(Checking *checking, const Digest *digest)
{
	_cleanup_(fetch_manifest_done) FetchManifest manifest = { 0 };
	int r = fetch_manifest_cached(checking->cache, digest, &manifest);
	if (r < 0)
		return r == -ENOENT ? -EBADMSG : r; /* the same to whoever wants it */
	size_t count = checking->layer_count + manifest.manifest.layer_count;
	if (count > checking->layer_room) {
		ManifestLayer *layers = reallocarray(checking->layers, 2 * count, sizeof(*layers));
		if (!layers)
			return -ENOMEM;
		checking->layers = layers;
		checking->layer_room = 2 * count;
	}
	for (size_t i = 0; i < manifest.manifest.layer_count; i++)
		checking->layers[checking->layer_count++] = manifest.manifest.layers[i];
	return 0;
}

static int check_config(Checking *checking, const Digest *digest)
{
	_cleanup_free_ char *config = NULL;
	size_t size;
	int r = fetch_config_cached(checking->cache, digest, &config, &size);
	return r == -ENOENT ? -EBADMSG : r;
}

static int check_object(Checking *checking, CacheKind kind, const Digest *digest)
{
	if (kind == CACHE_MANIFEST)
		return check_manifest(checking, digest);
	return kind == CACHE_CONFIG ? check_config(checking, digest) : check_tree(checking, kind, digest);
}

static bool is_there(Checking *checking, CacheKind kind, const Digest *digest)
{
	_cleanup_close_ int fd = -1;
	return cache_store_get(checking->cache, kind, digest, &fd) == 0;
}

/* `found` is what its check said. What somebody takes away meanwhile is no fault. */
static int judge(Checking *checking, CacheKind kind, const Digest *digest, int found)
{
	if (found == -ENOMEM)
		return found;
	if (found < 0 && !is_there(checking, kind, digest))
		return 0;
	checking->result.objects++;
	if (found == 0)
		return 0;
	tell_rotten(checking, kind, digest, 0);
	int r = kind == CACHE_MANIFEST ? digest_list_add(&checking->broken, digest) : 0;
	return r == 0 ? cache_contents_remove(checking->cache, kind, digest) : r;
}

static int check_kind(Checking *checking, CacheKind kind)
{
	_cleanup_free_ CacheObject *objects = NULL;
	size_t count = 0;
	int r = cache_contents_list(checking->cache, kind, &objects, &count);
	for (size_t i = 0; r == 0 && i < count; i++) {
		const Digest *digest = &objects[i].digest;
		r = judge(checking, kind, digest, check_object(checking, kind, digest));
		tell_progress(checking, objects[i].bytes);
	}
	return r;
}

static int check_copy(Checking *checking, const ManifestLayer *layer)
{
	int fd;
	CacheDecoded *copy;
	if (cache_store_get(checking->cache, CACHE_DECODED, &layer->diff_id, &fd) < 0)
		return 0;
	if (cache_decoded_is_place(fd)) {
		(void)close(fd);
		return 0;
	}
	int r = cache_decoded_open(fd, &layer->diff_id, layer->tar_size, &copy);
	if (r == 0) {
		r = cache_decoded_check(copy);
		(void)cache_decoded_free(copy);
		tell_progress(checking, layer->tar_size);
	}
	return judge(checking, CACHE_DECODED, &layer->diff_id, r);
}

static int check_chunks(Checking *checking, const ManifestLayer *layer, CacheBlob *blob)
{
	const ChunkTable *table = cache_blob_table(blob);
	uint64_t rotten = 0;
	for (uint32_t i = 0; i < table->count; i++) {
		if (!cache_blob_has(blob, i))
			continue;
		Chunk chunk;
		chunk_table_get(table, i, &chunk);
		checking->result.chunks++;
		rotten += cache_blob_check(blob, i, checking->frame) < 0;
		tell_progress(checking, chunk.blob_size);
	}
	if (rotten == 0)
		return 0;
	tell_rotten(checking, CACHE_BLOB, &layer->blob, rotten);
	return digest_list_add(&checking->broken, &layer->blob);
}

static int check_blob(Checking *checking, const ManifestLayer *layer, const ChunkTable *table)
{
	_cleanup_close_ int lock = -1;
	int data, present;
	CacheBlob *blob;
	Error error = { 0 };
	/* What is evicted meanwhile would look like rot. */
	int r = cache_evict_lock(checking->cache, true, &lock);
	if (r == 0)
		r = cache_store_blob(checking->cache, &layer->blob, layer->blob_size, table->count, &data, &present,
				     &error);
	if (r == 0)
		r = cache_blob_new(table, data, present, &blob);
	if (r < 0)
		return r;
	r = check_chunks(checking, layer, blob);
	(void)cache_blob_free(blob);
	return r;
}

static int check_layer(Checking *checking, const ManifestLayer *layer)
{
	_cleanup_close_ int data = -1, present = -1;
	FetchIndex index = { .fd = -1 };
	int r = check_copy(checking, layer);
	if (r < 0 || cache_store_blob_get(checking->cache, &layer->blob, &data, &present) < 0)
		return r;
	r = fetch_index_open(checking->cache, layer, &index, NULL);
	if (r < 0) {
		checking->result.unknown++;
		return r == -ENOMEM ? r : digest_list_add(&checking->broken, &layer->blob);
	}
	r = check_blob(checking, layer, &index.table);
	fetch_index_close(&index);
	return r;
}

static int compare_blobs(const void *left, const void *right)
{
	const ManifestLayer *a = left, *b = right;
	return digest_compare(&a->blob, &b->blob);
}

/* Each once, however many images have it. */
static int check_layers(Checking *checking)
{
	int r = 0;
	if (checking->layer_count > 0)
		qsort(checking->layers, checking->layer_count, sizeof(*checking->layers), compare_blobs);
	for (size_t i = 0; r == 0 && i < checking->layer_count; i++)
		if (i == 0 || !digest_equal(&checking->layers[i - 1].blob, &checking->layers[i].blob))
			r = check_layer(checking, &checking->layers[i]);
	return r;
}

static bool is_broken(const Checking *checking, const CachePin *pin)
{
	bool broken = digest_list_has(&checking->broken, &pin->manifest);
	for (size_t i = 0; !broken && i < pin->keep.count; i++)
		broken = digest_list_has(&checking->broken, &pin->keep.digests[i]);
	return broken;
}

/* A seal says that all is there. It becomes a pin: who sealed the image wants it here, and most of it still is. */
static int unseal(Checking *checking, const CachePin *pin, Error *error)
{
	int r = cache_pin_add(checking->cache, CACHE_PIN, &pin->manifest, pin->reference, error);
	if (r == 0 || r == -ENOENT)
		r = cache_pin_remove(checking->cache, CACHE_SEAL, &pin->manifest, error);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	checking->result.unsealed++;
	if (checking->options->unsealed)
		checking->options->unsealed(checking->options->arg, pin->reference, &pin->manifest);
	return 0;
}

static int check_seals(Checking *checking, Error *error)
{
	CachePin *pins = NULL;
	size_t count = 0;
	digest_list_sort(&checking->broken);
	int r = checking->broken.count > 0 ? cache_pins_list(checking->cache, &pins, &count, error) : 0;
	for (size_t i = 0; r == 0 && i < count; i++)
		if (pins[i].kind == CACHE_SEAL && is_broken(checking, &pins[i]))
			r = unseal(checking, &pins[i], error);
	cache_pins_free(pins, count);
	return r;
}

int fetch_check(CacheStore *cache, const FetchCheck *check, FetchChecked *ret_checked, Error *error)
{
	static const CacheKind kinds[] = { CACHE_MANIFEST, CACHE_CONFIG, CACHE_INDEX, CACHE_VIEW };
	_cleanup_(checking_done) Checking checking = { .cache = cache, .options = check };
	Error own = { 0 };
	checking.frame = malloc(FORMAT_FRAME_MAX);
	int r = checking.frame ? 0 : -ENOMEM;
	for (size_t i = 0; r == 0 && i < ELEMENTS(kinds); i++)
		r = check_kind(&checking, kinds[i]);
	if (r == 0)
		r = check_layers(&checking);
	if (r == 0)
		r = check_seals(&checking, &own);
	if (r < 0)
		return error_set(error, r, "the cache cannot be checked: %s", error_text(&own, r));
	*ret_checked = checking.result;
	return 0;
}
