/* Index images of the cache, of which most users want the chunk table alone: of a million files that is a thousandth. */
#pragma once

#include "fs/base/fd.h"
#include "fs/format/image.h"

/*
 * Reads header, chunk table and page sums of an index image into memory, and checks all pages that these are on; the rest of the memory is zero. What
 * `ret_image` says of other sections is where they would be. With fd_load_part() the rest may be read into the same memory, which then has to be checked by
 * image_open(). Blocks on the disk. Errors: image_open_part()'s, read's, with a sentence.
 */
int cache_index_load(int fd, FdMap *ret_map, Image *ret_image, Error *error) _must_check_;
