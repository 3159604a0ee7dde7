/*
 * imgfs-keeper: mounts, answers FUSE_INIT, and from then on does one thing: it starts a server whenever there is none. It
 * holds the FUSE descriptor and the journal, which must outlive every server, so it stays small, reads nothing from
 * outside and links neither network nor cryptography.
 */
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "fs/base/error.h"
#include "fs/base/fd.h"
#include "fs/base/log.h"
#include "fs/mount/arguments.h"
#include "fs/mount/fuse-mount.h"
#include "fs/mount/keeper-daemon.h"
#include "fs/mount/keeper-state.h"
#include "fs/mount/keeper-upgrade.h"
#include "fs/mount/upgrade-request.h"

#define READY_MS    30000 /* a new server that takes longer is no better than the old one */
#define KILLS_MAX   16    /* of servers that were not ready yet, before one is doubted */
#define OOM_SETTING "/proc/self/oom_score_adj"
#define OOM_KEEPER  "-999" /* without its keeper a mount is gone for good */

static int start_server(Keeper *keeper, int ready_fd)
{
	const KeeperMount *mount = &keeper->mount;
	const int values[] = { mount->fuse_fd, mount->init_fd, mount->journal_fd, keeper->plan_fd, getpid(), ready_fd };
	const int fds[] = { mount->fuse_fd, mount->init_fd, mount->journal_fd, ready_fd };
	char numbers[ELEMENTS(values)][16];
	const char *words[ELEMENTS(values)];
	for (size_t i = 0; i < ELEMENTS(values); i++) {
		(void)snprintf(numbers[i], sizeof(numbers[i]), "%d", values[i]);
		words[i] = numbers[i];
	}
	size_t absent = ready_fd < 0;
	return keeper_server_start(&keeper->server, words, ELEMENTS(words) - absent, fds, ELEMENTS(fds) - absent);
}

static bool is_readable(int fd, int timeout)
{
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
	return poll(&poll_fd, 1, timeout) > 0;
}

/* Notes how a server ended that was to be ready first. -EINTR: somebody killed it, which says nothing about the program. */
static int unready_error(Keeper *keeper, Error *error)
{
	int status = 0;
	(void)waitpid(keeper->server.pid, &status, 0);
	keeper->server.pid = 0;
	char end[KEEPER_END_MAX];
	keeper_server_describe(status, end);
	int code = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL ? -EINTR : -EIO;
	return error_set(error, code, "%s ended with %s before it was ready", keeper->server.program, end);
}

/*
 * Starts a server and waits until it is ready; a negative `timeout` (milliseconds) is for ever. The first one has to come up, or the
 * mount has failed.
 */
static int start_ready(Keeper *keeper, int timeout, Error *error)
{
	int ready[2];
	if (pipe2(ready, O_CLOEXEC) < 0)
		return error_set(error, -errno, "cannot make a pipe: %s", strerror(errno));
	int r = start_server(keeper, ready[1]);
	(void)close(ready[1]);
	_cleanup_close_ int fd = ready[0];
	if (r < 0)
		return error_set(error, r, "cannot start %s: %s", keeper->server.program, strerror(-r));

	if (!is_readable(fd, timeout)) {
		(void)kill(keeper->server.pid, SIGKILL);
		(void)unready_error(keeper, error);
		return error_set(error, -ETIMEDOUT, "%s was not ready within %d s", keeper->server.program,
				 timeout / 1000);
	}
	char sentence[sizeof(error->message)];
	r = ready_wait(fd, sentence, sizeof(sentence));
	if (r == 0)
		return 0;
	int code = unready_error(keeper, error);
	return r == -ECANCELED ? error_set(error, -EIO, "%s", sentence) : code;
}

static void handle_signal(Keeper *keeper, int signal, const siginfo_t *info)
{
	if (signal == SIGTERM || signal == SIGINT)
		keeper_mount_unmount(&keeper->mount);
	if (signal == UPGRADE_SIGNAL)
		keeper_upgrade(keeper, info);
	/* mount_unmount() found that the server does not end: it hangs, or is stopped. */
	if (signal == SIGHUP && keeper->server.pid > 0 && keeper_mount_is_gone(&keeper->mount))
		(void)kill(keeper->server.pid, SIGKILL);
}

/* Waits until the server has ended with all its threads. */
static int wait_server(Keeper *keeper, const sigset_t *signals)
{
	for (;;) {
		int status;
		pid_t pid = waitpid(keeper->server.pid, &status, WNOHANG);
		if (pid == keeper->server.pid)
			return status;
		siginfo_t info;
		int signal = sigwaitinfo(signals, &info);
		handle_signal(keeper, signal, &info);
	}
}

/* As above while there is no server. */
static void pause_for(Keeper *keeper, unsigned delay, const sigset_t *signals)
{
	struct timespec time = { .tv_sec = delay / 1000, .tv_nsec = (long)(delay % 1000) * 1000000 };
	siginfo_t info;
	int signal = sigtimedwait(signals, &info, &time);
	handle_signal(keeper, signal, &info);
}

static void supervise(Keeper *keeper, const sigset_t *signals)
{
	unsigned delay = 0;
	for (;;) {
		if (keeper->server.pid > 0) {
			int status = wait_server(keeper, signals);
			if (keeper_mount_is_gone(&keeper->mount))
				return;
			delay = keeper_server_ended(&keeper->server, status, keeper->mount.directory);
		}
		if (delay > 0)
			pause_for(keeper, delay, signals);
		if (keeper_mount_is_gone(&keeper->mount))
			return;
		int r = start_server(keeper, -1);
		if (r < 0) {
			log_error("cannot start the server dir=%s reason=\"%s\"", keeper->mount.directory,
				  strerror(-r));
			delay = BACKOFF_MAX;
		}
	}
}

