#include "fs/mount/keeper-find.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/pidfd.h>

#include "fs/mount/arguments.h"
#include "fs/mount/proc-file.h"
#include "fs/mount/upgrade-request.h"

#define COMM_MAX    64u
#define CMDLINE_MAX ((size_t)1 << 20)
#define STATUS_MAX  65536u

static void keeper_process_done(KeeperProcess *keeper)
{
	if (keeper->pidfd >= 0)
		(void)close(keeper->pidfd);
	free(keeper->directory);
}

void keeper_processes_done(KeeperProcesses *keepers)
{
	for (size_t i = 0; i < keepers->count; i++)
		keeper_process_done(&keepers->items[i]);
	free(keepers->items);
	*keepers = (KeeperProcesses){ 0 };
}

static int read_of(pid_t pid, const char *name, size_t limit, char **ret_text, size_t *ret_size)
{
	char path[64];
	(void)snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	return proc_file_read(path, limit, ret_text, ret_size);
}

/*
 * Fields of proc(5): "Uid:" with the real one and the effective one, which differ in a program that somebody else has started and not in a keeper; "Gid:"
 * likewise; two others with a bit a signal, the first being 1. Those that
 * a process waits for in sigwaitinfo() are not blocked meanwhile, which is why a keeper has a handler that is never called.
 */
int keeper_status_parse(const char *status, KeeperProcess *keeper)
{
	const char *parent = strstr(status, "\nPPid:"), *uid = strstr(status, "\nUid:");
	const char *gid = strstr(status, "\nGid:");
	const char *blocked = strstr(status, "\nSigBlk:"), *caught = strstr(status, "\nSigCgt:");
	KeeperProcess found = *keeper;
	uint64_t masks[2];
	uid_t user;
	gid_t group;
	if (!parent || sscanf(parent + 1, "PPid: %d", &found.parent) != 1)
		return -EBADMSG;
	if (!uid || sscanf(uid + 1, "Uid: %u %u", &user, &found.owner) != 2 || user != found.owner)
		return -EBADMSG;
	if (!gid || sscanf(gid + 1, "Gid: %u %u", &group, &found.group) != 2 || group != found.group)
		return -EBADMSG;
	if (!blocked || sscanf(blocked + 1, "SigBlk: %" SCNx64, &masks[0]) != 1)
		return -EBADMSG;
	if (!caught || sscanf(caught + 1, "SigCgt: %" SCNx64, &masks[1]) != 1)
		return -EBADMSG;
	found.upgradable = (masks[0] | masks[1]) & UINT64_C(1) << (UPGRADE_SIGNAL - 1);
	*keeper = found;
	return 0;
}

static bool is_in_namespace(pid_t pid)
{
	char path[64], own[64], other[64];
	(void)snprintf(path, sizeof(path), "/proc/%d/ns/mnt", pid);
	ssize_t own_size = readlink("/proc/self/ns/mnt", own, sizeof(own));
	ssize_t other_size = readlink(path, other, sizeof(other));
	return own_size > 0 && own_size == other_size && memcmp(own, other, (size_t)own_size) == 0;
}

/* Its second word is the directory. */
static int read_directory(pid_t pid, char **ret_directory)
{
	_cleanup_free_ char *command = NULL;
	size_t size;
	int r = read_of(pid, "cmdline", CMDLINE_MAX, &command, &size);
	if (r < 0)
		return r;
	size_t first = strlen(command) + 1;
	if (first >= size || command[first] != '/')
		return -EBADMSG;
	*ret_directory = strdup(command + first);
	return *ret_directory ? 0 : -ENOMEM;
}

static int look_at(pid_t pid, KeeperProcess *keeper)
{
	_cleanup_free_ char *name = NULL, *status = NULL;
	size_t size;
	int r = read_of(pid, "comm", COMM_MAX, &name, &size);
	if (r == 0 && strcmp(name, KEEPER_PROGRAM "\n") != 0)
		r = -ESRCH;
	if (r == 0)
		r = read_of(pid, "status", STATUS_MAX, &status, &size);
	if (r == 0)
		r = keeper_status_parse(status, keeper);
	if (r == 0)
		r = read_directory(pid, &keeper->directory);
	if (r == 0)
		keeper->here = is_in_namespace(pid);
	return r;
}

static int add(KeeperProcesses *keepers, const KeeperProcess *keeper)
{
	KeeperProcess *larger = reallocarray(keepers->items, keepers->count + 1, sizeof(*larger));
	if (!larger)
		return -ENOMEM;
	keepers->items = larger;
	keepers->items[keepers->count++] = *keeper;
	return 0;
}

/* The descriptor comes first: what is read afterwards is of the process it stands for, if that still lives then. */
static int consider(pid_t pid, const char *directory, KeeperProcesses *keepers)
{
	KeeperProcess keeper = { .pid = pid, .pidfd = pidfd_open(pid, 0) };
	if (keeper.pidfd < 0)
		return 0;
	int r = look_at(pid, &keeper);
	bool wanted = r == 0 && (!directory || strcmp(keeper.directory, directory) == 0) &&
		      (pidfd_send_signal(keeper.pidfd, 0, NULL, 0) == 0 || errno != ESRCH);
	if (wanted)
		r = add(keepers, &keeper);
	if (!wanted || r < 0)
		keeper_process_done(&keeper);
	return r == -ENOMEM ? r : 0;
}

static bool has_parent(const KeeperProcesses *keepers, const KeeperProcess *keeper)
{
	for (size_t i = 0; i < keepers->count; i++) {
		if (keepers->items[i].pid == keeper->parent)
			return true;
	}
	return false;
}

/* A child of a keeper looks like it until it has become the server, or the program that is asked for its version. */
static void drop_children(KeeperProcesses *keepers)
{
	for (size_t i = 0; i < keepers->count;) {
		if (!has_parent(keepers, &keepers->items[i])) {
			i++;
			continue;
		}
		keeper_process_done(&keepers->items[i]);
		keepers->items[i] = keepers->items[--keepers->count];
	}
}

int keeper_find(const char *directory, KeeperProcesses *ret_keepers)
{
	_cleanup_closedir_ DIR *processes = opendir("/proc");
	if (!processes)
		return -errno;
	_cleanup_(keeper_processes_done) KeeperProcesses keepers = { 0 };
	for (struct dirent *entry; (entry = readdir(processes));) {
		int r = isdigit((unsigned char)entry->d_name[0]) ? consider(atoi(entry->d_name), directory, &keepers)
								 : 0;
		if (r < 0)
			return r;
	}
	drop_children(&keepers);
	*ret_keepers = keepers;
	keepers = (KeeperProcesses){ 0 };
	return 0;
}
