#include "fs/mount/daemon-start.h"

#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "fs/base/fd.h"
#include "fs/mount/arguments.h"
#include "fs/mount/mount-table.h"
#include "fs/mount/mount.h"
#include "fs/mount/programs.h"
#include "fs/mount/server-metrics.h"

#define READ_AHEAD_KB 512u
#define LOG_MODE      0640

/* Everything the child needs between fork() and exec(), where nothing may be allocated. */
typedef struct Launch {
	char directory[PATH_MAX]; /* of the two mounts */
	Programs programs;
	char ready_number[16], read_ahead[16], metrics_number[16];
	int null_fd, log_fd, metrics_fd;
	int ready[2];
} Launch;

int daemon_start_lock(const char *runtime, int *ret_fd, Error *error)
{
	char path[PATH_MAX];
	int r = fd_make_directories(AT_FDCWD, runtime, 0755);
	if (r < 0)
		return error_set(error, r, "cannot make %s: %s", runtime, strerror(-r));
	(void)snprintf(path, sizeof(path), "%s/keeper.lock", runtime);
	_cleanup_close_ int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || flock(fd, LOCK_EX) < 0)
		return error_set(error, -errno, "cannot lock %s: %s", path, strerror(errno));
	*ret_fd = TAKE_FD(fd);
	return 0;
}

/* Makes the directory of a mount, unless something dead is on it, and has nothing there afterwards. */
static int prepare_directory(const char *directory, const char *name, Error *error)
{
	char path[PATH_MAX];
	MountEntry entry;
	int length = snprintf(path, sizeof(path), "%s/%s", directory, name);
	if (length >= (int)sizeof(path))
		return error_set(error, -ENAMETOOLONG, "%s is too long", directory);
	int r = mount_clear_dead(path, error);
	if (r < 0)
		return r;
	if (mount_table_find(path, &entry) == 0)
		return error_set(error, -EBUSY,
				 "%s is mounted, but its keeper does not answer; end it, or unmount with imgfs umount",
				 path);
	r = fd_make_directories(AT_FDCWD, path, 0755);
	return r < 0 ? error_set(error, r, "cannot make %s: %s", path, strerror(-r)) : 0;
}

static int prepare(const DaemonMountsOptions *options, Launch *launch, Error *error)
{
	char runtime[PATH_MAX];
	int r = mount_table_path(options->runtime, runtime);
	if (r < 0)
		return error_set(error, r, "cannot resolve %s: %s", options->runtime, strerror(-r));
	if (snprintf(launch->directory, sizeof(launch->directory), "%s/fs", runtime) >= (int)sizeof(launch->directory))
		return error_set(error, -ENAMETOOLONG, "%s is too long", runtime);
	r = prepare_directory(launch->directory, "plain", error);
	if (r == 0)
		r = prepare_directory(launch->directory, "xattr", error);
	if (r == 0)
		r = programs_find(&launch->programs, error);
	if (r < 0)
		return r;
	r = server_metrics_create(&launch->metrics_fd);
	launch->null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (r < 0 || launch->null_fd < 0 || pipe2(launch->ready, O_CLOEXEC) < 0)
		return error_set(error, r < 0 ? r : -errno, "cannot open files for the keeper: %s",
				 strerror(r < 0 ? -r : errno));
	if (options->log_path)
		launch->log_fd = open(options->log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, LOG_MODE);
	if (options->log_path && launch->log_fd < 0)
		return error_set(error, -errno, "cannot open the log %s: %s", options->log_path, strerror(errno));
	(void)snprintf(launch->ready_number, sizeof(launch->ready_number), "%d", launch->ready[1]);
	(void)snprintf(launch->metrics_number, sizeof(launch->metrics_number), "%d", launch->metrics_fd);
	(void)snprintf(launch->read_ahead, sizeof(launch->read_ahead), "%u",
		       options->read_ahead_kb ? options->read_ahead_kb : READ_AHEAD_KB);
	return 0;
}

static void launch_done(Launch *launch)
{
	const int fds[] = { launch->null_fd, launch->log_fd, launch->metrics_fd, launch->ready[0], launch->ready[1] };
	for (size_t i = 0; i < ELEMENTS(fds); i++)
		close_p(&fds[i]);
}

/* In the child: only async-signal-safe calls. */
_Noreturn static void run(const Launch *launch)
{
	(void)setsid();
	(void)dup2(launch->null_fd, STDIN_FILENO);
	(void)dup2(launch->null_fd, STDOUT_FILENO);
	if (launch->log_fd >= 0)
		(void)dup2(launch->log_fd, STDERR_FILENO);
	(void)close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);
	(void)fcntl(launch->ready[1], F_SETFD, 0);
	(void)fcntl(launch->metrics_fd, F_SETFD, 0);
	const char *argv[] = {
		KEEPER_PROGRAM,     launch->directory,      "daemon", launch->programs.server, launch->ready_number,
		launch->read_ahead, launch->metrics_number, NULL
	};
	(void)execv(launch->programs.keeper, (char *const *)(uintptr_t)argv);
	static const char sentence[] = "cannot run " KEEPER_PROGRAM;
	ssize_t written = write(launch->ready[1], sentence, sizeof(sentence) - 1);
	(void)written;
	_exit(127);
}

/* The keeper is not this process's child: it goes on when that ends, and nobody has to wait for its end. */
_Noreturn static void run_detached(const Launch *launch)
{
	pid_t pid = fork();
	if (pid == 0)
		run(launch);
	_exit(pid < 0);
}

int daemon_start(const DaemonMountsOptions *options, Error *error)
{
	_cleanup_(launch_done) Launch launch = { .null_fd = -1, .log_fd = -1, .metrics_fd = -1, .ready = { -1, -1 } };
	int status = 0, r = prepare(options, &launch, error);
	if (r < 0)
		return r;
	pid_t pid = fork();
	if (pid == 0)
		run_detached(&launch);
	if (pid < 0 || waitpid(pid, &status, 0) < 0 || status != 0)
		return error_set(error, -EAGAIN, "cannot start " KEEPER_PROGRAM ": no process is to be had");
	(void)close(TAKE_FD(launch.ready[1]));
	char sentence[sizeof(error->message)];
	r = ready_wait(launch.ready[0], sentence, sizeof(sentence));
	if (r == -ECANCELED)
		return error_set(error, -EIO, "%s", sentence);
	return r < 0 ? error_set(error, -EIO, KEEPER_PROGRAM " ended before its mounts were ready") : 0;
}
