/* Private to the room: copying frames from blobs that have them too (fetch-twins.h). */
#pragma once

#include "fs/fetch/fetch-private.h"

/*
 * Copies a chunk that is absent into the cache from the donor that has its twin, if there is one and it is sound; `frame` is scratch of
 * FORMAT_FRAME_MAX bytes. Blocks on the disk. Any thread. Returns whether the chunk is at hand now.
 */
bool fetch_donor_copy(FetchBlob *blob, uint32_t chunk, uint8_t *frame);
