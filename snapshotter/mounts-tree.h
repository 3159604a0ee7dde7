/* Whole trees of files: how large they are, and their removal. No symbolic link is followed, no other file system entered. */
#pragma once

#include <stdint.h>

#include "fs/base/cleanup.h"

/*
 * Bytes that the tree at `fd` (taken) has on disk, and its inodes, itself counted, hard links once. What vanishes meanwhile is left
 * out. Errors: -ENOMEM and those of reading directories.
 */
int mounts_tree_usage(int fd, int64_t *ret_size, int64_t *ret_inodes) _must_check_;

/*
 * Removes the directory `name` below `dirfd` and all that is in it, however deep. Errors: -ENOENT, -EBUSY (something is mounted in it), and those of
 * unlinkat().
 */
int mounts_tree_remove(int dirfd, const char *name) _must_check_;
