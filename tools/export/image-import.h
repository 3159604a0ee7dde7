/* An image of the store back into a form that every engine reads: same config, same layers, bit for bit. */
#pragma once

#include <stdint.h>

#include "tools/export/layer-stream.h"
#include "tools/export/store-image.h"

typedef struct ImportOptions {
	const char *name;                            /* what the image is called there; NULL: nothing */
	void (*progress)(void *arg, uint64_t bytes); /* of the layers' tars, written since the last call; may be NULL */
	void *progress_arg;
} ImportOptions;

/*
 * Writes what `docker load` reads to `fd`, from its position on; never seeks, so a pipe will do. `name`: NAME:TAG. The same image and name give
 * the same bytes. Every byte is checked on its way; after an error, what was written is of no use. Errors: -EBADMSG, -EKEYREJECTED,
 * -ENOENT (the store is damaged; the sentence says where), -EFBIG (a layer too large for a tar), -ENOMEM, write's.
 */
int import_docker_archive(Store *store, const StoreImage *image, const ImportOptions *options, int fd, Error *error)
	_must_check_;

/*
 * Puts the image into the OCI image layout `path` (OCI image-spec 1.1, image-layout.md), which is made where nothing is; other images in it
 * stay. The manifest is the store's, byte for byte. `name`: the annotation org.opencontainers.image.ref.name; who had it before
 * loses it. One importer at a time. Errors: as above, and -EEXIST (something else is there).
 */
int import_oci_layout(Store *store, const StoreImage *image, const ImportOptions *options, const char *path,
		      Error *error) _must_check_;
