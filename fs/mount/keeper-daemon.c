#include "fs/mount/keeper-daemon.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>

#include "fs/base/fd.h"
#include "fs/base/log.h"
#include "fs/mount/arguments.h"
#include "fs/mount/handshake.h"
#include "fs/mount/keeper-state.h"
#include "fs/mount/keeper-upgrade.h"
#include "fs/mount/mount-table.h"
#include "fs/mount/upgrade-request.h"

#define DIRECTORY_MAX 90u  /* so that the path of the socket fits into its address */
#define TICK_MS       1000 /* between looks at clients that stall, and at mounts that are gone */
#define OOM_SETTING   "/proc/self/oom_score_adj"
#define OOM_KEEPER    "-999" /* without its keeper everything is gone for good */

static const char *const names[] = { "plain", "xattr" };

bool keeper_daemon_is_meant(int argc, char **argv)
{
	return (argc == 7 && strcmp(argv[2], KEEPER_DAEMON_WORD) == 0) ||
	       (argc == 6 && strcmp(argv[2], KEEPER_DAEMON_RESUME) == 0);
}

static bool both_gone(const KeeperDaemon *daemon)
{
	return keeper_mount_is_gone(&daemon->mounts[0]) && keeper_mount_is_gone(&daemon->mounts[1]);
}

static void init(KeeperDaemon *daemon, char **argv)
{
	*daemon = (KeeperDaemon){
		.directory = argv[1],
		.metrics_fd = -1,
		.listen_fd = -1,
		.signal_fd = -1,
		.server = { .program = argv[3], .program_fd = -1 },
		.control_fd = -1,
		.ready_fd = -1,
		.old_program_fd = -1,
	};
	keeper_restore_init(daemon);
	const char *slash = strrchr(daemon->directory, '/');
	(void)snprintf(daemon->socket_path, sizeof(daemon->socket_path), "%.*s/keeper.sock",
		       (int)(slash - daemon->directory), daemon->directory);
	for (size_t i = 0; i < 2; i++) {
		(void)snprintf(daemon->mount_paths[i], sizeof(daemon->mount_paths[i]), "%s/%s", daemon->directory,
			       names[i]);
		daemon->mounts[i] = (KeeperMount){
			.directory = daemon->mount_paths[i],
			.source = i == 0 ? MOUNT_TABLE_DAEMON "plain" : MOUNT_TABLE_DAEMON "xattr",
			.handshake = HANDSHAKE_CHANGING | (i == 0 ? 0 : HANDSHAKE_POSIX_ACL),
			.fuse_fd = -1,
			.init_fd = -1,
			.journal_fd = -1,
		};
	}
	for (size_t i = 0; i < KEEPER_CLIENTS; i++)
		daemon->clients[i].fd = -1;
}

/* Descriptors are what a keeper has most of: it takes all it can get, and so does its server. */
static void raise_limit(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &limit);
	}
}

static int open_signals(KeeperDaemon *daemon)
{
	static const int wanted[] = { SIGCHLD, SIGTERM, SIGINT, SIGHUP };
	sigset_t signals;
	(void)sigemptyset(&signals);
	for (size_t i = 0; i < ELEMENTS(wanted); i++)
		(void)sigaddset(&signals, wanted[i]);
	(void)sigaddset(&signals, UPGRADE_SIGNAL);
	(void)sigprocmask(SIG_BLOCK, &signals, NULL);
	daemon->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
	return daemon->signal_fd < 0 ? -errno : 0;
}

/* Becomes the other program; returns only when nothing has changed. */
static int become(KeeperDaemon *daemon, const UpgradeRequest *request, Error *error)
{
	_cleanup_close_ int state_fd = -1;
	int r = keeper_upgrade_check(request, error);
	if (r < 0)
		return r;
	r = keeper_daemon_save(daemon, &state_fd);
	if (r < 0)
		return error_set(error, r, "cannot write down the keeper's state: %s", strerror(-r));
	char state[16], read_ahead[16];
	(void)snprintf(state, sizeof(state), "%d", state_fd);
	(void)snprintf(read_ahead, sizeof(read_ahead), "%ld", daemon->mounts[0].read_ahead_kb);
	const char *argv[] = {
		KEEPER_PROGRAM, daemon->directory, KEEPER_DAEMON_RESUME, request->server, state, read_ahead, NULL
	};
	log_info("keeper goes on as program=%s dir=%s", request->keeper, daemon->directory);
	keeper_daemon_inherit(daemon, true);
	(void)fcntl(state_fd, F_SETFD, 0);
	(void)execv(request->keeper, (char *const *)(uintptr_t)argv);
	r = -errno;
	keeper_daemon_inherit(daemon, false);
	return error_set(error, r, "cannot run %s: %s", request->keeper, strerror(-r));
}

