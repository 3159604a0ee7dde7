/*
 * Which file systems are mounted where: /proc/self/mountinfo (proc(5)). It is asked instead of stat(), which would wait for
 * the server of the very mount in question.
 */
#pragma once

#include "fs/base/cleanup.h"

#define MOUNT_TABLE_TYPE "fuse.imgfs"

typedef struct MountEntry {
	unsigned major, minor; /* st_dev of the mount, which also names its bdi */
} MountEntry;

/*
 * Finds the topmost mount at `directory` (absolute, without symbolic links) in the text of a mountinfo, which is
 * changed. Errors: -ENOENT (nothing is mounted there), -EINVAL (something other than imgfs).
 */
int mount_table_search(char *table, const char *directory, MountEntry *ret_entry) _must_check_;

/* The same in this process's mountinfo. Further errors: read's. */
int mount_table_find(const char *directory, MountEntry *ret_entry) _must_check_;
