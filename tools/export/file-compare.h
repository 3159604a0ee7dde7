/* Is a file of one image the same as a file of another? Digests answer where they can; only what is left is decoded. */
#pragma once

#include "tools/export/image-view.h"

typedef struct FilePair {
	const ImageView *left, *right;
	TreeInode left_inode, right_inode;
} FilePair;

/* Have two regular files the same content? 1 or 0, or an error: layer_reader_read()'s, -ENOMEM. */
int file_compare_content(const FilePair *pair, Error *error) _must_check_;

/* What differs beside the content; FILE_* of two inodes of one type. */
enum {
	FILE_MODE = 1,
	FILE_OWNER = 2,
	FILE_TIME = 4,
	FILE_XATTRS = 8,
};
unsigned file_compare_metadata(const FilePair *pair);
