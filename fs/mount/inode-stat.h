/* An inode of a tree as stat(2) shows it. */
#pragma once

#include <sys/stat.h>

#include "fs/format/tree.h"

/* Node ids are what FUSE calls inodes by: 1 is the root. They also serve as st_ino. */
static inline uint64_t inode_to_node(uint32_t inode)
{
	return (uint64_t)inode + 1;
}

/* Errors: -ESTALE (no such node, which only a stale file handle can ask for). */
int inode_from_node(const Tree *tree, uint64_t node, uint32_t *ret_inode) _must_check_;

/* atime and ctime are the mtime, blocks those of the data alone. */
void inode_stat(const Tree *tree, uint32_t number, const TreeInode *inode, struct stat *ret_stat);
