/* Mounts as containerd's overlayfs snapshotter gives them, and mappings of ids. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "snapshotter/plan.h"

static const PlanHost plain = { .snapshots = "/r/snapshots", .index_off = true };
static const PlanHost within = { .snapshots = "/r/snapshots", .user_xattr = true };
static char *const lowers[] = { (char[]){ "/r/snapshots/2/fs" }, (char[]){ "/r/snapshots/1/fs" } };

static void check(const PlanHost *host, MetaKind kind, size_t count, const char *type, const char *source,
		  const char *options)
{
	PlanMount mount;
	char joined[512] = "";
	assert_int_equal(plan_mount(host, 3, kind, lowers, count, &mount), 0);
	assert_string_equal(mount.type, type);
	assert_string_equal(mount.source, source);
	for (size_t i = 0; i < mount.option_count; i++)
		(void)strcat(strcat(joined, i ? " " : ""), mount.options[i]);
	assert_string_equal(joined, options);
	plan_mount_done(&mount);
}

static void test_mounts(void **state _unused_)
{
	check(&plain, META_ACTIVE, 0, "bind", "/r/snapshots/3/fs", "rw rbind");
	check(&plain, META_VIEW, 0, "bind", "/r/snapshots/3/fs", "ro rbind");
	check(&plain, META_VIEW, 1, "bind", "/r/snapshots/2/fs", "ro rbind");
	check(&plain, META_VIEW, 2, "overlay", "overlay", "index=off lowerdir=/r/snapshots/2/fs:/r/snapshots/1/fs");
	check(&plain, META_ACTIVE, 1, "overlay", "overlay",
	      "index=off workdir=/r/snapshots/3/work upperdir=/r/snapshots/3/fs lowerdir=/r/snapshots/2/fs");
	check(&within, META_ACTIVE, 2, "overlay", "overlay",
	      "userxattr workdir=/r/snapshots/3/work upperdir=/r/snapshots/3/fs "
	      "lowerdir=/r/snapshots/2/fs:/r/snapshots/1/fs");
}

static void check_id(const char *mapping, uint32_t id, int64_t expected)
{
	uint32_t mapped = 0;
	Error error = { 0 };
	int r = plan_map_id(mapping, id, &mapped, &error);
	if (expected < 0) {
		assert_int_equal(r, -EINVAL);
		assert_non_null(strstr(error.message, mapping));
	} else {
		assert_int_equal(r, 0);
		assert_int_equal(mapped, expected);
	}
}

static void test_ids(void **state _unused_)
{
	check_id("0:100000:65536", 0, 100000);
	check_id("0:100000:65536", 65535, 165535);
	check_id("0:100000:65536", 65536, -1);
	check_id("0:1000:1,1:100000:65536", 7, 100006);
	check_id("0:0:4294967295", 4294967294, 4294967294);
	static const char *const bad[] = { "",      "0", "0:1", "0:1:", "0:1:2,", "a:1:2", "0:1:2:3", "0:4294967295:2",
					   "-1:0:5" };
	for (size_t i = 0; i < ELEMENTS(bad); i++)
		check_id(bad[i], 0, -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_mounts),
		cmocka_unit_test(test_ids),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
