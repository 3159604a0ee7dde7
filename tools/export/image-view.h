/* An image of the store as one merged tree whose files can be read. One owner, no locking. A zeroed one is nothing. */
#pragma once

#include <stdbool.h>

#include "fs/format/tree.h"
#include "tools/export/layer-reader.h"
#include "tools/export/store-image.h"

/* Where an index has the digest of a small file (docs/format.md section 3.1, type 10). */
typedef struct PackedDigest {
	uint64_t offset; /* of the file's data in the tar */
	const uint8_t *digest;
} PackedDigest;

typedef struct ImageViewLayer {
	LayerReader *reader;
	PackedDigest *packed; /* ascending by offset */
	size_t packed_count;
} ImageViewLayer;

typedef struct ImageView {
	ImageViewLayer *layers; /* lowest first */
	size_t layer_count;
	uint8_t *data; /* of the view */
	Image image;
	Tree tree;
} ImageView;

/*
 * Opens every layer and merges them. Blocks on the disk. Errors carry a sentence that names the blob at fault: layer_reader_open()'s,
 * -EBADMSG (also: an image without layers), -ENOMEM.
 */
int image_view_open(Store *store, const Manifest *manifest, ImageView *ret_view, Error *error) _must_check_;
void image_view_done(ImageView *view);

/* Reads [offset, offset + size) of a regular file, which must lie inside of it; holes are zeros. Errors: layer_reader_read()'s. */
int image_view_read(const ImageView *view, const TreeInode *inode, uint64_t offset, void *buffer, size_t size,
		    Error *error) _must_check_;

/* Where a regular file has data again, from `offset` on; its end where all that follows is a hole. */
uint64_t image_view_next_data(const ImageView *view, const TreeInode *inode, uint64_t offset);

/* The SHA-256 of a small regular file's content (1 to 4,095 bytes), where its index has it. Errors: -ENOENT. */
int image_view_packed(const ImageView *view, const TreeInode *inode, Digest *ret_digest) _must_check_;

/*
 * Calls `visit` for each stretch of a regular file's data that lies in its layer's tar, in order. Stops at the first return
 * other than 0, and returns that.
 */
typedef int ImageViewVisitor(void *arg, const TreeExtent *extent);
int image_view_extents(const ImageView *view, const TreeInode *inode, ImageViewVisitor *visit, void *arg) _must_check_;
