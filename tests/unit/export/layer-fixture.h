/* Writes a tar's blob into memory and reads it back, checking every byte of it against the tar. */
#pragma once

#include "fs/format/buffer.h"
#include "fs/format/chunk-table.h"
#include "fs/format/tree.h"
#include "tools/export/layer-writer.h"

typedef struct Layer {
	LayerResult result;
	Buffer blob;
	uint8_t *image_data;
	size_t image_size;
	Image image;
	ChunkTable chunks;
	Tree tree;
	Error error;
} Layer;

/* How the source hands out the tar. */
typedef struct LayerFeed {
	const Buffer *tar;
	size_t at;
	size_t step;    /* bytes a read, 0: as many as asked for */
	size_t fail_at; /* -EIO from here on, unless 0 */
} LayerFeed;

ssize_t layer_feed_read(void *arg, void *buffer, size_t size, Error *error);

/* layer_write() alone; `layer` holds the sentence of a failure. */
int layer_write_tar(const Buffer *tar, const LayerOptions *options, Layer *layer);

/* Writes and opens; whatever is wrong with the blob fails the test. */
void layer_open_tar(const Buffer *tar, const LayerOptions *options, Layer *ret_layer);
void layer_done(Layer *layer);

/* The inode of a path such as "a/b" ("" is the root), symlinks not followed; false when there is none. */
bool layer_lookup(const Layer *layer, const char *path, TreeInode *ret_inode, uint32_t *ret_number);
