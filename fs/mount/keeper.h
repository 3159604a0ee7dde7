/* What imgfs-keeper knows of its mount, shared by the files of that program. One thread, which owns it. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "fs/mount/backoff.h"
#include "fs/mount/mount-table.h"

typedef struct Keeper {
	const char *directory;
	const char *source;
	const char *program; /* of the server */
	long read_ahead_kb;
	bool posix_acl;
	unsigned mount_flags; /* FUSE_MOUNT_* */
	int plan_fd;
	int ready_fd;   /* to mount_image(), or to mount_upgrade() in a keeper that goes on for another; -1: answered */
	int program_fd; /* of the server that is started next */
	int fuse_fd;
	int init_fd;
	int journal_fd;
	MountEntry mount;
	pid_t server; /* 0: there is none */
	int64_t server_start;
	Backoff backoff;
} Keeper;
