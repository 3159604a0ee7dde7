/*
 * Private to the room: chunks that the cache holds under another blob. Versions of an image share most frames though their blobs differ;
 * such a frame is copied on this node instead of being fetched.
 *
 * A table of twins has 8 bytes, little-endian, for each chunk of a blob: 0, or the number of the donor plus 1 in the upper 16 bits and the
 * offset of the same frame in the donor's file in the lower 48. It is a hint: what is copied is checked like what is fetched. Behind
 * it stands the table of fetch-packed.h.
 */
#pragma once

#include "fs/fetch/fetch-image.h"
#include "fs/fetch/fetch-layer.h"

#define FETCH_TWIN_SIZE        8u
#define FETCH_TWIN_OFFSET_BITS 48
#define FETCH_DONORS_MAX       64u

/*
 * Looks in the blobs of the images got last for the chunks that the layers of `image` lack; their indexes are open, their blobs too. Sets
 * donor_fds and, where a layer has twins, twins_fd. What cannot be opened or is rotten is passed over: it only costs fetches.
 */
void fetch_twins_find(CacheStore *cache, FetchIndex *indexes, FetchImage *image);