/* Once nobody waits for an answer that a successor could not give. */
static void upgrade(KeeperDaemon *daemon)
{
	char bytes[UPGRADE_REQUEST_MAX];
	UpgradeRequest request;
	Error error = { 0 };
	int pid = daemon->upgrade_pid;
	if (pid == 0 || daemon->ready_fd >= 0 || !keeper_clients_idle(daemon))
		return;
	daemon->upgrade_pid = 0;
	if (keeper_upgrade_read(pid, daemon->upgrade_number, bytes, &request, &daemon->ready_fd) < 0) {
		log_warning("request for an upgrade that cannot be read pid=%d dir=%s", pid, daemon->directory);
		return;
	}
	int r = become(daemon, &request, &error);
	log_warning("no upgrade dir=%s reason=\"%s\"", daemon->directory, error_text(&error, r));
	(void)!ready_send(TAKE_FD(daemon->ready_fd), error_text(&error, r));
}

static void handle_signal(KeeperDaemon *daemon)
{
	struct signalfd_siginfo info;
	if (read(daemon->signal_fd, &info, sizeof(info)) != sizeof(info))
		return;
	int signal = (int)info.ssi_signo, status;
	if (signal == SIGTERM || signal == SIGINT)
		keeper_daemon_end(daemon);
	if (signal == UPGRADE_SIGNAL && info.ssi_code == SI_QUEUE && daemon->upgrade_pid == 0) {
		daemon->upgrade_pid = (int)info.ssi_pid;
		daemon->upgrade_number = info.ssi_int;
	}
	/* mount_unmount() found that the server does not end: it hangs, or is stopped. */
	if (signal == SIGHUP && daemon->server.pid > 0 && both_gone(daemon))
		(void)kill(daemon->server.pid, SIGKILL);
	if (daemon->server.pid > 0 && waitpid(daemon->server.pid, &status, WNOHANG) == daemon->server.pid)
		keeper_feed_ended(daemon, status);
}

static int timeout_of(const KeeperDaemon *daemon)
{
	if (daemon->server.pid > 0)
		return TICK_MS;
	int64_t left = daemon->start_at - keeper_now();
	return left < 0 ? 0 : left < TICK_MS ? (int)left : TICK_MS;
}

enum { POLL_SIGNAL, POLL_LISTEN, POLL_CONTROL, POLL_PLAIN, POLL_XATTR, POLL_TABLE, POLL_CLIENTS };

/* A poll() for the events of a descriptor, none if it is -1. The two connections report their end unasked. */
static void wait_for_events(KeeperDaemon *daemon)
{
	bool deaf = keeper_now() < daemon->deaf_until;
	struct pollfd fds[POLL_CLIENTS + KEEPER_CLIENTS] = {
		[POLL_SIGNAL] = { .fd = daemon->signal_fd, .events = POLLIN },
		[POLL_LISTEN] = { .fd = deaf ? -1 : daemon->listen_fd, .events = POLLIN },
		[POLL_CONTROL] = { .fd = daemon->control_fd,
				   .events = (short)(POLLIN | (daemon->blocked ? POLLOUT : 0)) },
		/* It goes on being reported until somebody polls: once it is known it need not be. */
		[POLL_TABLE] = { .fd = daemon->table_changed ? -1 : daemon->table_fd, .events = POLLPRI },
	};
	for (size_t i = 0; i < 2; i++) {
		bool gone = keeper_mount_is_gone(&daemon->mounts[i]); /* it would be reported for ever */
		fds[POLL_PLAIN + i] = (struct pollfd){ .fd = gone ? -1 : daemon->mounts[i].fuse_fd };
	}
	for (size_t i = 0; i < KEEPER_CLIENTS; i++) {
		const KeeperClient *client = &daemon->clients[i];
		fds[POLL_CLIENTS + i] = (struct pollfd){ .fd = client->waiting ? -1 : client->fd, .events = POLLIN };
	}
	if (poll(fds, ELEMENTS(fds), timeout_of(daemon)) <= 0)
		return;
	if (fds[POLL_TABLE].revents)
		daemon->table_changed = true;
	if (fds[POLL_CONTROL].revents)
		keeper_feed_handle(daemon);
	for (size_t i = 0; i < KEEPER_CLIENTS; i++) {
		if (fds[POLL_CLIENTS + i].revents)
			keeper_clients_handle(daemon, &daemon->clients[i]);
	}
	if (fds[POLL_LISTEN].revents)
		keeper_clients_accept(daemon);
	if (fds[POLL_SIGNAL].revents)
		handle_signal(daemon);
}

