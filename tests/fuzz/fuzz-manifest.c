/* Any bytes as a manifest and as an image config; a manifest that is accepted survives being written and read again. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
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
