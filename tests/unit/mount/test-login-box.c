/* Logins that the manager leaves for the server, in the memory of its metrics. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/mount/login-box.h"

static void test_left_and_found(void **state _unused_)
{
	LoginBoxes *manager, *server;
	int fd;
	uint32_t serial = 0;
	char *now = NULL;
	assert_int_equal(server_metrics_create(&fd), 0);
	assert_int_equal(login_box_open(fd, &manager), 0);
	assert_int_equal(login_box_open(fd, &server), 0);
	(void)close(fd);
	assert_int_equal(login_box_read(server, "old", &serial, &now), -ENOENT);
	char before[] = "old", after[] = "{\"user\": \"new\"}", other[] = "other";
	const LoginPair pairs[] = { { before, after }, { other, after } };
	assert_int_equal(login_box_write(manager, pairs, 2), 0);
	assert_int_equal(login_box_read(server, "old", &serial, &now), 0);
	assert_string_equal(now, after);
	free(now);
	/* Once: what was refused as well is not given again. */
	assert_int_equal(login_box_read(server, "old", &serial, &now), -ENOENT);
	uint32_t none = 0;
	assert_int_equal(login_box_read(server, "nobody's", &none, &now), -ENOENT);
	assert_int_equal(login_box_write(manager, pairs, 1), 0);
	assert_int_equal(login_box_read(server, "old", &serial, &now), 0);
	free(now);
	/* What is being written is nobody's. */
	atomic_fetch_add(&manager->box.serial, 1);
	assert_int_equal(login_box_read(server, "old", &serial, &now), -EAGAIN);
	/* Too much stays out, and what was there stays. */
	atomic_fetch_add(&manager->box.serial, 1);
	char *much = malloc(LOGIN_BOX_MAX + 1);
	assert_non_null(much);
	memset(much, 'x', LOGIN_BOX_MAX);
	much[LOGIN_BOX_MAX] = '\0';
	assert_int_equal(login_box_write(manager, &(LoginPair){ before, much }, 1), -EFBIG);
	free(much);
	assert_int_equal(login_box_read(server, "old", &serial, &now), 0);
	assert_string_equal(now, after);
	free(now);
	login_box_close(manager);
	login_box_close(server);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_left_and_found) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
