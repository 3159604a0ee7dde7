#include "fs/mount/keeper-upgrade.h"

#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/wait.h>

#include "fs/base/error.h"
#include "fs/base/fd.h"
#include "fs/base/log.h"
#include "fs/mount/keeper-state.h"
#include "fs/mount/upgrade-request.h"

#define ANSWER_MAX 128u
#define ANSWER_MS  5000 /* a program that does not even say its version in this time is none to become */

static int open_of(pid_t pid, int fd, int flags)
{
	char path[64];
	(void)snprintf(path, sizeof(path), "/proc/%d/fd/%d", pid, fd);
	int opened = open(path, flags | O_CLOEXEC | O_NONBLOCK);
	return opened < 0 ? -errno : opened;
}

int keeper_upgrade_read(pid_t pid, int number, char bytes[static UPGRADE_REQUEST_MAX], UpgradeRequest *ret_request,
			int *ret_reply_fd)
{
	int opened = open_of(pid, number, O_RDONLY);
	if (opened < 0)
		return opened;
	_cleanup_close_ int fd = opened;
	UpgradeRequest request;
	ssize_t size = pread(fd, bytes, UPGRADE_REQUEST_MAX, 0);
	int r = size < 0 ? -errno : upgrade_request_read(bytes, (size_t)size, &request);
	if (r < 0)
		return r;
	int reply = open_of(pid, request.reply_fd, O_WRONLY);
	if (reply < 0)
		return reply;
	*ret_request = request;
	*ret_reply_fd = reply;
	return 0;
}

_Noreturn static void run_question(const char *program, int answer_fd)
{
	sigset_t none;
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	(void)dup2(answer_fd, STDOUT_FILENO);
	const char *argv[] = { KEEPER_PROGRAM, KEEPER_STATE_OPTION, NULL };
	(void)execv(program, (char *const *)(uintptr_t)argv);
	_exit(127);
}

/* What `fd` yields until its end, or until the time is up. */
static void read_answer(int fd, char ret_answer[static ANSWER_MAX])
{
	size_t used = 0;
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
	while (used < ANSWER_MAX - 1 && poll(&poll_fd, 1, ANSWER_MS) > 0) {
		ssize_t count = read(fd, ret_answer + used, ANSWER_MAX - 1 - used);
		if (count <= 0)
			break;
		used += (size_t)count;
	}
	ret_answer[used] = '\0';
}

static int ask(const char *program, char ret_answer[static ANSWER_MAX], Error *error)
{
	int ends[2];
	if (access(program, X_OK) < 0)
		return error_set(error, -errno, "cannot run %s: %s", program, strerror(errno));
	if (pipe2(ends, O_CLOEXEC) < 0)
		return error_set(error, -errno, "cannot make a pipe: %s", strerror(errno));
	_cleanup_close_ int fd = ends[0];
	pid_t pid = fork();
	if (pid == 0)
		run_question(program, ends[1]);
	(void)close(ends[1]);
	if (pid < 0)
		return error_set(error, -errno, "cannot start %s: %s", program, strerror(errno));
	read_answer(fd, ret_answer);
	(void)kill(pid, SIGKILL); /* it has answered, or never will */
	(void)waitpid(pid, NULL, 0);
	return 0;
}

static int check_program(const char *program, Error *error)
{
	char answer[ANSWER_MAX];
	int r = ask(program, answer, error);
	if (r < 0)
		return r;
	if (strcmp(answer, keeper_state_text()) == 0)
		return 0;
	answer[strcspn(answer, "\n")] = '\0';
	const char *own = keeper_state_text();
	return error_set(
		error, -EOPNOTSUPP,
		"%s cannot go on for the running keeper, whose state is \"%.*s\" (it says \"%s\"); unmount and "
		"mount again",
		program, (int)strcspn(own, "\n"), own, answer);
}

static void set_inherited(const Keeper *keeper, bool inherited)
{
	const int fds[] = { keeper->mount.fuse_fd, keeper->mount.init_fd, keeper->mount.journal_fd,
			    keeper->server.program_fd, keeper->ready_fd };
	for (size_t i = 0; i < ELEMENTS(fds); i++)
		(void)fcntl(fds[i], F_SETFD, inherited ? 0 : FD_CLOEXEC);
}

int keeper_upgrade_check(const UpgradeRequest *request, Error *error)
{
	if (access(request->server, X_OK) < 0)
		return error_set(error, -errno, "cannot run %s: %s", request->server, strerror(errno));
	return check_program(request->keeper, error);
}

/* Descriptors of plan and layers are inherited by every server, and so by the successor as well. */
static int become(const Keeper *keeper, const UpgradeRequest *request, Error *error)
{
	int r = keeper_upgrade_check(request, error);
	if (r < 0)
		return r;
	KeeperArguments arguments;
	keeper_state_write(keeper, request->server, &arguments);
	log_info("keeper goes on as program=%s dir=%s", request->keeper, keeper->mount.directory);
	set_inherited(keeper, true);
	(void)execv(request->keeper, (char *const *)(uintptr_t)arguments.argv);
	r = -errno;
	set_inherited(keeper, false);
	return error_set(error, r, "cannot run %s: %s", request->keeper, strerror(-r));
}

void keeper_upgrade(Keeper *keeper, const siginfo_t *signal)
{
	char bytes[UPGRADE_REQUEST_MAX];
	UpgradeRequest request;
	/* Whoever does not queue it as mount_upgrade() does is not waiting for an answer either. */
	int r = -EBADMSG;
	if (signal->si_code == SI_QUEUE)
		r = keeper_upgrade_read(signal->si_pid, signal->si_value.sival_int, bytes, &request, &keeper->ready_fd);
	if (r < 0) {
		log_warning("request for an upgrade that cannot be read pid=%d dir=%s", signal->si_pid,
			    keeper->mount.directory);
		keeper->ready_fd = -1;
		return;
	}
	Error error = { 0 };
	r = become(keeper, &request, &error);
	log_warning("no upgrade dir=%s reason=\"%s\"", keeper->mount.directory, error_text(&error, r));
	(void)!ready_send(TAKE_FD(keeper->ready_fd), error_text(&error, r));
}
