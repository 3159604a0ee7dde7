/* Directories of snapshots, in a directory of the test's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "snapshotter/mounts-tree.h"
#include "snapshotter/mounts.h"

/* In libc's place: right after a look at it a directory "vanishing" becomes a file. */
int fstatat(int fd, const char *restrict name, struct stat *restrict ret_status, int flags)
{
	struct statx found;
	if (statx(fd, name, flags, STATX_BASIC_STATS, &found) < 0)
		return -1;
	*ret_status = (struct stat){
		.st_dev = makedev(found.stx_dev_major, found.stx_dev_minor),
		.st_ino = found.stx_ino,
		.st_mode = found.stx_mode,
		.st_nlink = found.stx_nlink,
		.st_uid = found.stx_uid,
		.st_gid = found.stx_gid,
		.st_blocks = (blkcnt_t)found.stx_blocks,
	};
	if (strcmp(name, "vanishing") == 0 && unlinkat(fd, name, AT_REMOVEDIR) == 0)
		assert_int_equal(close(openat(fd, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600)), 0);
	return 0;
}

typedef struct Place {
	char root[64];
	Mounts mounts;
} Place;

static int setup(void **state)
{
	static Place place;
	(void)strcpy(place.root, "/tmp/imgfs-mounts-XXXXXX");
	(void)umask(0);
	*state = &place;
	return mkdtemp(place.root) ? mounts_open(place.root, &place.mounts, NULL) : -1;
}

static int teardown(void **state)
{
	Place *place = *state;
	mounts_close(&place->mounts);
	return mounts_tree_remove(AT_FDCWD, place->root);
}

static void test_directories(void **state)
{
	const Mounts *mounts = &((Place *)*state)->mounts;
	struct stat status;
	uid_t uid;
	gid_t gid;
	uint64_t *ids;
	size_t count;
	assert_int_equal(mounts_create(mounts, 1, true, getuid(), getgid(), NULL), 0);
	assert_int_equal(fstatat(mounts->snapshots_fd, "1/fs", &status, 0), 0);
	assert_int_equal(status.st_mode, S_IFDIR | 0755);
	assert_int_equal(fstatat(mounts->snapshots_fd, "1/work", &status, 0), 0);
	assert_int_equal(status.st_mode, S_IFDIR | 0711);
	assert_int_equal(mounts_owner(mounts, 1, &uid, &gid, NULL), 0);
	assert_int_equal(uid, getuid());
	assert_int_equal(mounts_create(mounts, 2, false, getuid(), getgid(), NULL), 0);
	assert_int_equal(fstatat(mounts->snapshots_fd, "2/work", &status, 0), -1);
	Error error = { 0 };
	assert_int_equal(mounts_create(mounts, 2, false, 0, 0, &error), -EIO); /* never EEXIST, which means a key */
	assert_int_equal(mounts_owner(mounts, 3, &uid, &gid, &error), -EIO);
	assert_int_equal(mkdirat(mounts->snapshots_fd, "lost+found", 0700), 0);
	assert_int_equal(mounts_ids(mounts, &ids, &count, NULL), 0);
	assert_int_equal(count, 2);
	free(ids);
	assert_int_equal(mounts_remove(mounts, 1, NULL), 0);
	assert_int_equal(mounts_remove(mounts, 1, NULL), 0);
}