static int bring_up(Keeper *keeper, Error *error)
{
	KeeperMount *mount = &keeper->mount;
	keeper->server.program_fd = open(keeper->server.program, O_RDONLY | O_CLOEXEC);
	if (keeper->server.program_fd < 0)
		return error_set(error, -errno, "cannot open %s: %s", keeper->server.program, strerror(errno));
	int r = keeper_mount_make(mount, error);
	if (r == 0)
		r = start_ready(keeper, -1, error);
	if (r < 0) {
		if (mount->fuse_fd >= 0 && fuse_unmount(mount->directory, true, NULL) < 0)
			log_error("cannot unmount dir=%s", mount->directory);
		return r;
	}
	keeper_mount_set_read_ahead(mount);
	(void)!keeper_write_setting(OOM_SETTING, OOM_KEEPER); /* not every container allows it */
	return 0;
}

/*
 * The last step of an upgrade: a server of the new program in place of the one that runs. The old program is kept until the new one has
 * shown that it works; otherwise supervise() goes on with the old one.
 */
static int replace_server(Keeper *keeper, Error *error)
{
	int program = open(keeper->server.program, O_RDONLY | O_CLOEXEC);
	if (program < 0)
		return error_set(error, -errno, "cannot open %s: %s; the server stays as it was",
				 keeper->server.program, strerror(errno));
	_cleanup_close_ int old = keeper->server.program_fd;
	keeper->server.program_fd = program;
	if (keeper->server.pid > 0) {
		(void)kill(keeper->server.pid, SIGKILL);
		(void)waitpid(keeper->server.pid, NULL, 0);
		keeper->server.pid = 0;
	}
	int r = -EINTR;
	for (unsigned i = 0; r == -EINTR && i < KILLS_MAX && !keeper_mount_is_gone(&keeper->mount); i++)
		r = start_ready(keeper, READY_MS, error);
	if (r == 0)
		return 0;
	(void)close(keeper->server.program_fd);
	keeper->server.program_fd = TAKE_FD(old);
	return error_prefix(error, r, "the old server goes on, since the new one does not start");
}

/* Goes on for the keeper that this process was: as it was, but with another server. */
static void resume(Keeper *keeper)
{
	const int fds[] = { keeper->mount.fuse_fd, keeper->mount.init_fd, keeper->mount.journal_fd,
			    keeper->server.program_fd };
	for (size_t i = 0; i < ELEMENTS(fds); i++)
		(void)fcntl(fds[i], F_SETFD, FD_CLOEXEC);
	keeper->server.started = keeper_now();
	Error error = { 0 };
	int r = replace_server(keeper, &error);
	if (r < 0)
		log_error("no upgrade of the server dir=%s reason=\"%s\"", keeper->mount.directory,
			  error_text(&error, r));
	/* Who asked may be gone; the mount is none the worse. */
	if (ready_send(keeper->ready_fd, r < 0 ? error_text(&error, r) : NULL) < 0)
		log_warning("nobody waits for the upgrade dir=%s", keeper->mount.directory);
	keeper->ready_fd = -1;
}

static int start(Keeper *keeper)
{
	Error error = { 0 };
	int r = bring_up(keeper, &error);
	if (r < 0) {
		if (ready_send(keeper->ready_fd, error_text(&error, r)) < 0)
			log_error("%s", error_text(&error, r));
		return r;
	}
	/* Whoever asked for the mount is gone: nobody would unmount it. */
	if (ready_send(TAKE_FD(keeper->ready_fd), NULL) < 0)
		keeper_mount_unmount(&keeper->mount);
	return 0;
}

static int usage(void)
{
	(void)fprintf(stderr, KEEPER_PROGRAM " is started by imgfs mount, not by hand\n");
	return 2;
}

/* It shows in /proc/PID/status, where mount_upgrade() looks before it sends what would end a keeper of an older version. */
static void never_called(_unused_ int signal)
{
}

int main(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], KEEPER_STATE_OPTION) == 0)
		return fputs(keeper_state_text(), stdout) < 0 || fflush(stdout) != 0;
	if (keeper_daemon_is_meant(argc, argv))
		return keeper_daemon_main(argv);
	Keeper keeper;
	bool resumes;
	if (keeper_state_read(argc, argv, &keeper, &resumes) < 0)
		return usage();
	log_open(KEEPER_PROGRAM, LOG_LEVEL_INFO);
	(void)fcntl(keeper.ready_fd, F_SETFD, FD_CLOEXEC);

	sigset_t signals;
	(void)sigemptyset(&signals);
	(void)sigaddset(&signals, SIGCHLD);
	(void)sigaddset(&signals, SIGTERM);
	(void)sigaddset(&signals, SIGINT);
	(void)sigaddset(&signals, SIGHUP);
	(void)sigaddset(&signals, UPGRADE_SIGNAL);
	(void)sigprocmask(SIG_BLOCK, &signals, NULL);
	(void)signal(UPGRADE_SIGNAL, never_called);
	(void)signal(SIGPIPE, SIG_IGN);

	if (resumes)
		resume(&keeper);
	else if (start(&keeper) < 0)
		return 1;
	supervise(&keeper, &signals);
	log_info("unmounted dir=%s", keeper.mount.directory);
	return 0;
}
