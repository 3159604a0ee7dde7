/*
 * Mounting and unmounting a FUSE file system: by mount(2) as root, otherwise through fusermount3, the set-uid program of libfuse
 * (its protocol: environment _FUSE_COMMFD, a socket that the descriptor of /dev/fuse comes back through). Links base only.
 */
#pragma once

#include <stdbool.h>

#include "fs/base/error.h"

/* Bits of the keeper's command line, too. */
enum {
	FUSE_MOUNT_ALLOW_OTHER = 1, /* for users other than the owner; root's mounts always are */
	FUSE_MOUNT_NOEXEC = 2,
	FUSE_MOUNT_SUID = 4, /* root alone may ask for these two */
	FUSE_MOUNT_DEV = 8,
	FUSE_MOUNT_FLAGS = 15,
};

/*
 * Mounts read-only on `directory` (absolute), as `source` in mountinfo, and returns the descriptor of the connection, close-on-exec;
 * FUSE_INIT is not read yet. Errors: open's and mount's; -EPERM (fusermount3 refuses; the sentence holds its words), -ENOENT (no
 * fusermount3), -EPROTO.
 */
int fuse_mount(const char *directory, const char *source, unsigned flags, int *ret_fd, Error *error) _must_check_;

/*
 * Unmounts the topmost mount there without following a symbolic link; lazily it detaches. Blocks until it is done. Errors: umount2's;
 * -EBUSY; -EPERM (fusermount3 refuses; the sentence holds its words), -ENOENT (no fusermount3).
 */
int fuse_unmount(const char *directory, bool lazy, Error *error) _must_check_;
