/*
 * The blob of a layer being written: chunks in, in tar order; frames out to a file in the same order, compressed by
 * several threads; then index and footer. One owner, no locking.
 */
#pragma once

#include "fs/format/chunk-table.h"
#include "tools/export/layer-tree.h"
#include "tools/export/layer-writer.h"

typedef struct LayerBlob LayerBlob;

/* `options` are copied; `fd` is borrowed. Errors: -EINVAL, -ENOMEM, -EAGAIN. */
int layer_blob_new(const LayerOptions *options, int fd, LayerBlob **ret_blob, Error *error) _must_check_;
LayerBlob *layer_blob_free(LayerBlob *blob);
DEFINE_CLEANUP(LayerBlob, layer_blob_free);

/* The next chunk, 1 to FORMAT_CHUNK_MAX bytes (copied). May block, compress and write. Errors: -EIO, -ENOMEM, write's.
 */
int layer_blob_add(LayerBlob *blob, const void *data, size_t size, Error *error) _must_check_;

/* After the last chunk: the rest of the frames, and the index of `tree` made but not written. Errors: as above, and the tree's. */
int layer_blob_seal(LayerBlob *blob, LayerTree *tree, const Digest *diff_id, uint64_t tar_size, Error *error)
	_must_check_;

/* After that, by any thread: writes index and footer; fills `ret_result` except entry_count. Errors: -ENOMEM, write's. */
int layer_blob_finish(LayerBlob *blob, LayerResult *ret_result, Error *error) _must_check_;
