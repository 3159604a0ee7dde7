#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>

#include "fs/base/fd.h"
#include "fs/mount/arguments.h"
#include "fs/mount/keeper-find.h"
#include "fs/mount/mount-table.h"
#include "fs/mount/mount.h"
#include "fs/mount/programs.h"
#include "fs/mount/upgrade-request.h"
#include "fs/mount/upgrade.h"

#define ANSWER_MS 90000 /* longer than a keeper needs to ask the program, to try the server and to go back */

/* What is held while one keeper is asked. */
typedef struct Call {
	int request_fd;
	int reply_read;
	int reply_write;
} Call;

static void call_done(Call *call)
{
	close_p(&call->request_fd);
	close_p(&call->reply_read);
	close_p(&call->reply_write);
}

static int open_call(const Programs *programs, Call *call)
{
	int reply[2];
	_cleanup_free_ char *bytes = malloc(UPGRADE_REQUEST_MAX);
	if (!bytes)
		return -ENOMEM;
	if (pipe2(reply, O_CLOEXEC) < 0)
		return -errno;
	call->reply_read = reply[0];
	call->reply_write = reply[1];
	UpgradeRequest request = { .reply_fd = reply[1], .keeper = programs->keeper, .server = programs->server };
	ssize_t size = upgrade_request_write(&request, bytes);
	if (size < 0)
		return (int)size;
	call->request_fd = memfd_create("imgfs-upgrade", MFD_CLOEXEC);
	return call->request_fd < 0 ? -errno : fd_write_all(call->request_fd, bytes, (size_t)size);
}

static int send_request(const KeeperProcess *keeper, const Call *call)
{
	siginfo_t info = { .si_signo = UPGRADE_SIGNAL, .si_code = SI_QUEUE };
	info.si_pid = getpid();
	info.si_uid = getuid();
	info.si_value.sival_int = call->request_fd;
	return pidfd_send_signal(keeper->pidfd, UPGRADE_SIGNAL, &info, 0) < 0 ? -errno : 0;
}

/* This process holds the other end of the pipe too, which the keeper has to open: the end of a keeper shows in its pidfd alone. */
static int wait_answer(const KeeperProcess *keeper, Call *call, Error *error)
{
	struct pollfd fds[] = { { .fd = call->reply_read, .events = POLLIN },
				{ .fd = keeper->pidfd, .events = POLLIN } };
	if (poll(fds, ELEMENTS(fds), ANSWER_MS) <= 0)
		return error_set(error, -ETIMEDOUT, "its " KEEPER_PROGRAM " (process %d) has not answered within %d s",
				 keeper->pid, ANSWER_MS / 1000);
	if (!(fds[0].revents & POLLIN))
		return error_set(error, -ESRCH, "its " KEEPER_PROGRAM " ended meanwhile");
	(void)close(TAKE_FD(call->reply_write)); /* a sentence ends where the pipe does */
	char sentence[sizeof(error->message)];
	int r = ready_wait(call->reply_read, sentence, sizeof(sentence));
	return r == -ECANCELED ? error_set(error, -EIO, "%s", sentence) : r;
}

int upgrade_keeper(const KeeperProcess *keeper, const Programs *programs, Error *error)
{
	if (keeper->owner != geteuid())
		return error_set(error, -EPERM, "user %u has mounted it, who alone can upgrade it", keeper->owner);
	if (!keeper->upgradable)
		return error_set(error, -EOPNOTSUPP,
				 "its " KEEPER_PROGRAM
				 " (process %d) is of a version that cannot be upgraded in place; "
				 "unmount and mount again",
				 keeper->pid);
	_cleanup_(call_done) Call call = { .request_fd = -1, .reply_read = -1, .reply_write = -1 };
	int r = open_call(programs, &call);
	if (r == 0)
		r = send_request(keeper, &call);
	if (r < 0)
		return error_set(error, r, "cannot ask its " KEEPER_PROGRAM " (process %d): %s", keeper->pid,
				 strerror(-r));
	return wait_answer(keeper, &call, error);
}

/* Those of `directory`, or all that this process can speak for. */
static int find(const char *directory, KeeperProcesses *ret_keepers, Error *error)
{
	char path[PATH_MAX];
	int r = directory ? mount_table_path(directory, path) : 0;
	if (r < 0)
		return error_set(error, r, "cannot resolve %s: %s", directory, strerror(-r));
	MountEntry entry;
	if (directory && mount_table_find(path, &entry) < 0)
		return error_set(error, -EINVAL,
				 "%s is not an imgfs mount; findmnt -t " MOUNT_TABLE_TYPE " lists those", path);
	_cleanup_(keeper_processes_done) KeeperProcesses keepers = { 0 };
	r = keeper_find(directory ? path : NULL, &keepers);
	if (r < 0)
		return error_set(error, r, "cannot look at the processes of this machine: %s", strerror(-r));
	if (directory && keepers.count == 0)
		return error_set(error, -ENOTCONN,
				 "the mount at %s has lost its " KEEPER_PROGRAM
				 "; imgfs umount takes it away, imgfs mount replaces it",
				 path);
	*ret_keepers = keepers;
	keepers = (KeeperProcesses){ 0 };
	return 0;
}

int mount_upgrade(const char *directory, pid_t except, MountUpgraded *upgraded, void *arg, Error *error)
{
	Programs programs;
	int r = programs_find(&programs, error);
	if (r < 0)
		return r;
	_cleanup_(keeper_processes_done) KeeperProcesses keepers = { 0 };
	r = find(directory, &keepers, error);
	if (r < 0)
		return r;
	int count = 0;
	for (size_t i = 0; i < keepers.count; i++) {
		const KeeperProcess *keeper = &keepers.items[i];
		if (!directory && (!keeper->here || keeper->owner != geteuid()))
			continue;
		if (keeper->pid == except)
			continue;
		Error own = { 0 };
		r = upgrade_keeper(keeper, &programs, &own);
		if (r < 0 && !own.code)
			(void)error_set(&own, r, "%s", strerror(-r));
		upgraded(arg, keeper->directory, r < 0 ? &own : NULL);
		count++;
	}
	return count;
}
