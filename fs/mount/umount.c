#include <dirent.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>

#include "fs/mount/arguments.h"
#include "fs/mount/fuse-mount.h"
#include "fs/mount/mount-table.h"
#include "fs/mount/mount.h"
#include "fs/mount/proc-file.h"

#define KEEPERS_MAX  16
#define WAIT_MS      5000 /* twice: before and after the keeper is told */
#define WAIT_LAZY_MS 500  /* somebody may use the mount for days */
#define COMM_MAX     64u
#define CMDLINE_MAX  ((size_t)1 << 20)

static bool is_keeper_of(const char *pid, const char *directory)
{
	char path[64];
	_cleanup_free_ char *name = NULL, *command = NULL;
	size_t size;
	(void)snprintf(path, sizeof(path), "/proc/%.16s/comm", pid);
	if (proc_file_read(path, COMM_MAX, &name, &size) < 0 || strcmp(name, KEEPER_PROGRAM "\n") != 0)
		return false;
	(void)snprintf(path, sizeof(path), "/proc/%.16s/cmdline", pid);
	if (proc_file_read(path, CMDLINE_MAX, &command, &size) < 0)
		return false;
	size_t first = strlen(command) + 1;
	return first < size && strcmp(command + first, directory) == 0;
}

/* Descriptors of the keepers of mounts at `directory`; several may lie on top of each other. */
static nfds_t find_keepers(const char *directory, struct pollfd keepers[static KEEPERS_MAX])
{
	nfds_t count = 0;
	_cleanup_closedir_ DIR *processes = opendir("/proc");
	if (!processes)
		return 0;
	for (struct dirent *entry; count < KEEPERS_MAX && (entry = readdir(processes));) {
		if (!is_keeper_of(entry->d_name, directory))
			continue;
		int fd = pidfd_open(atoi(entry->d_name), 0);
		if (fd >= 0)
			keepers[count++] = (struct pollfd){ .fd = fd, .events = POLLIN };
	}
	return count;
}

static int unmount(const char *path, bool lazy, Error *error)
{
	MountEntry entry;
	int r = mount_table_find(path, &entry);
	if (r == -ENOENT || r == -EINVAL)
		return error_set(error, -EINVAL,
				 "%s is not an imgfs mount; findmnt -t " MOUNT_TABLE_TYPE " lists those", path);
	if (r < 0)
		return error_set(error, r, "cannot unmount %s: %s", path, strerror(-r));
	r = fuse_unmount(path, lazy, error);
	return r == -EBUSY ? error_set(error, r,
				       "%s is in use (fuser -vm %s shows by whom); end those processes, or unmount "
				       "with --lazy",
				       path, path)
			   : r;
}

/* Waits until one of the keepers ends: that of the mount that lay on top. It ends after its server. */
static bool wait_keeper(struct pollfd *keepers, nfds_t count, int timeout)
{
	if (poll(keepers, count, timeout) > 0)
		return true;
	/* Those whose mount is gone kill a server that does not end by itself. */
	for (nfds_t i = 0; i < count; i++)
		(void)pidfd_send_signal(keepers[i].fd, SIGHUP, NULL, 0);
	return poll(keepers, count, timeout) > 0;
}

int mount_unmount(const char *directory, bool lazy, Error *error)
{
	char path[PATH_MAX];
	int r = mount_table_path(directory, path);
	if (r < 0)
		return error_set(error, r, "cannot resolve %s: %s", directory, strerror(-r));

	struct pollfd keepers[KEEPERS_MAX];
	nfds_t count = find_keepers(path, keepers);
	r = unmount(path, lazy, error);
	if (r == 0 && count > 0 && !wait_keeper(keepers, count, lazy ? WAIT_LAZY_MS : WAIT_MS) && !lazy)
		r = error_set(error, -ETIMEDOUT,
			      "%s is unmounted, but its " KEEPER_PROGRAM
			      " has not ended; another mount namespace may hold it",
			      path);
	for (nfds_t i = 0; i < count; i++)
		(void)close(keepers[i].fd);
	return r;
}
