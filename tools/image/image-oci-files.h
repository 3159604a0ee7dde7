/* The files of an OCI image layout, in a directory or in a tar. */
#pragma once

#include "tools/image/image-source.h"

typedef struct ImageOciFiles ImageOciFiles;

/* A layout that is a directory. Errors: open's. */
int image_oci_files_directory(const char *path, ImageOciFiles **ret_files, Error *error) _must_check_;

/*
 * A layout in a tar, read from `fd` (borrowed, needed for the call only where it has to be copied). One that is compressed, or is
 * no regular file, is copied into an unnamed file in $TMPDIR (/var/tmp) first, as its index may stand behind all else; `sink` hears of
 * that. Errors: -EBADMSG (no tar), read's, those of the temporary file.
 */
int image_oci_files_archive(int fd, const ImageSink *sink, ImageOciFiles **ret_files, Error *error) _must_check_;

ImageOciFiles *image_oci_files_free(ImageOciFiles *files);
DEFINE_CLEANUP(ImageOciFiles, image_oci_files_free);

/* Where a file's bytes are. `ret_fd` is the caller's to close, and no file position of it may be used. Errors: -ENOENT, open's. */
int image_oci_files_open(const ImageOciFiles *files, const char *name, int *ret_fd, uint64_t *ret_offset,
			 uint64_t *ret_size) _must_check_;

/* A small file whole, with a NUL behind it; malloc'ed. Errors: -ENOENT, -EFBIG above `limit`, -ENOMEM, read's. */
int image_oci_files_read(const ImageOciFiles *files, const char *name, size_t limit, char **ret_data, size_t *ret_size)
	_must_check_;
