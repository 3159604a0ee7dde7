/* A layer of the store, read back: its index, and any bytes of its tar, each frame checked before it is decoded. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "fs/base/error.h"
#include "fs/format/chunk-table.h"
#include "fs/format/frame.h"
#include "fs/format/manifest.h"
#include "tools/export/store.h"

/* One owner, no locking. Its users read `fd`, `layer`, `image` and `chunks`; the rest is its own. */
typedef struct LayerReader {
	int fd; /* of the blob */
	ManifestLayer layer;
	Image image; /* the index */
	ChunkTable chunks;

	uint8_t *index;
	FrameDecoder *decoder;
	uint8_t *frame;   /* FORMAT_FRAME_MAX bytes */
	uint8_t *content; /* FORMAT_CHUNK_MAX bytes: of chunk `held` */
	uint32_t held;    /* UINT32_MAX: none */
} LayerReader;

/*
 * Opens the blob that `layer` names and checks its index: digest, page sums, chunk table, and that it is this layer's. Errors carry
 * a sentence that does not name the blob: -ENOENT (the store lacks it), -EBADMSG, -EPROTONOSUPPORT, -EFBIG, -ENOMEM, read's.
 */
int layer_reader_open(Store *store, const ManifestLayer *layer, LayerReader **ret_reader, Error *error) _must_check_;
LayerReader *layer_reader_free(LayerReader *reader);
DEFINE_CLEANUP(LayerReader, layer_reader_free);

/*
 * Checks that `frame`, of chunk->blob_size bytes, is the chunk's, by its SHA-256. Errors: -EBADMSG, -ENOMEM.
 */
int layer_frame_check(const Chunk *chunk, const uint8_t *frame) _must_check_;

/*
 * Reads [offset, offset + size) of the tar, which must lie inside of it. Blocks. Errors: -EBADMSG (the sentence names blob, chunk and offset),
 * read's.
 */
int layer_reader_read(LayerReader *reader, uint64_t offset, void *buffer, size_t size, Error *error) _must_check_;

/* Says that chunk `number` is at fault; returns `code`. */
int layer_chunk_error(const LayerReader *reader, uint32_t number, int code, const char *what, Error *error);
