/*
 * imgfs-keeper: mounts, answers FUSE_INIT, and from then on does one thing: it starts a server whenever there is none. It
 * holds the FUSE descriptor and the journal, which must outlive every server, so it stays small, reads nothing from
 * outside and links neither network nor cryptography.
 */
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

#include "fs/base/error.h"
#include "fs/base/fd.h"
#include "fs/base/log.h"
#include "fs/mount/arguments.h"
#include "fs/mount/fuse-mount.h"
#include "fs/mount/handshake.h"
#include "fs/mount/journal.h"
#include "fs/mount/keeper-state.h"
#include "fs/mount/keeper-upgrade.h"
#include "fs/mount/upgrade-request.h"

#define LOCKED_MEMORY ((rlim_t)64 << 20) /* journal and reply buffers, several times over */
#define READY_MS      30000              /* a new server that takes longer is no better than the old one */
#define KILLS_MAX     16                 /* of servers that were not ready yet, before one is doubted */
#define OOM_SETTING   "/proc/self/oom_score_adj"
#define OOM_KEEPER    "-999" /* without its keeper a mount is gone for good */
#define OOM_SERVER    "0"

static int64_t now_ms(void)
{
	struct timespec now;
	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int write_setting(const char *path, const char *value)
{
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CLOEXEC);
	return fd < 0 || write(fd, value, strlen(value)) < 0 ? -errno : 0;
}

/* A sealed memfd: servers read it, and none can change it for those after it. */
static int save_init(Keeper *keeper, const void *init, size_t size, Error *error)
{
	keeper->init_fd = memfd_create("imgfs-init", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int r = keeper->init_fd < 0 ? -errno : fd_write_all(keeper->init_fd, init, size);
	if (r == 0 && fcntl(keeper->init_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) < 0)
		r = -errno;
	return r < 0 ? error_set(error, r, "cannot keep the kernel's FUSE_INIT: %s", strerror(-r)) : 0;
}

static int shake_hands(Keeper *keeper, Error *error)
{
	char init[HANDSHAKE_INIT_MAX];
	ssize_t size = read(keeper->fuse_fd, init, sizeof(init));
	if (size < 0)
		return error_set(error, -errno, "cannot read FUSE_INIT from the kernel: %s", strerror(errno));
	HandshakeReply reply;
	int r = handshake_answer(init, (size_t)size, keeper->posix_acl, &reply, error);
	if (r < 0)
		return r;
	if (write(keeper->fuse_fd, &reply, sizeof(reply)) < 0)
		return error_set(error, -errno, "the kernel refuses the answer to FUSE_INIT: %s", strerror(errno));
	return save_init(keeper, init, (size_t)size, error);
}

/* The descriptors stay close-on-exec in the keeper; only the server's copy of the table has them open. */
static void inherit(int fd)
{
	(void)fcntl(fd, F_SETFD, 0);
}

_Noreturn static void run_server(const Keeper *keeper, pid_t self, int ready_fd)
{
	sigset_t none;
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	inherit(keeper->fuse_fd);
	inherit(keeper->init_fd);
	inherit(keeper->journal_fd);
	/* A core dump would keep waitpid() waiting, and hold the readers up. */
	(void)setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
	(void)setrlimit(RLIMIT_MEMLOCK, &(struct rlimit){ LOCKED_MEMORY, LOCKED_MEMORY });
	(void)write_setting(OOM_SETTING, OOM_SERVER);

	char numbers[6][16];
	const int values[] = { keeper->fuse_fd, keeper->init_fd, keeper->journal_fd, keeper->plan_fd, self, ready_fd };
	for (size_t i = 0; i < ELEMENTS(values); i++)
		(void)snprintf(numbers[i], sizeof(numbers[i]), "%d", values[i]);
	char program[] = SERVER_PROGRAM;
	char *argv[] = { program, numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], NULL, NULL };
	if (ready_fd >= 0) {
		inherit(ready_fd);
		argv[6] = numbers[5];
	}
	/* By descriptor: also after an upgrade every server of this mount is the program its keeper knows. */
	(void)fexecve(keeper->program_fd, argv, environ);
	log_error("cannot start the server path=%s reason=\"%s\"", keeper->program, strerror(errno));
	_exit(127);
}

