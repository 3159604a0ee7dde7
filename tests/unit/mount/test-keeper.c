/* What a keeper decides without a kernel: the answer to FUSE_INIT, the back-off, the mount table, the ready pipe. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "fs/mount/arguments.h"
#include "fs/mount/backoff.h"
#include "fs/mount/handshake.h"
#include "fs/mount/mount-table.h"
#include "fs/mount/process.h"

typedef struct Init {
	struct fuse_in_header header;
	struct fuse_init_in body;
} Init;

#define IDMAP     (1u << (40 - 32))
#define ESSENTIAL (FUSE_NO_OPEN_SUPPORT | FUSE_NO_OPENDIR_SUPPORT | FUSE_MAX_PAGES)

static Init make_init(uint32_t minor, uint32_t flags, uint32_t flags2)
{
	return (Init){
		.header = { .len = sizeof(Init), .opcode = FUSE_INIT, .unique = 2 },
		.body = { .major = 7, .minor = minor, .max_readahead = 131072, .flags = flags, .flags2 = flags2 },
	};
}

static void test_everything_offered(_unused_ void **state)
{
	Init init = make_init(45, UINT32_MAX, UINT32_MAX);
	HandshakeReply reply;
	Error error = { 0 };
	assert_int_equal(handshake_answer(&init, sizeof(init), true, &reply, &error), 0);
	assert_int_equal(reply.header.len, sizeof(struct fuse_out_header) + 64);
	assert_int_equal(reply.header.unique, 2);
	assert_int_equal(reply.header.error, 0);
	assert_int_equal(reply.body.major, 7);
	assert_int_equal(reply.body.minor, FUSE_KERNEL_MINOR_VERSION);
	assert_int_equal(reply.body.max_pages, 256);
	assert_int_equal(reply.body.max_write, 4096);
	assert_int_equal(reply.body.flags2, IDMAP);
	assert_int_equal(reply.body.flags, ESSENTIAL | FUSE_ASYNC_READ | FUSE_EXPORT_SUPPORT | FUSE_DO_READDIRPLUS |
						   FUSE_READDIRPLUS_AUTO | FUSE_PARALLEL_DIROPS | FUSE_CACHE_SYMLINKS |
						   FUSE_INIT_EXT | FUSE_POSIX_ACL);
}

/* An ENOSYS to getxattr would reach whoever has a permission checked. */
static void test_no_acl_without_xattrs(_unused_ void **state)
{
	Init init = make_init(45, UINT32_MAX, UINT32_MAX);
	HandshakeReply reply;
	assert_int_equal(handshake_answer(&init, sizeof(init), false, &reply, NULL), 0);
	assert_false(reply.body.flags & FUSE_POSIX_ACL);
}

static void test_never_more_than_offered(_unused_ void **state)
{
	Init init = make_init(31, ESSENTIAL, UINT32_MAX);
	HandshakeReply reply;
	assert_int_equal(handshake_answer(&init, sizeof(init), true, &reply, NULL), 0);
	assert_int_equal(reply.body.flags, ESSENTIAL);
	assert_int_equal(reply.body.flags2, 0);
	assert_int_equal(reply.body.minor, 31);
}

/* Linux before 5.17 sends 16 bytes, without flags2. */
static void test_short_init(_unused_ void **state)
{
	Init init = make_init(31, ESSENTIAL | FUSE_INIT_EXT, UINT32_MAX);
	HandshakeReply reply;
	size_t size = sizeof(struct fuse_in_header) + offsetof(struct fuse_init_in, flags2);
	assert_int_equal(handshake_answer(&init, size, false, &reply, NULL), 0);
	assert_int_equal(reply.body.flags2, 0);
	assert_int_equal(handshake_answer(&init, size - 1, false, &reply, NULL), -EPROTO);
}