static void test_usage(void **state)
{
	const Mounts *mounts = &((Place *)*state)->mounts;
	int64_t size, inodes, more;
	assert_int_equal(mounts_create(mounts, 1, true, getuid(), getgid(), NULL), 0);
	assert_int_equal(mounts_usage(mounts, 1, &size, &inodes, NULL), 0);
	assert_int_equal(inodes, 1);
	int fd = openat(mounts->snapshots_fd, "1/fs/a", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	static const char block[8192] = "x";
	assert_int_equal(write(fd, block, sizeof(block)), sizeof(block));
	assert_int_equal(fsync(fd), 0);
	(void)close(fd);
	assert_int_equal(mkdirat(mounts->snapshots_fd, "1/fs/d", 0755), 0);
	assert_int_equal(linkat(mounts->snapshots_fd, "1/fs/a", mounts->snapshots_fd, "1/fs/d/b", 0), 0);
	assert_int_equal(symlinkat("/", mounts->snapshots_fd, "1/fs/d/s"), 0);
	assert_int_equal(mounts_usage(mounts, 1, &more, &inodes, NULL), 0);
	assert_int_equal(inodes, 4);
	assert_in_range(more - size, 8192, 8192 + 2 * 4096);
}

/* Deeper than there may be descriptors, or a path may be long. */
static void test_deep(void **state)
{
	const Mounts *mounts = &((Place *)*state)->mounts;
	int64_t size, inodes;
	assert_int_equal(mounts_create(mounts, 1, false, getuid(), getgid(), NULL), 0);
	int at = openat(mounts->snapshots_fd, "1/fs", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (unsigned i = 0; i < 900; i++) {
		assert_int_equal(mkdirat(at, "directory", 0700), 0);
		int next = openat(at, "directory", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		(void)close(at);
		at = next;
	}
	(void)close(at);
	assert_int_equal(mounts_usage(mounts, 1, &size, &inodes, NULL), 0);
	assert_int_equal(inodes, 901);
	assert_int_equal(mounts_remove(mounts, 1, NULL), 0);
	struct stat status;
	assert_int_equal(fstatat(mounts->snapshots_fd, "1", &status, 0), -1);
}

/* What is mounted within, by a client's mount that came here by propagation say, is neither counted nor emptied. */
static void test_mounted_within(void **state)
{
	Place *place = *state;
	const Mounts *mounts = &place->mounts;
	char inner[160], outer[160], file[200];
	int64_t size, inodes;
	Error error = { 0 };
	(void)snprintf(inner, sizeof(inner), "%s/snapshots/1/fs/d", place->root);
	(void)snprintf(outer, sizeof(outer), "%s/outer", place->root);
	(void)snprintf(file, sizeof(file), "%s/precious", outer);
	if (unshare(CLONE_NEWNS) < 0) {
		print_message("mounting is not allowed here\n");
		skip();
	}
	assert_int_equal(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	mounts_close(&place->mounts); /* its descriptors see the mounts of before */
	assert_int_equal(mounts_open(place->root, &place->mounts, NULL), 0);
	assert_int_equal(mounts_create(mounts, 1, false, getuid(), getgid(), NULL), 0);
	assert_int_equal(mkdir(inner, 0700) | mkdir(outer, 0700) | mkdir(file, 0700), 0);
	assert_int_equal(mount(outer, inner, NULL, MS_BIND, NULL), 0);
	assert_int_equal(mounts_usage(mounts, 1, &size, &inodes, NULL), 0);
	assert_int_equal(inodes, 2);
	assert_int_equal(mounts_remove(mounts, 1, &error), -EIO);
	assert_non_null(strstr(error.message, strerror(EBUSY)));
	assert_int_equal(access(file, F_OK), 0);
	assert_int_equal(umount2(inner, 0), 0);
	assert_int_equal(mounts_remove(mounts, 1, NULL), 0);
}

static void test_alone(void **state)
{
	const Place *place = *state;
	Mounts other;
	Error error = { 0 };
	assert_int_equal(mounts_open(place->root, &other, &error), -EBUSY);
	assert_non_null(strstr(error.message, place->root));
	assert_int_equal(mounts_open("/dev/null/x", &other, &error), -EIO);
	assert_int_equal(mounts_open("/tmp/a:b", &other, &error), -EINVAL);
	(void)rmdir("/tmp/a:b");
}

/* A file that was being replaced when its writer was killed. */
static void test_swept(void **state)
{
	Place *place = *state;
	char left[96], kept[96];
	(void)snprintf(left, sizeof(left), "%s/.tmp-0123456789abcdef", place->root);
	(void)snprintf(kept, sizeof(kept), "%s/whole.json", place->root);
	assert_int_equal(close(creat(left, 0600)), 0);
	assert_int_equal(close(creat(kept, 0600)), 0);
	mounts_close(&place->mounts);
	assert_int_equal(mounts_open(place->root, &place->mounts, NULL), 0);
	assert_int_equal(access(left, F_OK), -1);
	assert_int_equal(access(kept, F_OK), 0);
}

/* What a container changes while its files are counted is counted or not, and no failure. */
static void test_changing(void **state)
{
	const Mounts *mounts = &((Place *)*state)->mounts;
	int64_t size, inodes;
	assert_int_equal(mounts_create(mounts, 1, true, getuid(), getgid(), NULL), 0);
	assert_int_equal(mkdirat(mounts->snapshots_fd, "1/fs/vanishing", 0700), 0);
	assert_int_equal(mounts_usage(mounts, 1, &size, &inodes, NULL), 0);
	assert_int_equal(inodes, 2);
	assert_int_equal(mounts_usage(mounts, 1, &size, &inodes, NULL), 0);
	assert_int_equal(inodes, 2);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = { TEST(test_directories),    TEST(test_usage), TEST(test_deep),
					    TEST(test_mounted_within), TEST(test_alone), TEST(test_swept),
					    TEST(test_changing) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
