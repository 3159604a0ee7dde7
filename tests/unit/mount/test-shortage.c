/* What a server does when the machine has no descriptors, memory or threads left for a while. */
#include "fs/mount/ops.h"
#include "tests/unit/mount/mount-fixture.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <sys/mman.h>
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

/* Opens it as a request does, so often, and says how many bytes the log got. */
static off_t open_logged(MountImage *image, unsigned times, int result)
{
	int log = memfd_create("log", MFD_CLOEXEC), before = dup(STDERR_FILENO);
	assert_true(log >= 0 && before >= 0 && dup2(log, STDERR_FILENO) >= 0);
	int r = result;
	for (unsigned i = 0; i < times && r == result; i++)
		r = ops_open_image(image);
	assert_true(dup2(before, STDERR_FILENO) >= 0);
	off_t size = lseek(log, 0, SEEK_END);
	(void)close(log);
	(void)close(before);
	assert_int_equal(r, result);
	return size;
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
	assert_true(open_logged(image, 1, -EIO) > 0);
	assert_int_equal(open_logged(image, 10, -EIO), 0); /* that is not said for each request */
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
