/* What the files of the layer tree share. Belongs to no one else. */
#pragma once

#include "tools/export/layer-names.h"
#include "tools/export/layer-tree.h"

#define LAYER_ROOT 0u
#define LAYER_NONE UINT32_MAX

/*
 * An inode in the making. Its `data` is, for a symlink or lower hard link, the offset of the target in the strings, and
 * `count` the target's length; for a sparse file, the first of `count` extents; `xattr` is a set + 1. A directory's
 * number is above its parent's.
 */
typedef struct LayerNode {
	TreeInode inode;
	uint32_t own_name; /* of a directory but the root: the name that was made for it */
	uint32_t digest;   /* of a small file: its place among the digests */
} LayerNode;

typedef struct LayerXattr {
	uint32_t name, name_size;
	uint32_t value, value_size;
} LayerXattr;

typedef struct LayerXattrSet {
	uint32_t first, count;
} LayerXattrSet;

struct LayerTree {
	LayerNames names;
	LayerNode *nodes;
	uint32_t node_count, node_capacity;
	Buffer extents; /* TreeExtent */
	Buffer xattrs;  /* LayerXattr */
	Buffer sets;    /* LayerXattrSet */
	Buffer digests; /* Digest */
	Buffer lower;   /* uint32_t: nodes of hard links whose target was not there */
};

/* The next component of a path, "." left out; size 0 at the end. Moves `*path` behind it. */
TreeString layer_path_next(const char **path);

/*
 * Goes from the root to the directory that a path's last component is in, following symlinks. The component points into
 * `path`, and is empty when the path is the root. With `create`, what is missing is made. Errors: -ENOENT (not
 * `create`: it is not there), -EBADMSG (a symlink that leads nowhere; the sentence says so), -ENOMEM, -EFBIG.
 */
int layer_path_walk(LayerTree *tree, const char *path, bool create, uint32_t *ret_directory, TreeString *ret_last,
		    Error *error) _must_check_;

/* The node that a path names, its last component not followed. Errors: -ENOENT, -ENOMEM. */
int layer_path_find(LayerTree *tree, const char *path, uint32_t *ret_node) _must_check_;

/* A new node, valid until the next one. Errors: -ENOMEM, -EFBIG. */
int layer_node_new(LayerTree *tree, uint32_t *ret_node) _must_check_;

/* A new directory, implied until its entry comes, in place of whatever had the name. Errors: -ENOMEM, -EFBIG. */
int layer_node_new_directory(LayerTree *tree, uint32_t parent, TreeString name, uint32_t *ret_node) _must_check_;

static inline TreeString layer_node_target(const LayerTree *tree, const LayerNode *node)
{
	return layer_names_string(&tree->names, (uint32_t)node->inode.data, node->inode.count);
}