static void test_bad_init(_unused_ void **state)
{
	HandshakeReply reply;
	Init init = make_init(45, UINT32_MAX & ~FUSE_NO_OPENDIR_SUPPORT, 0);
	Error error = { 0 };
	assert_int_equal(handshake_answer(&init, sizeof(init), false, &reply, &error), -EOPNOTSUPP);
	assert_non_null(strstr(error.message, "Linux 5.1"));
	init = make_init(45, UINT32_MAX, 0);
	init.header.opcode = FUSE_LOOKUP;
	assert_int_equal(handshake_answer(&init, sizeof(init), false, &reply, NULL), -EPROTO);
	init = make_init(45, UINT32_MAX, 0);
	init.body.major = 8;
	assert_int_equal(handshake_answer(&init, sizeof(init), false, &reply, NULL), -EPROTO);
}

static void test_backoff(_unused_ void **state)
{
	Backoff backoff = { 0 };
	for (int i = 0; i < 100; i++)
		assert_int_equal(backoff_next(&backoff, BACKOFF_SHORT_LIFE, false), 0);
	static const unsigned delays[] = { 0, 0, 0, 0, 50, 100, 200, 400, 800, 1000, 1000 };
	for (size_t i = 0; i < ELEMENTS(delays); i++)
		assert_int_equal(backoff_next(&backoff, BACKOFF_SHORT_LIFE - 1, false), delays[i]);
	for (int i = 0; i < 1000; i++)
		assert_int_equal(backoff_next(&backoff, 0, false), BACKOFF_MAX);
	assert_int_equal(backoff_next(&backoff, 5000, false), 0);
	for (int i = 0; i < 100; i++)
		assert_int_equal(backoff_next(&backoff, 0, true), 0);
	assert_int_equal(backoff_next(&backoff, 0, false), 0);
}

static int search(const char *text, const char *directory, MountEntry *ret_entry)
{
	_cleanup_free_ char *copy = strdup(text);
	assert_non_null(copy);
	return mount_table_search(copy, directory, ret_entry);
}

#define IMGFS(id, dev, path) id " 1 " dev " / " path " ro,nosuid,nodev - fuse.imgfs imgfs:b/n:t ro,user_id=0\n"
#define EXT4(path)           "99 1 8:1 / " path " rw shared:1 master:2 - ext4 /dev/sda1 rw\n"

static void test_mount_table(_unused_ void **state)
{
	MountEntry entry;
	const char *table = EXT4("/") IMGFS("30", "0:53", "/mnt/a") IMGFS("31", "0:54", "/mnt/a\\040b\\134c");
	assert_int_equal(search(table, "/mnt/a", &entry), 0);
	assert_int_equal(entry.major, 0);
	assert_int_equal(entry.minor, 53);
	assert_int_equal(search(table, "/mnt/a b\\c", &entry), 0);
	assert_int_equal(entry.minor, 54);
	assert_int_equal(search(table, "/", &entry), -EINVAL);
	assert_int_equal(search(table, "/mnt", &entry), -ENOENT);
	assert_int_equal(search("", "/mnt", &entry), -ENOENT);
	assert_int_equal(search("30 1 0:53\n", "/mnt", &entry), -ENOENT);
	assert_int_equal(search("30 1 0:53 / /mnt ro shared:1\n", "/mnt", &entry), -EINVAL);
	assert_int_equal(search("30 1 x / /mnt ro - fuse.imgfs s ro\n", "/mnt", &entry), -EINVAL);
}

/* The last line of a mount point is the mount on top. */
static void test_mount_table_stack(_unused_ void **state)
{
	MountEntry entry;
	assert_int_equal(search(IMGFS("30", "0:53", "/m") IMGFS("31", "0:54", "/m"), "/m", &entry), 0);
	assert_int_equal(entry.minor, 54);
	assert_int_equal(search(EXT4("/m") IMGFS("30", "0:53", "/m"), "/m", &entry), 0);
	assert_int_equal(search(IMGFS("30", "0:53", "/m") EXT4("/m"), "/m", &entry), -EINVAL);
}

