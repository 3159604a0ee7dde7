#include "fs/mount/keeper-server.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

#include "fs/base/log.h"
#include "fs/mount/arguments.h"
#include "fs/mount/keeper-mount.h"

#define LOCKED_MEMORY ((rlim_t)64 << 20) /* journals and reply buffers, several times over */
#define OOM_SETTING   "/proc/self/oom_score_adj"
#define OOM_SERVER    "0"
#define WORDS_MAX     16u

int64_t keeper_now(void)
{
	struct timespec now;
	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

_Noreturn static void run(const KeeperServer *server, const char *const *words, size_t word_count, const int *fds,
			  size_t fd_count)
{
	sigset_t none;
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	for (size_t i = 0; i < fd_count; i++)
		(void)fcntl(fds[i], F_SETFD, 0);
	/* A core dump would keep waitpid() waiting, and hold the readers up. */
	(void)setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
	(void)setrlimit(RLIMIT_MEMLOCK, &(struct rlimit){ LOCKED_MEMORY, LOCKED_MEMORY });
	_unused_ int r = keeper_write_setting(OOM_SETTING, OOM_SERVER);

	const char *argv[WORDS_MAX + 2] = { SERVER_PROGRAM };
	for (size_t i = 0; i < word_count && i < WORDS_MAX; i++)
		argv[i + 1] = words[i];
	(void)fexecve(server->program_fd, (char *const *)(uintptr_t)argv, environ);
	log_error("cannot start the server path=%s reason=\"%s\"", server->program, strerror(errno));
	_exit(127);
}

int keeper_server_start(KeeperServer *server, const char *const *words, size_t word_count, const int *fds,
			size_t fd_count)
{
	pid_t pid = fork();
	if (pid < 0)
		return -errno;
	if (pid == 0)
		run(server, words, word_count, fds, fd_count);
	server->pid = pid;
	server->started = keeper_now();
	return 0;
}

void keeper_server_describe(int status, char ret_text[static KEEPER_END_MAX])
{
	if (WIFSIGNALED(status))
		(void)snprintf(ret_text, KEEPER_END_MAX, "signal %d", WTERMSIG(status));
	else
		(void)snprintf(ret_text, KEEPER_END_MAX, "exit status %d", WEXITSTATUS(status));
}

unsigned keeper_server_ended(KeeperServer *server, int status, const char *directory)
{
	char end[KEEPER_END_MAX];
	keeper_server_describe(status, end);
	bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
	unsigned delay = backoff_next(&server->backoff, keeper_now() - server->started, killed);
	log_warning("server ended reason=\"%s\" pid=%d dir=%s delay=%u", end, server->pid, directory, delay);
	server->pid = 0;
	return delay;
}