static void supervise(KeeperDaemon *daemon)
{
	while (!both_gone(daemon)) {
		int64_t now = keeper_now();
		keeper_clients_expire(daemon, now);
		keeper_feed_expire(daemon, now);
		keeper_restore(daemon, now);
		upgrade(daemon);
		keeper_feed_start(daemon);
		keeper_feed(daemon);
		wait_for_events(daemon);
	}
	/* Nothing is left that it could answer. */
	if (daemon->server.pid > 0) {
		(void)kill(daemon->server.pid, SIGKILL);
		(void)waitpid(daemon->server.pid, NULL, 0);
	}
	if (!daemon->ending)
		(void)unlink(daemon->socket_path);
	log_info("unmounted dir=%s", daemon->directory);
}

static int bring_up(KeeperDaemon *daemon, Error *error)
{
	daemon->server.program_fd = open(daemon->server.program, O_RDONLY | O_CLOEXEC);
	if (daemon->server.program_fd < 0)
		return error_set(error, -errno, "cannot open %s: %s", daemon->server.program, strerror(errno));
	int r = keeper_mount_make(&daemon->mounts[0], error);
	if (r == 0)
		r = keeper_mount_make(&daemon->mounts[1], error);
	if (r == 0)
		r = keeper_clients_listen(daemon, error);
	if (r < 0)
		return r;
	for (size_t i = 0; i < 2; i++)
		keeper_mount_set_read_ahead(&daemon->mounts[i]);
	(void)!keeper_write_setting(OOM_SETTING, OOM_KEEPER); /* not every container allows it */
	return 0;
}

/* The first server has to come up, or all has failed. */
static int wait_first(KeeperDaemon *daemon, Error *error)
{
	while (!daemon->ready) {
		keeper_feed_start(daemon);
		if (daemon->server.pid == 0)
			return error_set(error, -EIO, "%s ended before it was ready; the log says why",
					 daemon->server.program);
		keeper_feed(daemon);
		wait_for_events(daemon);
	}
	return 0;
}

static int start(KeeperDaemon *daemon)
{
	Error error = { 0 };
	int r = bring_up(daemon, &error);
	if (r == 0)
		r = wait_first(daemon, &error);
	if (r == 0)
		return 0;
	keeper_daemon_end(daemon);
	if (daemon->ready_fd < 0 || ready_send(TAKE_FD(daemon->ready_fd), error_text(&error, r)) < 0)
		log_error("%s", error_text(&error, r));
	return r;
}

static int resume(KeeperDaemon *daemon, int state_fd)
{
	Error error = { 0 };
	int r = keeper_daemon_load(daemon, state_fd);
	(void)close(state_fd);
	if (r < 0) {
		log_error("the state of the keeper before cannot be read dir=%s reason=\"%s\"", daemon->directory,
			  strerror(-r));
		return r;
	}
	r = keeper_feed_try(daemon, &error);
	if (r < 0) {
		log_error("no upgrade of the server dir=%s reason=\"%s\"", daemon->directory, error_text(&error, r));
		(void)!ready_send(TAKE_FD(daemon->ready_fd), error_text(&error, r));
	}
	return 0;
}

/* It shows in /proc/PID/status, where mount_upgrade() looks before it sends what would end a keeper of an older version. */
static void never_called(_unused_ int signal)
{
}

int keeper_daemon_main(char **argv)
{
	static KeeperDaemon daemon;
	long numbers[3] = { 0 };
	bool resumes = strcmp(argv[2], KEEPER_DAEMON_RESUME) == 0;
	for (size_t i = 0; i < (resumes ? 2 : 3); i++) {
		if (!argument_number(argv[4 + i], INT32_MAX, &numbers[i]))
			return 2;
	}
	if (argv[1][0] != '/' || strlen(argv[1]) > DIRECTORY_MAX)
		return 2;
	log_open(KEEPER_PROGRAM, LOG_LEVEL_INFO);
	init(&daemon, argv);
	for (size_t i = 0; i < 2; i++)
		daemon.mounts[i].read_ahead_kb = numbers[1];
	raise_limit();
	(void)signal(UPGRADE_SIGNAL, never_called);
	(void)signal(SIGPIPE, SIG_IGN);
	int r = open_signals(&daemon);
	if (r < 0)
		return 1;
	if (resumes) {
		r = resume(&daemon, (int)numbers[0]);
	} else {
		daemon.ready_fd = (int)numbers[0];
		daemon.metrics_fd = (int)numbers[2];
		keeper_daemon_inherit(&daemon, false);
		r = start(&daemon);
	}
	if (r < 0)
		return 1;
	keeper_restore_start(&daemon);
	supervise(&daemon);
	return 0;
}
