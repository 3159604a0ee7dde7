/* What the server asks of the kernel about processes: its own privileges, and whether a reader is being killed. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "fs/base/error.h"

/*
 * Gives up root for good, if the process has it, and ties its life to that of `keeper`, its parent. Errors: -ESRCH (the keeper
 * is gone), setresuid's and the like.
 */
int process_drop_privileges(pid_t keeper, Error *error) _must_check_;

/* Has thread `thread` a fatal signal pending? False when that cannot be told. Reads /proc. */
bool process_is_dying(pid_t thread);

/* The answer from the text of /proc/TID/status. */
bool process_status_is_dying(const char *status);
