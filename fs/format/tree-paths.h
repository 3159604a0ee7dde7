/* From inodes back to their paths, which a tree does not keep for files. One pass over all entries, 12 bytes an inode. */
#pragma once

#include "fs/format/tree.h"

typedef struct TreePaths TreePaths;

/* The tree must outlive it. Errors: -ENOMEM. */
int tree_paths_new(const Tree *tree, TreePaths **ret_paths) _must_check_;
TreePaths *tree_paths_free(TreePaths *paths);
DEFINE_CLEANUP(TreePaths, tree_paths_free);

/*
 * The path of an inode from "/" on, malloc'ed, the caller's; of several names the first in the order of the tree. Errors: -ENOENT (no such
 * inode), -ENOMEM.
 */
int tree_paths_get(const TreePaths *paths, uint32_t inode, char **ret_path) _must_check_;

/* The inode at a path from "/" on, symbolic links not followed. Errors: -ENOENT, -ENOTDIR. */
int tree_paths_find(const Tree *tree, const char *path, uint32_t *ret_inode) _must_check_;
