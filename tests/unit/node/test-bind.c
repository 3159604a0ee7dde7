/* What the table of mounts says of binds and overlays. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "fs/node/node-bind.h"

#define HEX            "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define ROOT           "22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n"
#define BIND(point)    "40 22 0:53 /" HEX " " point " ro,nosuid,nodev - fuse.imgfs imgfs ro\n"
#define TMPFS(point)   "41 22 0:60 / " point " rw - tmpfs tmpfs rw\n"
#define OVERLAY(lower) "50 22 0:70 / /merged rw - overlay overlay rw,lowerdir=" lower ",upperdir=/u,workdir=/w\n"

static void test_bound(_unused_ void **state)
{
	Digest chain_id, other;
	assert_int_equal(digest_from_hex(HEX, &chain_id), 0);
	other = chain_id;
	other.bytes[31]++;
	assert_true(node_bound_search(ROOT BIND("/mnt"), "/mnt", &chain_id));
	assert_true(node_bound_search(ROOT BIND("/mnt") TMPFS("/mnt"), "/mnt", &chain_id));
	assert_true(node_bound_search(BIND("/a\\040b\\134c"), "/a b\\c", &chain_id));
	assert_false(node_bound_search(ROOT BIND("/mnt"), "/mnt", &other));
	assert_false(node_bound_search(ROOT BIND("/mnt/x"), "/mnt", &chain_id));
	assert_false(node_bound_search(ROOT BIND("/x/mnt"), "/mnt", &chain_id));
	assert_false(node_bound_search(ROOT TMPFS("/mnt"), "/mnt", &chain_id));
	assert_false(node_bound_search("", "/mnt", &chain_id));
	assert_false(node_bound_search("40 22 0:53 /" HEX " /mnt ro - ext4 x ro\n", "/mnt", &chain_id));
}

#define PLAIN(dev) "30 22 " dev " / /run/imgfs/fs/plain ro - fuse.imgfs imgfsd:plain ro\n"

/* What a dead keeper has left looks like what the next one mounts, but for the number of its file system. */
static void test_dead_bind(_unused_ void **state)
{
	static const char plain[] = "/run/imgfs/fs/plain";
	assert_true(node_bound_in(ROOT PLAIN("0:53") BIND("/mnt"), "/mnt", plain));
	assert_false(node_bound_in(ROOT PLAIN("0:54") BIND("/mnt"), "/mnt", plain));
	assert_true(node_bound_in(ROOT PLAIN("0:54") PLAIN("0:53") BIND("/mnt"), "/mnt", plain));
	assert_false(node_bound_in(ROOT PLAIN("0:53") BIND("/mnt") TMPFS("/mnt"), "/mnt", plain));
	assert_false(node_bound_in(ROOT BIND("/mnt"), "/mnt", plain));
	assert_false(node_bound_in(ROOT PLAIN("0:53"), "/mnt", plain));
}

/* Whatever lies on top of it. */
static void test_bind_of(_unused_ void **state)
{
	static const char plain[] = "/run/imgfs/fs/plain";
	Digest chain_id;
	assert_int_equal(digest_from_hex(HEX, &chain_id), 0);
	assert_true(node_bound_of(ROOT PLAIN("0:53") BIND("/mnt"), "/mnt", &chain_id, plain));
	assert_true(node_bound_of(ROOT PLAIN("0:53") BIND("/mnt") TMPFS("/mnt"), "/mnt", &chain_id, plain));
	assert_false(node_bound_of(ROOT PLAIN("0:54") BIND("/mnt") TMPFS("/mnt"), "/mnt", &chain_id, plain));
	assert_false(node_bound_of(ROOT PLAIN("0:53") BIND("/x/mnt"), "/mnt", &chain_id, plain));
	assert_false(node_bound_of(ROOT PLAIN("0:53") TMPFS("/mnt"), "/mnt", &chain_id, plain));
	assert_false(node_bound_of(ROOT BIND("/mnt"), "/mnt", &chain_id, plain));
	chain_id.bytes[0]++;
	assert_false(node_bound_of(ROOT PLAIN("0:53") BIND("/mnt"), "/mnt", &chain_id, plain));
}

static void test_overlays(_unused_ void **state)
{
	assert_true(node_overlay_search(ROOT OVERLAY("/mnt"), "/mnt"));
	assert_true(node_overlay_search(OVERLAY("/a:/mnt:/b"), "/mnt"));
	assert_true(node_overlay_search(OVERLAY("/a:/mnt/usr"), "/mnt"));
	assert_true(node_overlay_search(OVERLAY("/a\\040b"), "/a b"));
	assert_false(node_overlay_search(OVERLAY("/mnt2"), "/mnt"));
	assert_false(node_overlay_search(OVERLAY("/x/mnt"), "/mnt"));
	assert_false(node_overlay_search(ROOT TMPFS("/mnt"), "/mnt"));
	assert_false(
		node_overlay_search("50 22 0:70 / /m rw - overlay overlay rw,upperdir=/mnt,lowerdir=/a\n", "/mnt"));
	assert_false(node_overlay_search("50 22 0:70 / /m rw - overlay overlay rw,lowerdir=\n" TMPFS("/mnt"), "/mnt"));
	assert_false(node_overlay_search("", "/mnt"));
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_bound), cmocka_unit_test(test_dead_bind),
					    cmocka_unit_test(test_bind_of), cmocka_unit_test(test_overlays) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
