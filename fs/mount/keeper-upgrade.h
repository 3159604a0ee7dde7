/* How a keeper becomes another build of its program without letting go of the mount (docs/architecture.md, "Upgrade"). */
#pragma once

#include <signal.h>

#include "fs/mount/keeper.h"
#include "fs/mount/upgrade-request.h"

/*
 * Does what the sender of an UPGRADE_SIGNAL asks: asks the program named whether it can go on for this one, and becomes it; the process
 * stays. Returns only when nothing has changed; the sender has then got the reason. Blocks a few seconds at most; the server goes on
 * meanwhile.
 */
void keeper_upgrade(Keeper *keeper, const siginfo_t *signal);

/* The parts of it. What the sender `pid` asks by its descriptor `number`, and the pipe for the answer. Errors: -EBADMSG, open's. */
int keeper_upgrade_read(pid_t pid, int number, char bytes[static UPGRADE_REQUEST_MAX], UpgradeRequest *ret_request,
			int *ret_reply_fd) _must_check_;

/* Can these programs go on for this one? Errors carry a sentence. */
int keeper_upgrade_check(const UpgradeRequest *request, Error *error) _must_check_;
