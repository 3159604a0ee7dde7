/* What a janitor does without a quota. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "fs/base/fd.h"
#include "fs/cache/cache-evict.h"
#include "fs/mount/janitor.h"
#include "tests/unit/fetch/blob-fixture.h"

/* The lock's file as an eviction leaves it that is killed. */
static void leave_unfinished(const char *directory)
{
	char path[256];
	(void)snprintf(path, sizeof(path), "%s/evict.lock", directory);
	_cleanup_close_ int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 1), 0);
}

static void test_ends_what_was_begun(void **state _unused_)
{
	char *directory = scratch_make();
	Janitor janitor = { 0 };
	int lock;
	assert_int_equal(cache_store_open(directory, true, &janitor.cache, NULL), 0);
	assert_int_equal(server_metrics_open(-1, &janitor.metrics), 0);
	janitor_step(&janitor);
	assert_int_equal(janitor.again, 0);

	/* Somebody is at it: that is looked at later. */
	leave_unfinished(directory);
	assert_int_equal(cache_evict_lock(janitor.cache, false, &lock), 0);
	janitor_step(&janitor);
	assert_true(janitor.again > 0 && cache_evict_is_unfinished(janitor.cache));
	(void)close(lock);

	janitor.again = 1;
	janitor_step(&janitor);
	assert_int_equal(janitor.again, 0);
	assert_false(cache_evict_is_unfinished(janitor.cache));
	leave_unfinished(directory);
	janitor_step(&janitor);
	assert_false(cache_evict_is_unfinished(janitor.cache));

	server_metrics_close(janitor.metrics);
	assert_null(cache_store_free(janitor.cache));
	scratch_remove(directory);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_ends_what_was_begun) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
