/* What imgfs-keeper knows of a private mount, shared by the files of that program. One thread, which owns it. */
#pragma once

#include "fs/mount/keeper-mount.h"
#include "fs/mount/keeper-server.h"

typedef struct Keeper {
	KeeperMount mount;
	KeeperServer server;
	int plan_fd;
	int ready_fd; /* to mount_image(), or to mount_upgrade() in a keeper that goes on for another; -1: answered */
} Keeper;
