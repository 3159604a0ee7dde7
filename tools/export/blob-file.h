/* A whole layer blob in a file: its footer and index. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "fs/base/error.h"
#include "fs/format/blob.h"

/*
 * Reads footer and index of a blob of `size` bytes, verifies the index by the footer's digest and decompresses it. `ret_image` is
 * malloc'ed, the caller's. Blocks on the disk. Errors: -EBADMSG (no blob, or rotten), -EPROTONOSUPPORT, -EFBIG, -ENOMEM, read's.
 */
int blob_file_read_index(int fd, uint64_t size, BlobFooter *ret_footer, uint8_t **ret_image, size_t *ret_image_size,
			 Error *error) _must_check_;
