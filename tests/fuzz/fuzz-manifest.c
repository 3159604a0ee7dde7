/* Any bytes as a manifest and as an image config; a manifest that is accepted survives being written and read again. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fs/format/format.h"
#include "fs/format/manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_encode(const Manifest *manifest)
{
	_cleanup_(manifest_done) Manifest again = { 0 };
	_cleanup_free_ char *json = NULL;
	size_t size;
	int r = manifest_encode(manifest, &json, &size);
	assert(r == 0);
	r = manifest_parse(json, size, &again, NULL);
	assert(r == 0 && again.layer_count == manifest->layer_count);
	assert(memcmp(again.layers, manifest->layers, again.layer_count * sizeof(*again.layers)) == 0);
}

/* Whatever the source's manifest is, what is made of it is one of ours. */
static void check_encode_from(const char *source, size_t source_size)
{
	ManifestLayer layer = { .blob_size = 10000 + FORMAT_FOOTER_SIZE, .index_size = 10000 };
	const Manifest manifest = { .layer_count = 1, .layers = &layer };
	_cleanup_(manifest_done) Manifest again = { 0 };
	_cleanup_free_ char *json = NULL;
	size_t size;
	Error error;
	if (manifest_encode_from(&manifest, source, source_size, &json, &size, &error) < 0)
		return;
	int r = manifest_parse(json, size, &again, &error);
	assert(r == 0 && again.layer_count == 1);
	assert(memcmp(again.layers, &layer, sizeof(layer)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	check_encode_from((const char *)data, size);
	_cleanup_(manifest_done) Manifest manifest = { 0 };
	_cleanup_free_ Digest *diff_ids = NULL;
	size_t count;
	Error error;
	if (manifest_parse((const char *)data, size, &manifest, &error) == 0)
		check_encode(&manifest);
	int r = manifest_config_diff_ids((const char *)data, size, &diff_ids, &count, &error);
	assert(r < 0 || count <= MANIFEST_LAYERS_MAX);
	return 0;
}
