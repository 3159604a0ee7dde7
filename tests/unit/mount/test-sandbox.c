/* What a server cannot do any more, and what it still has to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "fs/mount/sandbox.h"

/* Runs it in a child that is restricted; 0 is success, what it returns else is told. */
static void in_sandbox(int (*what)(void))
{
	if (!sandbox_built)
		skip();
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || sandbox_enter(NULL) < 0)
			_exit(99);
		_exit(what());
	}
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* Which of the calls was not refused with EPERM. */
#define REFUSED(number, call)                             \
	do {                                              \
		errno = 0;                                \
		if ((long)(call) != -1 || errno != EPERM) \
			return number;                    \
	} while (0)

static int refused(void)
{
	static const char *const argv[] = { "true", NULL };
	REFUSED(1, execve("/bin/true", (char *const *)(uintptr_t)argv, environ));
	REFUSED(2, ptrace(PTRACE_TRACEME, 0, NULL, NULL));
	REFUSED(3, mount("none", "/mnt", "tmpfs", 0, NULL));
	REFUSED(4, umount2("/proc", MNT_DETACH));
	REFUSED(5, unshare(CLONE_NEWUSER));
	REFUSED(6, fork());
	REFUSED(7, kill(getppid(), 0));
	REFUSED(8, socket(AF_PACKET, SOCK_RAW, 0));
	REFUSED(9, open("/tmp/imgfs-sandbox-test", O_CREAT | O_WRONLY, 0600));
	REFUSED(10, mkdir("/tmp/imgfs-sandbox-test", 0700));
	REFUSED(11, unlink("/tmp/imgfs-sandbox-test"));
	REFUSED(12, chmod("/", 0755));
	REFUSED(13, chroot("/"));
	REFUSED(14, setuid(0));
	REFUSED(15, prctl(PR_SET_DUMPABLE, 1, 0, 0, 0));
	REFUSED(16, mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	REFUSED(17, memfd_create("x", 0));
	return 0;
}

static void test_refused(_unused_ void **state)
{
	in_sandbox(refused);
}

static void *nothing(void *arg)
{
	return arg;
}

static int let_through(void)
{
	pthread_t thread;
	struct addrinfo *found = NULL;
	int ends[2];
	if (pthread_create(&thread, NULL, nothing, NULL) != 0 || pthread_join(thread, NULL) != 0)
		return 1;
	int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 2;
	(void)close(fd);
	if (getaddrinfo("localhost", "80", NULL, &found) != 0)
		return 3;
	freeaddrinfo(found);
	if (pipe2(ends, O_CLOEXEC) < 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, ends) < 0)
		return 4;
	void *memory = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED || mlock(memory, 4096) < 0 || munmap(memory, 1 << 20) < 0)
		return 5;
	return 0;
}

static void test_let_through(_unused_ void **state)
{
	in_sandbox(let_through);
}

/* A crash stays a crash: the keeper has to see the signal. */
static int crash(void)
{
	abort();
}

static void test_crash(_unused_ void **state)
{
	if (!sandbox_built)
		skip();
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || sandbox_enter(NULL) < 0)
			_exit(99);
		_exit(crash());
	}
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGABRT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_let_through),
		cmocka_unit_test(test_crash),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
