/* What a server does when the machine has no descriptors, memory or threads left for a while. */
#include "tests/unit/mount/mount-fixture.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <sys/syscall.h>

static _Atomic int starving; /* so many reads of requests are still to fail */

/* In libc's place. */
ssize_t read(int fd, void *buffer, size_t size)
{
	if (size == JOURNAL_RECEIVE_SIZE && atomic_load(&starving) > 0 && atomic_fetch_sub(&starving, 1) > 0) {
		errno = ENFILE;
		return -1;
	}
	return syscall(SYS_read, fd, buffer, size);
}

static void test_read(_unused_ void **state)
{
	MountFixture fixture;
	RunningMount running;
	static Reply reply;
	mount_fixture_make(&fixture, &(MountFixtureOptions){ 0 });
	starving = 2 * JOURNAL_RECEIVE_SLOTS; /* each of its threads meets it */
	mount_fixture_start(&fixture, &running);
	assert_int_equal(request(&fixture, FUSE_LOOKUP, NODE(ROOT), "file", sizeof("file"), &reply), 0);
	assert_int_equal(request_read(&fixture, NODE(FILE_INODE), 0, 1000, &reply), 0);
	assert_memory_equal(reply.body, fixture.blob.tar + 1, 1000);
	mount_fixture_stop(&fixture, &running); /* no thread of the session has ended before */
	mount_fixture_done(&fixture);
}

/* Stacks that no address space has room for. */
static size_t set_stacks(size_t size)
{
	pthread_attr_t attributes;
	size_t before;
	assert_int_equal(pthread_getattr_default_np(&attributes), 0);
	assert_int_equal(pthread_attr_getstacksize(&attributes, &before), 0);
	assert_int_equal(pthread_attr_setstacksize(&attributes, size), 0);
	assert_int_equal(pthread_setattr_default_np(&attributes), 0);
	assert_int_equal(pthread_attr_destroy(&attributes), 0);
	return before;
}

/* An image that cannot be opened now is not refused for as long as the server lives. */
static void test_no_threads(_unused_ void **state)
{
	MountFixture fixture;
	MountServer *server;
	MountImage *image;
	Error error = { 0 };
	mount_fixture_make(&fixture, &(MountFixtureOptions){ 0 });
	assert_int_equal(mount_server_new(fixture.plan.metrics_fd, &server), 0);
	assert_int_equal(mount_fixture_add(server, &fixture.plan, &(MountPlace){ .name = "" }, &image), 0);
	size_t before = set_stacks((size_t)1 << 60);
	assert_int_equal(mount_image_open(image, &error), -EAGAIN);
	(void)set_stacks(before);
	assert_int_equal(mount_image_open(image, &error), 0);
	mount_image_unref(image);
	mount_server_stop(server);
	mount_server_free(server);
	mount_fixture_done(&fixture);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_read), cmocka_unit_test(test_no_threads) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
