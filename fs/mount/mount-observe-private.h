/* Shared by the files that observe mounts; nobody else includes this. */
#pragma once

#include "fs/mount/mount-observe.h"

/* Calls each(arg, number, link) for the keeper's descriptors whose link begins and ends so, until it returns anything but 0. Errors: -EACCES, opendir's. */
typedef int MountDescriptor(void *arg, int number, const char *link);
int mount_observe_descriptors(pid_t keeper, const char *begin, const char *end, MountDescriptor *each, void *arg)
	_must_check_;

/*
 * Opens memory that the keeper shares, read-only. Only memory is opened: a file might be one that never answers. Errors: -EBADMSG (it is a file), open's.
 */
int mount_observe_memory(pid_t keeper, int number, int *ret_fd) _must_check_;

/* What is behind "imgfs:" and before the digest of a source; malloc'ed. NULL: out of memory. */
char *mount_observe_reference(const char *source);

int mount_observe_measure(MountObserved *observed) _must_check_;

/* Takes what is in `item` over on success. Errors: -ENOMEM. */
int mount_observe_add(MountsObserved *observed, const MountObserved *item) _must_check_;

/* mount-observe-daemon.c: adds the images of a keeper that has several. Errors: -ENOENT (it is none), -EACCES, -ENOMEM. */
int mount_observe_daemon(const KeeperProcess *keeper, bool measure, MountsObserved *observed) _must_check_;