static void test_mount_path(_unused_ void **state)
{
	char directory[] = "/tmp/imgfs-test-XXXXXX", text[PATH_MAX], path[PATH_MAX], real[PATH_MAX];
	assert_non_null(mkdtemp(directory));
	assert_non_null(realpath(directory, real));
	(void)snprintf(text, sizeof(text), "%s/link", directory);
	assert_int_equal(symlink(directory, text), 0);
	static const char *const forms[] = { "", "/", "///", "/.", "/link", "/link/" };
	for (size_t i = 0; i < ELEMENTS(forms); i++) {
		(void)snprintf(text, sizeof(text), "%s%s", directory, forms[i]);
		assert_int_equal(mount_table_path(text, path), 0);
		assert_string_equal(path, real);
	}
	assert_int_equal(mount_table_path("/", path), 0);
	assert_string_equal(path, "/");
	assert_int_equal(mount_table_path("/proc/", path), 0);
	assert_string_equal(path, "/proc");
	(void)snprintf(text, sizeof(text), "%s/missing", directory);
	assert_int_equal(mount_table_path(text, path), -ENOENT);
	(void)snprintf(text, sizeof(text), "%s/link", directory);
	assert_int_equal(unlink(text), 0);
	assert_int_equal(rmdir(directory), 0);
}

static void test_numbers(_unused_ void **state)
{
	long number = -7;
	assert_true(argument_number("0", 9, &number));
	assert_int_equal(number, 0);
	assert_true(argument_number("9", 9, &number));
	static const char *const bad[] = { "", "10", "-1", "+1", " 1", "1x", "99999999999999999999" };
	for (size_t i = 0; i < ELEMENTS(bad); i++)
		assert_false(argument_number(bad[i], 9, &number));
	assert_int_equal(number, 9);
}

static void test_ready_pipe(_unused_ void **state)
{
	char sentence[32];
	int ends[2];
	assert_int_equal(pipe(ends), 0);
	assert_int_equal(ready_send(ends[1], NULL), 0);
	assert_int_equal(ready_wait(ends[0], sentence, sizeof(sentence)), 0);
	assert_int_equal(ready_wait(ends[0], sentence, sizeof(sentence)), -EPIPE);
	close(ends[0]);

	assert_int_equal(pipe(ends), 0);
	assert_int_equal(ready_send(ends[1], "Ready, but no: it is far too long a story"), 0);
	assert_int_equal(ready_wait(ends[0], sentence, sizeof(sentence)), -ECANCELED);
	assert_string_equal(sentence, "Ready, but no: it is far too lo");
	close(ends[0]);
}

static void test_dying(_unused_ void **state)
{
	assert_true(process_status_is_dying("Name:\tcat\nSigQ:\t0/9\nSigPnd:\t0000000000000100\nShdPnd:\t0\n"));
	assert_true(process_status_is_dying("Name:\tcat\nSigPnd:\t0000000000004102\n"));
	assert_false(process_status_is_dying("Name:\tcat\nSigPnd:\t0000000000004000\nShdPnd:\t0000000000000100\n"));
	assert_false(process_status_is_dying("Name:\tSigPnd:100\n"));
	assert_false(process_status_is_dying(""));
	assert_false(process_is_dying(getpid()));
	assert_false(process_is_dying(0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_everything_offered),
		cmocka_unit_test(test_no_acl_without_xattrs),
		cmocka_unit_test(test_never_more_than_offered),
		cmocka_unit_test(test_short_init),
		cmocka_unit_test(test_bad_init),
		cmocka_unit_test(test_backoff),
		cmocka_unit_test(test_mount_table),
		cmocka_unit_test(test_mount_table_stack),
		cmocka_unit_test(test_mount_path),
		cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_ready_pipe),
		cmocka_unit_test(test_dying),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
