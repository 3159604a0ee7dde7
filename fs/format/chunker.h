/*
 * Where a tar is cut into chunks: docs/format.md section 2. Pure computation, no allocation, no I/O.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Where the chunk that starts at data[0] ends, for data of a large entry. `size` bytes are at hand, and
 * `last` says that the entry's data ends with them. Returns the length of the chunk, 1 to FORMAT_CHUNK_MAX, or
 * 0 when more bytes are needed to tell (only when `last` is false and size < FORMAT_CHUNK_MAX). `size` 0 gives 0.
 */
size_t chunker_cut(const uint8_t *data, size_t size, bool last);

/*
 * Does a run of `length` bytes end before an entry whose name is `name` (bytes, not NUL-terminated) and which
 * adds `entry_length` bytes (H of docs/format.md) to it?
 */
bool chunker_run_ends(uint64_t length, uint64_t entry_length, const void *name, size_t name_length);
