/* Finding keepers among the processes of this machine. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "fs/base/cleanup.h"

/* A keeper; pidfd keeps its number from meaning another process. */
typedef struct KeeperProcess {
	pid_t pid;
	pid_t parent;
	int pidfd;
	char *directory; /* as mountinfo shows it */
	uid_t owner;     /* real and effective: nobody has started it with the rights of another */
	gid_t group;
	bool upgradable; /* it waits for UPGRADE_SIGNAL, which would end one that does not know it */
	bool here;       /* in the mount namespace of the caller */
} KeeperProcess;

typedef struct KeeperProcesses {
	KeeperProcess *items;
	size_t count;
} KeeperProcesses;

void keeper_processes_done(KeeperProcesses *keepers); /* safe on a zeroed one */

/*
 * The keepers of mounts at `directory`, of which several may lie on top of each other; NULL: all. Processes that are ending or that
 * cannot be looked at are left out. Errors: -ENOMEM, opendir's.
 */
int keeper_find(const char *directory, KeeperProcesses *ret_keepers) _must_check_;

/* What of a keeper the text of its /proc/PID/status tells. Errors: -EBADMSG (also of a process that cannot be one). */
int keeper_status_parse(const char *status, KeeperProcess *keeper) _must_check_;
