/* What is believed of a process that looks like a keeper of the daemon's: this one. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "fs/mount/mount-observe-private.h"

/* Puts a file there that a keeper might have open as its view; returns its descriptor. Other runs of this test share the directory. */
static int open_view(const char *directory, const char *path)
{
	int fd;
	do {
		assert_true(mkdir(directory, 0777) == 0 || errno == EEXIST);
		fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	} while (fd < 0 && errno == ENOENT);
	assert_true(fd >= 0);
	return fd;
}

/*
 * The view's name is longer than a digest, and the path of a file that ends with its beginning is shorter than the name: nothing is to
 * be cut off there.
 */
static void test_long_chain_id(_unused_ void **state)
{
	static const char directory[] = "/tmp/views";
	StartRecordLabel label = { .source = "imgfs:host/name:tag@sha256:12" };
	KeeperProcess keeper = { .pid = getpid(), .directory = (char *)(uintptr_t) "/nowhere" };
	MountsObserved observed = { 0 };
	char path[128];
	int used = snprintf(label.place, sizeof(label.place), "/%d", getpid());
	memset(label.place + used, 'a', sizeof(label.place) - 1 - (size_t)used);
	(void)snprintf(path, sizeof(path), "%s/%.73s", directory, label.place + 1);
	int view = open_view(directory, path), record, metrics;
	assert_int_equal(start_record_create(&label, NULL, 0, &record), 0);
	assert_int_equal(server_metrics_create(&metrics), 0);
	assert_int_equal(mount_observe_daemon(&keeper, true, &observed), 0);
	assert_int_equal(observed.count, 1);
	assert_int_equal(observed.daemon_count, 1);
	assert_string_equal(observed.items[0].reference, "host/name:tag");
	assert_null(observed.items[0].plan.layers);
	mounts_observed_done(&observed);
	(void)close(metrics);
	(void)close(record);
	(void)close(view);
	assert_int_equal(unlink(path), 0);
	(void)rmdir(directory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_long_chain_id),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
