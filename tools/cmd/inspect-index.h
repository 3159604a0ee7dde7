/* The part of `imgfs inspect` that reads blobs and indexes. */
#pragma once

#include <stdio.h>

#include "tools/export/store.h"

/* The index image of a layer blob of the store; malloc'ed. Errors: -ENOENT, as blob_file_read_index(). */
int inspect_load_blob(Store *store, const Digest *digest, uint8_t **ret_image, size_t *ret_size, Error *error)
	_must_check_;

/* The text of the index in `name`: a digest (of the store's blob), a blob's file, or the file of an index image. */
int inspect_dump(Store *store, const char *name, FILE *output, Error *error) _must_check_;

/* The index image made from the text in file `path`. */
int inspect_load(const char *path, FILE *output, Error *error) _must_check_;
