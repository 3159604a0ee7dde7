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
#include "fs/mount/backoff.h"
#include "fs/mount/fuse-mount.h"
#include "fs/mount/handshake.h"
#include "fs/mount/journal.h"
#include "fs/mount/mount-table.h"

#define LOCKED_MEMORY ((rlim_t)64 << 20) /* journal and reply buffers, several times over */
#define OOM_SETTING   "/proc/self/oom_score_adj"
#define OOM_KEEPER    "-999" /* without its keeper a mount is gone for good */
#define OOM_SERVER    "0"

typedef struct Keeper {
	const char *directory;
	const char *source;
	const char *program; /* of the server */
	long read_ahead_kb;
	bool posix_acl;
	unsigned mount_flags;
	int plan_fd;
	int ready_fd; /* to mount_image() */
	int program_fd;
	int fuse_fd;
	int init_fd;
	int journal_fd;
	MountEntry mount;
	pid_t server;
	int64_t server_start;
	Backoff backoff;
} Keeper;

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

/* The first server has to come up, or the mount has failed. */
static int start_first(Keeper *keeper, Error *error)
{
	int ready[2];
	if (pipe2(ready, O_CLOEXEC) < 0)
		return error_set(error, -errno, "cannot make a pipe: %s", strerror(errno));
	int r = start_server(keeper, ready[1]);
	(void)close(ready[1]);
	_cleanup_close_ int fd = ready[0];
	if (r < 0)
		return error_set(error, r, "cannot start %s: %s", keeper->program, strerror(-r));

	char sentence[sizeof(error->message)];
	r = ready_wait(fd, sentence, sizeof(sentence));
	if (r == 0)
		return 0;
	int status = 0;
	(void)waitpid(keeper->server, &status, 0);
	keeper->server = 0;
	char end[64];
	describe_end(status, end, sizeof(end));
	if (r == -ECANCELED)
		return error_set(error, -EIO, "%s", sentence);
	return error_set(error, -EIO, "%s ended with %s before it was ready", keeper->program, end);
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

/* Waits until the server has ended with all its threads. */
static int wait_server(const Keeper *keeper, const sigset_t *signals)
{
	for (;;) {
		int status;
		pid_t pid = waitpid(keeper->server, &status, WNOHANG);
		if (pid == keeper->server)
			return status;
		int signal = sigwaitinfo(signals, NULL);
		if (signal == SIGTERM || signal == SIGINT)
			unmount(keeper);
		/* mount_unmount() found that the server does not end: it hangs, or is stopped. */
		if (signal == SIGHUP && is_unmounted(keeper))
			(void)kill(keeper->server, SIGKILL);
	}
}

/* As above while there is no server. */
static void pause_for(const Keeper *keeper, unsigned delay, const sigset_t *signals)
{
	struct timespec time = { .tv_sec = delay / 1000, .tv_nsec = (long)(delay % 1000) * 1000000 };
	int signal = sigtimedwait(signals, NULL, &time);
	if (signal == SIGTERM || signal == SIGINT)
		unmount(keeper);
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
		r = start_first(keeper, error);
	if (r < 0) {
		if (fuse_unmount(keeper->directory, true, NULL) < 0)
			log_error("cannot unmount dir=%s", keeper->directory);
		return r;
	}
	set_read_ahead(keeper);
	(void)write_setting(OOM_SETTING, OOM_KEEPER); /* not every container allows it */
	return 0;
}

static int usage(void)
{
	(void)fprintf(stderr, KEEPER_PROGRAM " is started by imgfs mount, not by hand\n");
	return 2;
}

static int parse(int argc, char **argv, Keeper *keeper)
{
	long plan, ready, acl, flags;
	if (argc != 9 || !argument_number(argv[4], INT32_MAX, &plan) || !argument_number(argv[5], INT32_MAX, &ready) ||
	    !argument_number(argv[6], INT32_MAX, &keeper->read_ahead_kb) || !argument_number(argv[7], 1, &acl) ||
	    !argument_number(argv[8], FUSE_MOUNT_FLAGS, &flags))
		return -EINVAL;
	keeper->directory = argv[1];
	keeper->source = argv[2];
	keeper->program = argv[3];
	keeper->plan_fd = (int)plan;
	keeper->ready_fd = (int)ready;
	keeper->posix_acl = acl == 1;
	keeper->mount_flags = (unsigned)flags;
	return 0;
}

int main(int argc, char **argv)
{
	Keeper keeper = { .fuse_fd = -1, .init_fd = -1, .journal_fd = -1, .program_fd = -1 };
	if (parse(argc, argv, &keeper) < 0)
		return usage();
	log_open(KEEPER_PROGRAM, LOG_LEVEL_INFO);
	(void)fcntl(keeper.ready_fd, F_SETFD, FD_CLOEXEC);

	sigset_t signals;
	(void)sigemptyset(&signals);
	(void)sigaddset(&signals, SIGCHLD);
	(void)sigaddset(&signals, SIGTERM);
	(void)sigaddset(&signals, SIGINT);
	(void)sigaddset(&signals, SIGHUP);
	(void)sigprocmask(SIG_BLOCK, &signals, NULL);
	(void)signal(SIGPIPE, SIG_IGN);

	Error error = { 0 };
	int r = bring_up(&keeper, &error);
	if (r < 0) {
		if (ready_send(keeper.ready_fd, error_text(&error, r)) < 0)
			log_error("%s", error_text(&error, r));
		return 1;
	}
	/* Whoever asked for the mount is gone: nobody would unmount it. */
	if (ready_send(keeper.ready_fd, NULL) < 0)
		unmount(&keeper);
	supervise(&keeper, &signals);
	log_info("unmounted dir=%s", keeper.directory);
	return 0;
}
