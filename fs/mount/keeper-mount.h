/*
 * A mount that a keeper holds: its connection, its FUSE_INIT, its journal. Private to imgfs-keeper. One thread owns it.
 */
#pragma once

#include <stdbool.h>

#include "fs/base/error.h"
#include "fs/mount/mount-table.h"

typedef struct KeeperMount {
	const char *directory;
	const char *source;
	long read_ahead_kb;
	unsigned flags;     /* FUSE_MOUNT_* */
	unsigned handshake; /* HANDSHAKE_* */
	int fuse_fd;
	int init_fd; /* a sealed memfd: servers read it, and none can change it for those after it */
	int journal_fd;
	MountEntry entry;
} KeeperMount;

/* Mounts, and answers FUSE_INIT. The caller unmounts when something later fails, and also after an error of this. */
int keeper_mount_make(KeeperMount *mount, Error *error) _must_check_;

/* Writes the read-ahead to the bdi, which root alone may; asks nobody, but only once a server answers. */
void keeper_mount_set_read_ahead(const KeeperMount *mount);

/* The kernel flags the descriptor once the file system is unmounted everywhere, or its connection aborted. */
bool keeper_mount_is_gone(const KeeperMount *mount);

/* Lazily, so that it succeeds whoever uses the mount; the server goes on for those until they are done. */
void keeper_mount_unmount(const KeeperMount *mount);

/* Writes a short value to a file of /proc or /sys. Errors: open's and write's. */
int keeper_write_setting(const char *path, const char *value) _must_check_;
