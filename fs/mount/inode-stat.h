/* An inode of a tree as stat(2) shows it. */
#pragma once

#include <sys/stat.h>

#include "fs/format/tree.h"

/*
 * `node` becomes st_ino; atime and ctime are the mtime, blocks those of the data alone. `tree` may be NULL for an inode that has no data.
 */
void inode_stat(const Tree *tree, uint64_t node, const TreeInode *inode, struct stat *ret_stat);
