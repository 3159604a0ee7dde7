/*
 * The command line of imgfs-keeper. It has two forms: one starts a mount, the other goes on with a mount whose keeper has replaced
 * itself by another build of the program (keeper-upgrade.h); its descriptors and its server are then those of the old one.
 */
#pragma once

#include "fs/mount/arguments.h"
#include "fs/mount/keeper.h"

/* Counts changes of the second form, and of what keeper-daemon-state.c writes. */
#define KEEPER_STATE_VERSION 3

/* Asked for instead of a mount: prints keeper_state_text(), by which two builds know whether one can go on for the other. */
#define KEEPER_STATE_OPTION "--state-version"

#define KEEPER_ARGUMENTS_START  9
#define KEEPER_ARGUMENTS_RESUME 18
#define KEEPER_NUMBERS          13 /* the arguments of the second form that are numbers */

/* What a keeper and its server pass on to their successors, a line: the versions of its arguments, the journal and the plan. */
const char *keeper_state_text(void);

/* The second form. `server_program` is the successor's. All it points to are the keeper, these and `numbers`. */
typedef struct KeeperArguments {
	char numbers[KEEPER_NUMBERS][16];
	const char *argv[KEEPER_ARGUMENTS_RESUME + 1];
} KeeperArguments;
void keeper_state_write(const Keeper *keeper, const char *server_program, KeeperArguments *ret_arguments);

/*
 * Reads either form; the strings stay the caller's. Descriptors that the form does not name become -1. Errors: -EINVAL (neither
 * form, or one of another version).
 */
int keeper_state_read(int argc, char **argv, Keeper *ret_keeper, bool *ret_resumes) _must_check_;
