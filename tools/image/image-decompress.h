/* A layer's tar from its compressed form: gzip (RFC 1952, also several members), zstd (RFC 8878, also several frames), or none. */
#pragma once

#include "tools/export/layer-writer.h"

typedef struct ImageDecompressor ImageDecompressor;

/* Tells the form by its first bytes. `input` (copied) is read to its end as long as the output is. One owner. Errors: -ENOMEM. */
int image_decompressor_new(const LayerSource *input, ImageDecompressor **ret_decompressor) _must_check_;
ImageDecompressor *image_decompressor_free(ImageDecompressor *decompressor);
DEFINE_CLEANUP(ImageDecompressor, image_decompressor_free);

/* The tar. Errors of its read(): -EBADMSG (damaged, cut short, something else behind its end), -ENOMEM, the input's. */
LayerSource image_decompressor_source(ImageDecompressor *decompressor);
