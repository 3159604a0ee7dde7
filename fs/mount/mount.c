#include "fs/mount/mount.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "fs/base/fd.h"
#include "fs/mount/arguments.h"
#include "fs/mount/mount-plan.h"
#include "fs/mount/mount-table.h"
#include "fs/mount/programs.h"
#include "fs/mount/server-metrics.h"
#include "fs/mount/start-record.h"

#define READ_AHEAD_KB 512u
#define LOG_MODE      0640

/* Everything the child needs between fork() and exec(), where nothing may be allocated. */
typedef struct Launch {
	char directory[PATH_MAX];
	Programs programs;
	char plan_number[16], ready_number[16], read_ahead[16], flags[16];
	bool posix_acl;
	const char *source;
	bool foreground;
	int null_fd;
	int log_fd; /* becomes standard error; -1: it stays */
	int record_fd, metrics_fd;
	int plan_fd;
	int lock_fd;
	int ready[2];
	MountPlan plan;
} Launch;

static int check_directory(const MountOptions *options, char ret_path[static PATH_MAX], Error *error)
{
	struct stat st;
	MountEntry entry;
	int r = mount_table_path(options->directory, ret_path);
	if (r == 0 && mount_table_find(ret_path, &entry) == 0)
		return error_set(error, -EBUSY, "an image is mounted on %s; unmount it first: imgfs umount %s",
				 ret_path, ret_path);
	if (r == 0 && stat(ret_path, &st) < 0)
		r = -errno;
	if (r < 0)
		return error_set(error, r, "cannot mount on %s: %s", options->directory, strerror(-r));
	if (!S_ISDIR(st.st_mode))
		return error_set(error, -ENOTDIR, "cannot mount on %s: it is not a directory", options->directory);
	return 0;
}

int mount_check(const MountOptions *options, Error *error)
{
	Launch launch;
	int r = check_directory(options, launch.directory, error);
	return r < 0 ? r : programs_find(&launch.programs, error);
}

/*
 * The kernel stacks mounts, so that of two who look at the same time both would find nothing there. The lock is of the directory below the
 * mount, and is held until the mount table has it. -1: it cannot be opened or locked, and then it is as before.
 */
static int lock_directory(const char *path, int *ret_fd, Error *error)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	*ret_fd = -1;
	if (fd < 0)
		return 0;
	if (flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK)
		return error_set(error, -EBUSY,
				 "another mount on %s is under way, or a program holds a lock of that directory", path);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static int make_plan(const FetchImage *image, const MountOptions *options, Launch *launch, Error *error)
{
	int r = mount_plan_from_image(image, options->source, options->deadline, &launch->plan);
	if (r == 0)
		r = mount_plan_record(&launch->plan, "", image, &launch->record_fd);
	if (r == 0)
		r = server_metrics_create(&launch->metrics_fd);
	launch->plan.record_fd = launch->record_fd;
	launch->plan.metrics_fd = launch->metrics_fd;
	MountPlanUse use = {
		.no_fill = options->no_fill,
		.fill_rate = options->fill_rate,
		.cache = options->cache,
		.quota = options->quota,
	};
	if (r == 0)
		mount_plan_use(&launch->plan, image, &use);
	if (r == 0)
		r = mount_plan_write(&launch->plan, MOUNT_PLAN_NAME, &launch->plan_fd);
	return r < 0 ? error_set(error, r, "cannot write the plan of the mount: %s", strerror(-r)) : 0;
}

/* Keeper and server keep nothing of the caller's open: who reads its output to the end must not wait for the unmount. */
static int open_log(const MountOptions *options, Launch *launch, Error *error)
{
	launch->null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (launch->null_fd < 0)
		return error_set(error, -errno, "cannot open /dev/null: %s", strerror(errno));
	if (options->log_path) {
		launch->log_fd = open(options->log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, LOG_MODE);
		if (launch->log_fd < 0)
			return error_set(error, -errno, "cannot open the log %s: %s", options->log_path,
					 strerror(errno));
	} else if (!options->foreground) {
		launch->log_fd = fcntl(launch->null_fd, F_DUPFD_CLOEXEC, 3);
		if (launch->log_fd < 0)
			return error_set(error, -errno, "out of descriptors; raise the limit (ulimit -n)");
	}
	return 0;
}

static int inherit(_unused_ void *arg, int *fd)
{
	return fcntl(*fd, F_SETFD, 0) < 0 ? -errno : 0;
}

/* In the child: only async-signal-safe calls. */
_Noreturn static void run_keeper(Launch *launch)
{
	if (!launch->foreground)
		(void)setsid();
	(void)dup2(launch->null_fd, STDIN_FILENO);
	if (!launch->foreground)
		(void)dup2(launch->null_fd, STDOUT_FILENO);
	if (launch->log_fd >= 0)
		(void)dup2(launch->log_fd, STDERR_FILENO);
	(void)close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);
	(void)fcntl(launch->plan_fd, F_SETFD, 0);
	(void)fcntl(launch->ready[1], F_SETFD, 0);
	_unused_ int r = mount_plan_each(&launch->plan, inherit, NULL);
	const char *argv[] = { KEEPER_PROGRAM,      launch->directory,
			       launch->source,      launch->programs.server,
			       launch->plan_number, launch->ready_number,
			       launch->read_ahead,  launch->posix_acl ? "1" : "0",
			       launch->flags,       NULL };
	(void)execv(launch->programs.keeper, (char *const *)(uintptr_t)argv);
	static const char sentence[] = "cannot run " KEEPER_PROGRAM;
	ssize_t written = write(launch->ready[1], sentence, sizeof(sentence) - 1);
	(void)written;
	_exit(127);
}