static int start_server(Keeper *keeper, int ready_fd)
{
	pid_t self = getpid();
	pid_t pid = fork();
	if (pid < 0)
		return -errno;
	if (pid == 0)
		run_server(keeper, self, ready_fd);
	keeper->server = pid;
	keeper->server_start = now_ms();
	return 0;
}

static void describe_end(int status, char *ret_text, size_t size)
{
	if (WIFSIGNALED(status))
		(void)snprintf(ret_text, size, "signal %d", WTERMSIG(status));
	else
		(void)snprintf(ret_text, size, "exit status %d", WEXITSTATUS(status));
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
	(void)waitpid(keeper->server, &status, 0);
	keeper->server = 0;
	char end[64];
	describe_end(status, end, sizeof(end));
	int code = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL ? -EINTR : -EIO;
	return error_set(error, code, "%s ended with %s before it was ready", keeper->program, end);
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
		return error_set(error, r, "cannot start %s: %s", keeper->program, strerror(-r));

	if (!is_readable(fd, timeout)) {
		(void)kill(keeper->server, SIGKILL);
		(void)unready_error(keeper, error);
		return error_set(error, -ETIMEDOUT, "%s was not ready within %d s", keeper->program, timeout / 1000);
	}
	char sentence[sizeof(error->message)];
	r = ready_wait(fd, sentence, sizeof(sentence));
	if (r == 0)
		return 0;
	int code = unready_error(keeper, error);
	return r == -ECANCELED ? error_set(error, -EIO, "%s", sentence) : code;
}

static void set_read_ahead(const Keeper *keeper)
{
	if (geteuid() != 0)
		return; /* the kernel's own it is, then */
	char path[128], value[32];
	(void)snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb", keeper->mount.major,
		       keeper->mount.minor);
	(void)snprintf(value, sizeof(value), "%ld", keeper->read_ahead_kb);
	int r = write_setting(path, value);
	if (r < 0)
		log_warning("cannot set read-ahead path=%s value=%s reason=\"%s\"", path, value, strerror(-r));
}

/* The kernel flags the descriptor once the file system is unmounted everywhere, or its connection aborted. */
static bool is_unmounted(const Keeper *keeper)
{
	struct pollfd poll_fd = { .fd = keeper->fuse_fd };
	return poll(&poll_fd, 1, 0) > 0 && (poll_fd.revents & POLLERR);
}

/* Lazily, so that it succeeds whoever uses the mount; the server goes on for those until they are done. */
static void unmount(const Keeper *keeper)
{
	MountEntry entry;
	if (is_unmounted(keeper) || mount_table_find(keeper->directory, &entry) < 0 ||
	    entry.major != keeper->mount.major || entry.minor != keeper->mount.minor)
		return;
	Error error = { 0 };
	int r = fuse_unmount(keeper->directory, true, &error);
	if (r < 0)
		log_warning("cannot unmount dir=%s reason=\"%s\"", keeper->directory, error_text(&error, r));
}

static void handle_signal(Keeper *keeper, int signal, const siginfo_t *info)
{
	if (signal == SIGTERM || signal == SIGINT)
		unmount(keeper);
	if (signal == UPGRADE_SIGNAL)
		keeper_upgrade(keeper, info);
	/* mount_unmount() found that the server does not end: it hangs, or is stopped. */
	if (signal == SIGHUP && keeper->server > 0 && is_unmounted(keeper))
		(void)kill(keeper->server, SIGKILL);
}

