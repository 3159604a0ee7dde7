/* What both forms of import share. */
#pragma once

#include "tools/export/image-import.h"

/* Writes a layer's tar to `fd`. Errors: as image-import.h. */
int import_layer_tar(Store *store, const ManifestLayer *layer, const ImportOptions *options, int fd, Error *error)
	_must_check_;

/* Is this layer of the image the first with its diffID? */
bool import_is_first(const Manifest *manifest, size_t layer);
