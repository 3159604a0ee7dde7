/*
 * Which file systems are mounted where: /proc/self/mountinfo (proc(5)). It is asked instead of stat(), which would wait for
 * the server of the very mount in question.
 */
#pragma once

#include <limits.h>

#include "fs/base/cleanup.h"

#define MOUNT_TABLE_TYPE   "fuse.imgfs"
#define MOUNT_TABLE_DAEMON "imgfsd:" /* begins the source of all mounts of the node daemon */
#define MOUNT_SOURCE_MAX   1024u
#define MOUNT_ROOT_MAX     255u

typedef struct MountEntry {
	unsigned major, minor; /* st_dev of the mount, which also names its bdi */
	char root[MOUNT_ROOT_MAX +
		  1]; /* what of the file system is seen here: "/", or less by a bind mount; cut likewise */
	char source[MOUNT_SOURCE_MAX + 1]; /* cut where it is longer */
} MountEntry;

/*
 * Finds the topmost mount at `directory` (absolute, without symbolic links) in the text of a mountinfo, which is
 * changed. Errors: -ENOENT (nothing is mounted there), -EINVAL (something other than imgfs).
 */
int mount_table_search(char *table, const char *directory, MountEntry *ret_entry) _must_check_;

/* The same in this process's mountinfo. Further errors: read's. */
int mount_table_find(const char *directory, MountEntry *ret_entry) _must_check_;

/* Calls each(arg, source) for every mount of imgfs that this process sees, until that fails. Errors: each's, read's. */
int mount_table_each(int (*each)(void *arg, const char *source), void *arg) _must_check_;

/*
 * The absolute path of a directory as mountinfo shows it, without symbolic links. What is mounted there is not looked at:
 * its server may be the very thing that does not answer. Errors: realpath's.
 */
int mount_table_path(const char *directory, char ret_path[static PATH_MAX]) _must_check_;
