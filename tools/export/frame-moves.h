/* What a node that has one image fetches for another: frames by their digests. One owner. A zeroed one is nothing. */
#pragma once

#include <stdbool.h>

#include "tools/export/image-view.h"

typedef struct FrameMoves {
	const ImageView *view; /* of the image that is fetched */
	bool **moves;          /* per layer, per chunk: it moves */
	uint64_t frames;       /* bytes of the chunks that move */
	uint64_t indexes;      /* bytes of the indexes that move */
	uint64_t layers;       /* bytes of the blobs of layers that the node lacks: what it would be by whole layers */
} FrameMoves;

/* A frame that occurs twice moves once. Both views must outlive it. Errors: -ENOMEM. */
int frame_moves_new(const ImageView *left, const ImageView *right, FrameMoves *ret_moves) _must_check_;
void frame_moves_done(FrameMoves *moves);

/* How much of what moves is a regular file's; chunks it shares with others count by its part of them. */
uint64_t frame_moves_of(const FrameMoves *moves, const TreeInode *inode);
