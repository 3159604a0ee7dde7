/* What mount_upgrade() and daemon_mounts_upgrade() share. */
#pragma once

#include "fs/base/error.h"
#include "fs/mount/keeper-find.h"
#include "fs/mount/programs.h"

/* Has a keeper go on as these programs, and waits for its answer. Errors carry a sentence: -EPERM, -EOPNOTSUPP, -ETIMEDOUT, -ESRCH, -EIO. */
int upgrade_keeper(const KeeperProcess *keeper, const Programs *programs, Error *error) _must_check_;