static int prepare(const FetchImage *image, const MountOptions *options, Launch *launch, Error *error)
{
	int r = check_directory(options, launch->directory, error);
	if (r == 0)
		r = lock_directory(launch->directory, &launch->lock_fd, error);
	if (r == 0 && launch->lock_fd >= 0)
		r = check_directory(options, launch->directory, error);
	if (r == 0)
		r = programs_find(&launch->programs, error);
	if (r == 0)
		r = mount_plan_has_xattrs(image, &launch->posix_acl, error);
	if (r == 0)
		r = open_log(options, launch, error);
	if (r == 0)
		r = make_plan(image, options, launch, error);
	if (r < 0)
		return r;
	if (pipe2(launch->ready, O_CLOEXEC) < 0)
		return error_set(error, -errno, "cannot make a pipe: %s", strerror(errno));
	launch->source = options->source;
	launch->foreground = options->foreground;
	(void)snprintf(launch->plan_number, sizeof(launch->plan_number), "%d", launch->plan_fd);
	(void)snprintf(launch->ready_number, sizeof(launch->ready_number), "%d", launch->ready[1]);
	(void)snprintf(launch->read_ahead, sizeof(launch->read_ahead), "%u",
		       options->read_ahead_kb ? options->read_ahead_kb : READ_AHEAD_KB);
	(void)snprintf(launch->flags, sizeof(launch->flags), "%u", options->flags);
	return 0;
}

static void launch_done(Launch *launch)
{
	const int fds[] = { launch->null_fd, launch->log_fd,  launch->record_fd, launch->metrics_fd,
			    launch->plan_fd, launch->lock_fd, launch->ready[0],  launch->ready[1] };
	for (size_t i = 0; i < ELEMENTS(fds); i++)
		close_p(&fds[i]);
	mount_plan_done(&launch->plan);
}

static int wait_ready(Launch *launch, pid_t keeper, Error *error)
{
	(void)close(TAKE_FD(launch->ready[1]));
	char sentence[sizeof(error->message)];
	int r = ready_wait(launch->ready[0], sentence, sizeof(sentence));
	if (r == 0)
		return 0;
	int status = 0;
	(void)waitpid(keeper, &status, 0);
	if (r == -ECANCELED)
		return error_set(error, -EIO, "%s", sentence);
	return error_set(error, -EIO, KEEPER_PROGRAM " ended (wait status 0x%x) before the mount was ready", status);
}

/* Whoever ends this process ends the mount: the keeper unmounts, and this waits until it has. */
static void wait_unmounted(pid_t keeper, const sigset_t *signals)
{
	while (waitpid(keeper, NULL, WNOHANG) == 0) {
		int signal = sigwaitinfo(signals, NULL);
		if (signal == SIGTERM || signal == SIGINT || signal == SIGHUP)
			(void)kill(keeper, SIGTERM);
	}
}

static int run(Launch *launch, const MountOptions *options, const sigset_t *signals, Error *error)
{
	pid_t keeper = fork();
	if (keeper < 0)
		return error_set(error, -errno, "cannot start " KEEPER_PROGRAM ": %s", strerror(errno));
	if (keeper == 0)
		run_keeper(launch);
	int r = wait_ready(launch, keeper, error);
	if (r < 0)
		return r;
	if (launch->lock_fd >= 0)
		(void)close(TAKE_FD(launch->lock_fd));
	if (options->mounted)
		options->mounted(options->mounted_arg);
	if (options->foreground)
		wait_unmounted(keeper, signals);
	return 0;
}

int mount_image(const FetchImage *image, const MountOptions *options, Error *error)
{
	_cleanup_(launch_done) Launch launch = { .null_fd = -1,
						 .log_fd = -1,
						 .record_fd = -1,
						 .metrics_fd = -1,
						 .plan_fd = -1,
						 .lock_fd = -1,
						 .ready = { -1, -1 },
						 .plan = MOUNT_PLAN_NULL };
	int r = prepare(image, options, &launch, error);
	if (r < 0)
		return r;
	/* Blocked before the keeper exists, so that its end is not missed; the keeper blocks the same by itself. */
	sigset_t signals, before;
	(void)sigemptyset(&signals);
	(void)sigaddset(&signals, SIGCHLD);
	(void)sigaddset(&signals, SIGTERM);
	(void)sigaddset(&signals, SIGINT);
	(void)sigaddset(&signals, SIGHUP);
	if (options->foreground)
		(void)pthread_sigmask(SIG_BLOCK, &signals, &before);
	r = run(&launch, options, &signals, error);
	if (options->foreground)
		(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	return r;
}
