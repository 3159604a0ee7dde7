#include <poll.h>
#include <signal.h>
#include <sys/pidfd.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fs/mount/fuse-mount.h"
#include "fs/mount/mount-table.h"
#include "fs/mount/mount.h"

#define ANSWER_MS 2000
#define KILLED_MS 100
#define LAYERS    16 /* of dead mounts on top of each other, that are detached at once */

int mount_ask(const char *directory)
{
	pid_t pid = fork();
	if (pid == 0) {
		struct statvfs fs;
		/* Where it stays longer than this process, nobody is to wait for what it has open. */
		(void)close_range(0, ~0u, 0);
		_exit(statvfs(directory, &fs) < 0 ? errno : 0); /* fits: errno(3) */
	}
	if (pid < 0)
		return -errno;
	_cleanup_close_ int fd = pidfd_open(pid, 0);
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
	int status;
	if (fd >= 0 && poll(&poll_fd, 1, ANSWER_MS) > 0)
		return waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? -WEXITSTATUS(status) : -EIO;
	/* Of a request that the server has taken and does not answer nobody can be killed out: init will wait for that one. */
	(void)kill(pid, SIGKILL);
	(void)poll(&poll_fd, fd >= 0 ? 1 : 0, KILLED_MS);
	(void)waitpid(pid, &status, WNOHANG);
	return -ETIMEDOUT;
}

/* ECONNABORTED is what a request gets that was under way when the keeper died, ENOTCONN what follows. A mount that answers nothing at all is alive. */
static bool is_dead(const char *path)
{
	int r = mount_ask(path);
	return r == -ENOTCONN || r == -ECONNABORTED;
}

int mount_clear_dead(const char *directory, Error *error)
{
	char path[PATH_MAX];
	MountEntry entry;
	int cleared = 0;
	if (mount_table_path(directory, path) < 0)
		return 0; /* mount_check() says why */
	for (int i = 0; i < LAYERS && mount_table_find(path, &entry) == 0 && is_dead(path); i++) {
		int r = fuse_unmount(path, true, error);
		if (r < 0)
			return error_prefix(error, r, "the mount at %s has lost its keeper and is still in the way",
					    path);
		cleared = 1;
	}
	return cleared;
}
