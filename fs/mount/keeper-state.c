#include "fs/mount/keeper-state.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "fs/mount/fuse-mount.h"
#include "fs/mount/handshake.h"
#include "fs/mount/journal.h"
#include "fs/mount/mount-plan.h"

#define RESUME "resume"

#define TEXT(number)  TEXT_(number)
#define TEXT_(number) #number

const char *keeper_state_text(void)
{
	return KEEPER_PROGRAM " state " TEXT(KEEPER_STATE_VERSION) " journal " TEXT(JOURNAL_VERSION) " plan " TEXT(
		MOUNT_PLAN_VERSION) "\n";
}

void keeper_state_write(const Keeper *keeper, const char *server_program, KeeperArguments *ret_arguments)
{
	const long numbers[KEEPER_NUMBERS] = {
		keeper->plan_fd,         keeper->ready_fd,          keeper->mount.read_ahead_kb,
		keeper->mount.handshake, keeper->mount.flags,       keeper->mount.fuse_fd,
		keeper->mount.init_fd,   keeper->mount.journal_fd,  keeper->server.program_fd,
		keeper->server.pid,      keeper->mount.entry.major, keeper->mount.entry.minor,
		KEEPER_STATE_VERSION,
	};
	KeeperArguments *to = ret_arguments;
	for (size_t i = 0; i < KEEPER_NUMBERS; i++)
		(void)snprintf(to->numbers[i], sizeof(to->numbers[i]), "%ld", numbers[i]);
	size_t at = 0;
	to->argv[at++] = KEEPER_PROGRAM;
	to->argv[at++] = keeper->mount.directory; /* where mount_unmount() looks for it */
	to->argv[at++] = keeper->mount.source;
	to->argv[at++] = server_program;
	for (size_t i = 0; i < KEEPER_NUMBERS; i++) {
		to->argv[at++] = to->numbers[i];
		if (at == KEEPER_ARGUMENTS_START)
			to->argv[at++] = RESUME;
	}
	to->argv[at] = NULL;
}

static bool read_numbers(char **argv, size_t count, long *ret_numbers)
{
	for (size_t i = 0; i < count; i++) {
		if (!argument_number(argv[i], INT_MAX, &ret_numbers[i]))
			return false;
	}
	return true;
}

static int read_resume(char **argv, Keeper *keeper)
{
	long numbers[KEEPER_ARGUMENTS_RESUME - KEEPER_ARGUMENTS_START - 1];
	if (strcmp(argv[KEEPER_ARGUMENTS_START], RESUME) != 0 ||
	    !read_numbers(argv + KEEPER_ARGUMENTS_START + 1, ELEMENTS(numbers), numbers) ||
	    numbers[7] != KEEPER_STATE_VERSION)
		return -EINVAL;
	keeper->mount.fuse_fd = (int)numbers[0];
	keeper->mount.init_fd = (int)numbers[1];
	keeper->mount.journal_fd = (int)numbers[2];
	keeper->server.program_fd = (int)numbers[3];
	keeper->server.pid = (pid_t)numbers[4];
	keeper->mount.entry = (MountEntry){ .major = (unsigned)numbers[5], .minor = (unsigned)numbers[6] };
	return 0;
}

int keeper_state_read(int argc, char **argv, Keeper *ret_keeper, bool *ret_resumes)
{
	long numbers[5];
	bool resumes = argc == KEEPER_ARGUMENTS_RESUME;
	if ((argc != KEEPER_ARGUMENTS_START && !resumes) || !read_numbers(argv + 4, ELEMENTS(numbers), numbers) ||
	    numbers[3] > HANDSHAKE_POSIX_ACL || numbers[4] > FUSE_MOUNT_FLAGS)
		return -EINVAL;
	Keeper keeper = {
		.mount = {
			.directory = argv[1],
			.source = argv[2],
			.read_ahead_kb = numbers[2],
			.handshake = (unsigned)numbers[3],
			.flags = (unsigned)numbers[4],
			.fuse_fd = -1,
			.init_fd = -1,
			.journal_fd = -1,
		},
		.server = { .program = argv[3], .program_fd = -1 },
		.plan_fd = (int)numbers[0],
		.ready_fd = (int)numbers[1],
	};
	if (resumes && read_resume(argv, &keeper) < 0)
		return -EINVAL;
	*ret_keeper = keeper;
	*ret_resumes = resumes;
	return 0;
}
