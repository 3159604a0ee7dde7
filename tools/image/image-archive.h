/* The outer tar of an image archive, member by member. */
#pragma once

#include <stdbool.h>

#include "tools/export/layer-writer.h"
#include "tools/export/tar-reader.h"

typedef struct ImageArchive ImageArchive;

/* Where the archive comes from: bytes in order, and perhaps a way to pass over some. */
typedef struct ImageArchiveInput {
	LayerSource source;
	int (*skip)(void *arg, uint64_t size, Error *error); /* with source.arg; NULL: they are read */
} ImageArchiveInput;

int image_archive_new(const ImageArchiveInput *input, ImageArchive **ret_archive) _must_check_;
ImageArchive *image_archive_free(ImageArchive *archive);
DEFINE_CLEANUP(ImageArchive, image_archive_free);

/*
 * Goes on to the next member, over what is left of this one: 1 and the member (valid until the next call), 0 at the end, when
 * the input has been read to its own end. Errors: -EBADMSG, -EOPNOTSUPP (a sparse member), -ENOMEM, the input's.
 */
int image_archive_next(ImageArchive *archive, const TarEntry **ret_entry, Error *error) _must_check_;

/* The first byte of the member's data that was not read yet: 1, 0 at its end. Errors as above. */
int image_archive_peek(ImageArchive *archive, uint8_t *ret_byte, Error *error) _must_check_;

/* The member's data, as LayerSource has it. Errors as above. */
ssize_t image_archive_read(ImageArchive *archive, void *buffer, size_t size, Error *error) _must_check_;
