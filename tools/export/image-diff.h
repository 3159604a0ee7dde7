/* What differs between two images of a store: in their merged trees, and in what an update from one to the other moves. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/base/error.h"
#include "tools/export/file-compare.h"
#include "tools/export/store-image.h"
#include "tools/export/zip-list.h"

typedef enum DiffKind {
	DIFF_ADDED,
	DIFF_REMOVED,
	DIFF_CHANGED,  /* content, target, device or type */
	DIFF_METADATA, /* nothing but mode, owner, time, xattrs */
	DIFF_SAME,     /* nothing at all, and yet bytes move for it */
} DiffKind;

typedef struct DiffEntry {
	char *path; /* without a leading "/"; "" is the root */
	DiffKind kind;
	uint32_t mode;     /* as in the second image; as in the first where it is removed */
	uint64_t old_size; /* of a regular file; else 0 */
	uint64_t new_size;
	uint64_t moved;  /* bytes that move for it */
	uint64_t wasted; /* of these, for nothing: its content is the same, or its zip archive's for the most part */
	unsigned fields; /* FILE_* that differ */
	bool is_zip;     /* both are zip archives, of different bytes: `zip` tells more */
	ZipDifference zip;
} DiffEntry;

typedef struct ImageDiff {
	DiffEntry *entries; /* what moves most first, then by path */
	size_t count, capacity;
	uint64_t frames;    /* bytes that move: frames that the first image lacks */
	uint64_t indexes;   /* indexes of layers it lacks */
	uint64_t documents; /* manifest and config */
	uint64_t other;     /* of the frames: for no file in sight, such as headers of the tar */
	uint64_t layers;    /* what would move by whole blobs of layers it lacks */
	uint64_t wasted;    /* of the frames: for nothing */
} ImageDiff;

void image_diff_done(ImageDiff *diff); /* safe on a zeroed one */

/*
 * Compares two images. Content is compared by digests where they tell, and decoded otherwise. Blocks on the disk. Errors carry a sentence:
 * as image_view_open(), layer_reader_read(); -ENAMETOOLONG (a path above FORMAT_TARGET_MAX bytes), -ENOMEM.
 */
int image_diff(Store *store, const StoreImage *left, const StoreImage *right, ImageDiff *ret_diff, Error *error)
	_must_check_;
