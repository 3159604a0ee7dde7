#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>

#include "fs/mount/arguments.h"
#include "fs/mount/fuse-mount.h"
#include "fs/mount/keeper-find.h"
#include "fs/mount/mount-table.h"
#include "fs/mount/mount.h"

#define WAIT_MS      5000 /* twice: before and after the keeper is told */
#define WAIT_LAZY_MS 500  /* somebody may use the mount for days */

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
static int wait_keeper(const KeeperProcesses *keepers, int timeout)
{
	_cleanup_free_ struct pollfd *fds = calloc(keepers->count + 1, sizeof(*fds));
	if (!fds)
		return -ENOMEM;
	for (size_t i = 0; i < keepers->count; i++)
		fds[i] = (struct pollfd){ .fd = keepers->items[i].pidfd, .events = POLLIN };
	if (poll(fds, keepers->count, timeout) > 0)
		return 0;
	/* Those whose mount is gone kill a server that does not end by itself. */
	for (size_t i = 0; i < keepers->count; i++)
		(void)pidfd_send_signal(fds[i].fd, SIGHUP, NULL, 0);
	return poll(fds, keepers->count, timeout) > 0 ? 0 : -ETIMEDOUT;
}

int mount_unmount(const char *directory, bool lazy, Error *error)
{
	char path[PATH_MAX];
	int r = mount_table_path(directory, path);
	if (r < 0)
		return error_set(error, r, "cannot resolve %s: %s", directory, strerror(-r));

	_cleanup_(keeper_processes_done) KeeperProcesses keepers = { 0 };
	r = keeper_find(path, &keepers);
	if (r < 0)
		return error_set(error, r, "cannot look at the processes of this machine: %s", strerror(-r));
	r = unmount(path, lazy, error);
	/* A mount that has lost its keeper has nobody to wait for. */
	if (r < 0 || keepers.count == 0 || wait_keeper(&keepers, lazy ? WAIT_LAZY_MS : WAIT_MS) == 0 || lazy)
		return r;
	return error_set(error, -ETIMEDOUT,
			 "%s is unmounted, but its " KEEPER_PROGRAM " has not ended; an overlay on it or another mount "
			 "namespace may hold it",
			 path);
}