/* Waits until the server has ended with all its threads. */
static int wait_server(Keeper *keeper, const sigset_t *signals)
{
	for (;;) {
		int status;
		pid_t pid = waitpid(keeper->server, &status, WNOHANG);
		if (pid == keeper->server)
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

/* Notes how the last server ended; returns the milliseconds to wait before the next. */
static unsigned note_end(Keeper *keeper, int status)
{
	char end[64];
	describe_end(status, end, sizeof(end));
	bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
	unsigned delay = backoff_next(&keeper->backoff, now_ms() - keeper->server_start, killed);
	log_warning("server ended reason=\"%s\" pid=%d dir=%s delay=%u", end, keeper->server, keeper->directory, delay);
	return delay;
}

static void supervise(Keeper *keeper, const sigset_t *signals)
{
	unsigned delay = 0;
	for (;;) {
		if (keeper->server > 0) {
			int status = wait_server(keeper, signals);
			if (is_unmounted(keeper))
				return;
			delay = note_end(keeper, status);
			keeper->server = 0;
		}
		if (delay > 0)
			pause_for(keeper, delay, signals);
		if (is_unmounted(keeper))
			return;
		int r = start_server(keeper, -1);
		if (r < 0) {
			log_error("cannot start the server dir=%s reason=\"%s\"", keeper->directory, strerror(-r));
			delay = BACKOFF_MAX;
		}
	}
}

static int prepare(Keeper *keeper, Error *error)
{
	keeper->program_fd = open(keeper->program, O_RDONLY | O_CLOEXEC);
	if (keeper->program_fd < 0)
		return error_set(error, -errno, "cannot open %s: %s", keeper->program, strerror(errno));
	int r = journal_create(&keeper->journal_fd);
	if (r < 0)
		return error_set(error, r, "cannot create the journal: %s", strerror(-r));
	return fuse_mount(keeper->directory, keeper->source, keeper->mount_flags, &keeper->fuse_fd, error);
}

static int bring_up(Keeper *keeper, Error *error)
{
	int r = prepare(keeper, error);
	if (r < 0)
		return r;
	r = mount_table_find(keeper->directory, &keeper->mount);
	if (r < 0)
		(void)error_set(error, r, "cannot find %s in /proc/self/mountinfo: %s", keeper->directory,
				strerror(-r));
	if (r == 0)
		r = shake_hands(keeper, error);
	if (r == 0)
		r = start_ready(keeper, -1, error);
	if (r < 0) {
		if (fuse_unmount(keeper->directory, true, NULL) < 0)
			log_error("cannot unmount dir=%s", keeper->directory);
		return r;
	}
	set_read_ahead(keeper);
	(void)write_setting(OOM_SETTING, OOM_KEEPER); /* not every container allows it */
	return 0;
}

/*
 * The last step of an upgrade: a server of the new program in place of the one that runs. The old program is kept until the new one has
 * shown that it works; otherwise supervise() goes on with the old one.
 */
static int replace_server(Keeper *keeper, Error *error)
{
	int program = open(keeper->program, O_RDONLY | O_CLOEXEC);
	if (program < 0)
		return error_set(error, -errno, "cannot open %s: %s; the server stays as it was", keeper->program,
				 strerror(errno));
	_cleanup_close_ int old = keeper->program_fd;
	keeper->program_fd = program;
	if (keeper->server > 0) {
		(void)kill(keeper->server, SIGKILL);
		(void)waitpid(keeper->server, NULL, 0);
		keeper->server = 0;
	}
	int r = -EINTR;
	for (unsigned i = 0; r == -EINTR && i < KILLS_MAX && !is_unmounted(keeper); i++)
		r = start_ready(keeper, READY_MS, error);
	if (r == 0)
		return 0;
	(void)close(keeper->program_fd);
	keeper->program_fd = TAKE_FD(old);
	return error_prefix(error, r, "the old server goes on, since the new one does not start");
}

/* Goes on for the keeper that this process was: as it was, but with another server. */
static void resume(Keeper *keeper)
{
	const int fds[] = { keeper->fuse_fd, keeper->init_fd, keeper->journal_fd, keeper->program_fd };
	for (size_t i = 0; i < ELEMENTS(fds); i++)
		(void)fcntl(fds[i], F_SETFD, FD_CLOEXEC);
	keeper->server_start = now_ms();
	Error error = { 0 };
	int r = replace_server(keeper, &error);
	if (r < 0)
		log_error("no upgrade of the server dir=%s reason=\"%s\"", keeper->directory, error_text(&error, r));
	/* Who asked may be gone; the mount is none the worse. */
	if (ready_send(keeper->ready_fd, r < 0 ? error_text(&error, r) : NULL) < 0)
		log_warning("nobody waits for the upgrade dir=%s", keeper->directory);
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
		unmount(keeper);
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
	log_info("unmounted dir=%s", keeper.directory);
	return 0;
}
