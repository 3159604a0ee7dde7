/* Files of /proc, whose size is not known before they are read. */
#pragma once

#include <stddef.h>

#include "fs/base/cleanup.h"

/*
 * Reads a file of at most `limit` bytes whole, with a NUL after the last byte; malloc'ed, the caller's. Errors: -EFBIG, -ENOMEM,
 * open's and read's.
 */
int proc_file_read(const char *path, size_t limit, char **ret_text, size_t *ret_size) _must_check_;
