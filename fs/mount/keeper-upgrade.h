/* How a keeper becomes another build of its program without letting go of the mount (docs/architecture.md, "Upgrade"). */
#pragma once

#include <signal.h>

#include "fs/mount/keeper.h"

/*
 * Does what the sender of an UPGRADE_SIGNAL asks: asks the program named whether it can go on for this one, and becomes it; the process
 * stays. Returns only when nothing has changed; the sender has then got the reason. Blocks a few seconds at most; the server goes on
 * meanwhile.
 */
void keeper_upgrade(Keeper *keeper, const siginfo_t *signal);
