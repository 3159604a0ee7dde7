#include "fs/fetch/fetch-seal.h"

#include <errno.h>

#include "fs/cache/cache-blob.h"
#include "fs/cache/cache-contents.h"
#include "fs/cache/cache-pins.h"
#include "fs/cache/cache-seal.h"
#include "fs/fetch/fetch-layer.h"
#include "fs/fetch/fetch-manifest.h"

bool fetch_layer_is_sealed(int present_fd, int seal_fd, const Digest *diff_id, uint32_t count)
{
	if (seal_fd < 0 || !cache_seal_is_valid(seal_fd, diff_id))
		return false;
	_cleanup_free_ uint8_t *bits = cache_bits_read(present_fd, count);
	for (uint32_t i = 0; bits && i < count; i++)
		if (!cache_bits_have(bits, i))
			return false;
	return bits != NULL;
}

static bool is_sealed(CacheStore *cache, const ManifestLayer *layer)
{
	FetchIndex index = { .fd = -1 };
	_cleanup_close_ int data = -1, present = -1, seal = -1;
	if (cache_store_blob_get(cache, &layer->blob, &data, &present) < 0 ||
	    cache_seal_get(cache, &layer->blob, &seal) < 0 || !cache_seal_is_valid(seal, &layer->diff_id) ||
	    fetch_index_open(cache, layer, &index, NULL) < 0)
		return false;
	bool sealed = fetch_layer_is_sealed(present, seal, &layer->diff_id, index.table.count);
	fetch_index_close(&index);
	return sealed;
}

static bool are_sealed(CacheStore *cache, const Digest *digest)
{
	_cleanup_(fetch_manifest_done) FetchManifest manifest = { 0 };
	if (fetch_manifest_cached(cache, digest, &manifest) < 0)
		return false;
	for (size_t i = 0; i < manifest.manifest.layer_count; i++)
		if (!is_sealed(cache, &manifest.manifest.layers[i]))
			return false;
	return manifest.manifest.layer_count > 0;
}

bool fetch_seal_check(CacheStore *cache, const Digest *manifest, const char *reference)
{
	if (!are_sealed(cache, manifest))
		return false;
	/* What cannot be written now is written another time. */
	if (!cache_pin_has(cache, CACHE_SEAL, manifest) &&
	    cache_pin_add(cache, CACHE_SEAL, manifest, reference, NULL) < 0)
		return true;
	return true;
}

void fetch_seals_adopt(CacheStore *cache)
{
	_cleanup_free_ CacheObject *objects = NULL;
	size_t count = 0;
	char text[DIGEST_TEXT_SIZE];
	if (cache_contents_list(cache, CACHE_MANIFEST, &objects, &count) < 0)
		return;
	for (size_t i = 0; i < count; i++)
		if (!cache_pin_has(cache, CACHE_SEAL, &objects[i].digest))
			(void)fetch_seal_check(cache, &objects[i].digest, digest_text(&objects[i].digest, text));
}

int fetch_seal_image(CacheStore *cache, const FetchImage *image, const char *reference, Error *error)
{
	for (size_t i = 0; i < image->layer_count; i++) {
		const FetchLayerFiles *files = &image->layers[i];
		int r = files->seal_fd < 0 ? -EROFS : cache_seal_write(files->seal_fd, &files->layer.diff_id);
		if (r < 0)
			return error_set(error, r, "the cache cannot be written to the disk: %s", error_text(NULL, r));
	}
	int r = cache_pin_add(cache, CACHE_SEAL, &image->manifest, reference, error);
	if (r < 0 || are_sealed(cache, &image->manifest))
		return r;
	/* Who was evicting had not seen the seals yet. Adding the pin has waited for the end of that. */
	r = fetch_seal_remove(cache, &image->manifest, error);
	return r < 0 ? r
		     : error_set(error, -EIO, "the cache has not kept all of the image; make room, or pin it first");
}

/* Does a seal among `pins`, but `own`, speak of this blob? */
static bool is_shared(const CachePin *pins, size_t count, const CachePin *own, const Digest *blob)
{
	for (size_t i = 0; i < count; i++) {
		if (&pins[i] == own || pins[i].kind != CACHE_SEAL)
			continue;
		for (size_t j = 0; j < pins[i].keep.count; j++)
			if (digest_equal(&pins[i].keep.digests[j], blob))
				return true;
	}
	return false;
}

static int clear_layers(CacheStore *cache, const CachePin *pins, size_t count, const Digest *manifest)
{
	int r = 0;
	for (size_t i = 0; i < count; i++) {
		if (pins[i].kind != CACHE_SEAL || !digest_equal(&pins[i].manifest, manifest))
			continue;
		for (size_t j = 0; r == 0 && j < pins[i].keep.count; j++) {
			_cleanup_close_ int seal = -1, present = -1;
			const Digest *blob = &pins[i].keep.digests[j]; /* or a layer, which has no such file */
			if (!is_shared(pins, count, &pins[i], blob) && cache_seal_get(cache, blob, &present) == 0)
				r = cache_seal_open(cache, blob, &seal);
			if (r == 0 && seal >= 0)
				r = cache_seal_clear(seal);
		}
	}
	return r;
}

int fetch_seal_remove(CacheStore *cache, const Digest *manifest, Error *error)
{
	CachePin *pins = NULL;
	size_t count = 0;
	int r = cache_pins_list(cache, &pins, &count, error);
	if (r < 0)
		return r;
	/* The layers first: of these the image's seal would be made again. */
	r = clear_layers(cache, pins, count, manifest);
	cache_pins_free(pins, count);
	return r < 0 ? error_set(error, r, "a seal cannot be taken back: %s", error_text(NULL, r))
		     : cache_pin_remove(cache, CACHE_SEAL, manifest, error);
}
