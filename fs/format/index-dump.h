/*
 * An index or view as text and back, to look at one, compare two, or make one by hand (docs/format.md section 4).
 * Images imgfs wrote come back byte for byte.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "fs/base/error.h"
#include "fs/format/image.h"

/*
 * Writes the text of `image`, whose tree and chunk table it validates first. Blocks as `file` does.
 * Errors: -EBADMSG, -ENOMEM, or the stream's.
 */
int index_dump_write(const Image *image, FILE *file) _must_check_;

/*
 * Rebuilds the image from its text, up to the end of `file`, and validates it as a reader would. `ret_image` is
 * malloc'ed, the caller's. Errors: -EBADMSG (the sentence names the line), -EFBIG, -ENOMEM, or the stream's.
 */
int index_dump_read(FILE *file, uint8_t **ret_image, size_t *ret_size, Error *error) _must_check_;
