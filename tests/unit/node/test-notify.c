/* The service manager's socket, played by the test. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cmocka.h>

#include "fs/base/cleanup.h"
#include "fs/node/node-notify.h"

static int listen_at(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	memcpy(address.sun_path, path, strlen(path));
	if (path[0] == '@')
		address.sun_path[0] = '\0';
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&address,
			      (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path))),
			 0);
	return fd;
}

static void expect(int fd, const char *wanted)
{
	char text[256];
	ssize_t size = recv(fd, text, sizeof(text) - 1, 0);
	assert_true(size > 0);
	text[size] = '\0';
	assert_memory_equal(text, wanted, strlen(wanted));
}

static void test_told(_unused_ void **state)
{
	char path[64], name[64];
	(void)snprintf(path, sizeof(path), "/tmp/imgfs-notify-%d", getpid());
	(void)snprintf(name, sizeof(name), "@imgfs-notify-%d", getpid());
	const char *const paths[] = { path, name };
	for (size_t i = 0; i < ELEMENTS(paths); i++) {
		_cleanup_close_ int fd = listen_at(paths[i]);
		assert_int_equal(setenv("NOTIFY_SOCKET", paths[i], 1), 0);
		node_notify("READY=1");
		expect(fd, "READY=1");
		node_notify_reloading();
		expect(fd, "RELOADING=1\nMONOTONIC_USEC=");
	}
	assert_int_equal(unlink(path), 0);
}

static void test_nobody_listens(_unused_ void **state)
{
	static const char *const paths[] = { "", "/", "relative", "/nowhere/at/all", "vsock:2:3" };
	for (size_t i = 0; i < ELEMENTS(paths); i++) {
		assert_int_equal(setenv("NOTIFY_SOCKET", paths[i], 1), 0);
		node_notify("READY=1");
	}
	char path[300] = "/";
	memset(path + 1, 'x', sizeof(path) - 2);
	path[sizeof(path) - 1] = '\0';
	assert_int_equal(setenv("NOTIFY_SOCKET", path, 1), 0);
	node_notify("READY=1");
	assert_int_equal(unsetenv("NOTIFY_SOCKET"), 0);
	node_notify("READY=1");
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_told), cmocka_unit_test(test_nobody_listens) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
