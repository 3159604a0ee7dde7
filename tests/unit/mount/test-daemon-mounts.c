/* The manager's side of the keeper's socket, before a keeper that answers late. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include <cmocka.h>

#include "fs/mount/daemon-message.h"
#include "fs/mount/daemon-mounts.h"
#include "tests/unit/fetch/blob-fixture.h"

typedef struct LateKeeper {
	char *directory;
	char path[128];
	int listen_fd;
	int fd; /* of the manager that was greeted */
	pthread_t thread;
} LateKeeper;

static void *greet(void *arg)
{
	static DaemonPacket packet;
	LateKeeper *keeper = arg;
	keeper->fd = accept4(keeper->listen_fd, NULL, NULL, SOCK_CLOEXEC);
	DaemonMessage hello = { .type = DAEMON_HELLO, .count = DAEMON_PROTOCOL };
	if (keeper->fd < 0 || daemon_message_receive(keeper->fd, &packet, 0) < 0 ||
	    daemon_message_send(keeper->fd, &hello, NULL, 0, 0) < 0)
		abort();
	return NULL;
}

static void open_keeper(LateKeeper *keeper, DaemonMounts **ret_mounts)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	keeper->directory = scratch_make();
	(void)snprintf(keeper->path, sizeof(keeper->path), "%s/keeper.sock", keeper->directory);
	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%.100s", keeper->path);
	keeper->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(keeper->listen_fd, (const struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(keeper->listen_fd, 1), 0);
	assert_int_equal(pthread_create(&keeper->thread, NULL, greet, keeper), 0);
	DaemonMountsOptions options = { .runtime = keeper->directory };
	assert_int_equal(daemon_mounts_open(&options, ret_mounts, NULL), 0);
	assert_int_equal(pthread_join(keeper->thread, NULL), 0);
}

static void close_keeper(LateKeeper *keeper)
{
	(void)close(keeper->fd);
	(void)close(keeper->listen_fd);
	scratch_remove(keeper->directory);
}

/* The answer to the first request must not be taken for that of the second. */
static void test_late_answer(_unused_ void **state)
{
	LateKeeper keeper = { .fd = -1 };
	DaemonMounts *mounts = NULL;
	open_keeper(&keeper, &mounts);
	struct timeval patience = { .tv_usec = 20000 };
	assert_int_equal(setsockopt(daemon_mounts_fd(mounts), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), 0);
	assert_false(daemon_mounts_was_late(mounts));
	assert_int_equal(daemon_mounts_keeper(mounts), getpid());
	assert_int_equal(daemon_mounts_detach(mounts, 1, NULL), -ETIMEDOUT);
	assert_true(daemon_mounts_was_late(mounts));
	DaemonMessage late = { .type = DAEMON_ANSWER, .slot = 1 };
	int r = daemon_message_send(keeper.fd, &late, NULL, 0, 0);
	assert_true(r == 0 || r == -EPIPE);
	Error error = { 0 };
	assert_int_equal(daemon_mounts_detach(mounts, 2, &error), -EPIPE);
	assert_non_null(strstr(error.message, "did not answer somebody in time")); /* it is not said to be gone */
	/* Whoever watches it hears of that. */
	struct pollfd watch = { .fd = daemon_mounts_fd(mounts) };
	assert_int_equal(poll(&watch, 1, 0), 1);
	assert_true(watch.revents & POLLHUP);
	(void)daemon_mounts_close(mounts);
	close_keeper(&keeper);
}

/* Nor one of another kind. */
static void test_wrong_answer(_unused_ void **state)
{
	LateKeeper keeper = { .fd = -1 };
	DaemonMounts *mounts = NULL;
	open_keeper(&keeper, &mounts);
	DaemonMessage answer = { .type = DAEMON_HELLO, .count = DAEMON_PROTOCOL };
	assert_int_equal(daemon_message_send(keeper.fd, &answer, NULL, 0, 0), 0);
	answer = (DaemonMessage){ .type = DAEMON_ANSWER, .slot = 1 };
	assert_int_equal(daemon_message_send(keeper.fd, &answer, NULL, 0, 0), 0);
	assert_int_equal(daemon_mounts_detach(mounts, 1, NULL), -EPROTO);
	assert_int_equal(daemon_mounts_detach(mounts, 2, NULL), -EPIPE);
	(void)daemon_mounts_close(mounts);
	close_keeper(&keeper);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_late_answer), cmocka_unit_test(test_wrong_answer) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
