/*
 * Private to the room: small files that the cache holds under another blob. They are packed into chunks together, so that a chunk of a new
 * version is another one as soon as one of its files is; the index has a digest for each (docs/format.md, type 10). A read of such a file, whose own
 * chunk is absent, is answered from the donor's chunk that has the same file, and that content is checked by its digest.
 *
 * The table has 64 bytes for each file, little-endian, ascending by offset: where its content stands in the layer's tar (8), the number of
 * the donor plus 1 (16 bits) and the offset of the frame in it (48), the frame's length (4), the chunk's (4), where the content begins in the chunk (4), the
 * content's length (4), its SHA-256 (32).
 */
#pragma once

#include "fs/fetch/fetch-image.h"
#include "fs/fetch/fetch-layer.h"
#include "fs/fetch/fetch-private.h"
#include "fs/format/frame.h"

#define FETCH_PACKED_SIZE 64u

/* At the mount: what is looked for and what was found. One owner. */
typedef struct FetchPackedSearch FetchPackedSearch;

/*
 * Lists the packed files of the layers in chunks that are absent: `bits`, one bitmap a layer, says which are there. `indexes` stay the
 * caller's and open. Errors: -ENOMEM.
 */
int fetch_packed_search_new(FetchIndex *indexes, size_t layer_count, uint8_t *const *bits,
			    FetchPackedSearch **ret_search) _must_check_;
FetchPackedSearch *fetch_packed_search_free(FetchPackedSearch *search);

/* Enters what donor `donor` (its number plus 1) has in chunks that are there. Says whether that was anything. */
bool fetch_packed_search_enter(FetchPackedSearch *search, FetchIndex *index, const uint8_t *bits, uint64_t donor);

/* Appends the table of a layer, but for files in chunks that have a twin (`twins`, the table of fetch-twins.h, or NULL). Errors: write's, -ENOMEM. */
int fetch_packed_search_write(const FetchPackedSearch *search, uint32_t layer, const uint8_t *twins, int fd)
	_must_check_;

/* How many files of the layer have been found. */
size_t fetch_packed_search_count(const FetchPackedSearch *search, uint32_t layer);

/* In the server: takes a table over. Errors: -EBADMSG (lengths that cannot be, or out of order). */
int fetch_packed_check(const uint8_t *table, size_t count) _must_check_;

/*
 * Copies [tar_offset, tar_offset + size) to `to` if that lies in one file of the blob's table and the donor's copy of it is sound. Blocks on the
 * disk. Any thread; `decoder` and `frame` (FORMAT_FRAME_MAX) are its scratch.
 */
bool fetch_packed_read(FetchBlob *blob, FrameDecoder *decoder, uint8_t *frame, uint64_t tar_offset, uint64_t size,
		       void *to);
