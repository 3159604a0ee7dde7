/* Starting the keeper of the node daemon. Private to the room. */
#pragma once

#include "fs/mount/daemon-mounts.h"

/* Waits until nobody else starts one in this runtime directory, which is made if it is missing. Errors carry a sentence. */
int daemon_start_lock(const char *runtime, int *ret_fd, Error *error) _must_check_;

/* Takes away what a dead keeper left, and starts another; returns when its mounts answer. Under the lock. Errors carry a sentence. */
int daemon_start(const DaemonMountsOptions *options, Error *error) _must_check_;
