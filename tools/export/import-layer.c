#include "tools/export/import-layer.h"

#include "fs/base/fd.h"

typedef struct Output {
	int fd;
	const ImportOptions *options;
} Output;

static int on_content(void *arg, const void *data, size_t size, Error *error)
{
	const Output *output = arg;
	int r = fd_write_all(output->fd, data, size);
	if (r < 0)
		return error_set(error, r, "cannot write a layer: %s", error_text(NULL, r));
	if (output->options->progress)
		output->options->progress(output->options->progress_arg, size);
	return 0;
}

int import_layer_tar(Store *store, const ManifestLayer *layer, const ImportOptions *options, int fd, Error *error)
{
	char text[DIGEST_TEXT_SIZE];
	Output output = { .fd = fd, .options = options };
	LayerStreamHooks hooks = { .content = on_content, .arg = &output };
	_cleanup_(layer_reader_free_p) LayerReader *reader = NULL;
	int r = layer_reader_open(store, layer, &reader, error);
	if (r < 0)
		return error_prefix(error, r, "store %s: blob %s", store_path(store), digest_text(&layer->blob, text));
	return layer_stream_exact(reader, &hooks, error);
}

bool import_is_first(const Manifest *manifest, size_t layer)
{
	for (size_t i = 0; i < layer; i++) {
		if (digest_equal(&manifest->layers[i].diff_id, &manifest->layers[layer].diff_id))
			return false;
	}
	return true;
}
