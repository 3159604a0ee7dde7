#include "snapshotter/mounts.h"

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "fs/base/fd.h"
#include "snapshotter/mounts-tree.h"

#define ID_TEXT 24

static int fail(Error *error, int r, const char *what, const char *path)
{
	int code = r == -ENOSPC || r == -EDQUOT ? -ENOSPC : r == -ENOMEM ? -ENOMEM : -EIO;
	return error_set(error, code, "%s %s failed: %s", what, path, strerror(-r));
}

static const char *id_text(uint64_t id, char text[static ID_TEXT])
{
	(void)snprintf(text, ID_TEXT, "%" PRIu64, id);
	return text;
}

static int take_lock(Mounts *mounts, Error *error)
{
	_cleanup_free_ char *path = NULL;
	if (asprintf(&path, "%s/lock", mounts->root) < 0)
		return fail(error, -ENOMEM, "locking", mounts->root);
	mounts->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (mounts->lock_fd < 0)
		return fail(error, -errno, "opening", path);
	if (flock(mounts->lock_fd, LOCK_EX | LOCK_NB) < 0)
		return errno == EWOULDBLOCK
			       ? error_set(error, -EBUSY,
					   "another imgfs-snapshotter uses %s: end it first, or give this one "
					   "another --root",
					   mounts->root)
			       : fail(error, -errno, "locking", path);
	return 0;
}

/* user_namespaces(7): the initial one maps every id to itself. */
static bool in_user_namespace(void)
{
	uint32_t inside, outside, count;
	_cleanup_fclose_ FILE *map = fopen("/proc/self/uid_map", "re");
	if (!map || fscanf(map, "%" SCNu32 " %" SCNu32 " %" SCNu32, &inside, &outside, &count) != 3)
		return false;
	return inside != 0 || outside != 0 || count != UINT32_MAX;
}

/* What a crash has left of files that were being replaced; with the lock held nobody writes one. */
static int sweep(const Mounts *mounts, Error *error)
{
	_cleanup_closedir_ DIR *directory = opendir(mounts->root);
	if (!directory)
		return fail(error, -errno, "reading", mounts->root);
	for (struct dirent *entry; (entry = readdir(directory));)
		if (strncmp(entry->d_name, ".tmp-", 5) == 0)
			(void)unlinkat(dirfd(directory), entry->d_name, 0);
	return 0;
}

int mounts_open(const char *root, Mounts *ret_mounts, Error *error)
{
	_cleanup_(mounts_close) Mounts mounts = { .lock_fd = -1, .snapshots_fd = -1 };
	int r = fd_make_directories(AT_FDCWD, root, 0700);
	if (r < 0)
		return fail(error, r, "making", root);
	mounts.root = realpath(root, NULL);
	if (!mounts.root || asprintf(&mounts.snapshots, "%s/snapshots", mounts.root) < 0)
		return fail(error, -errno, "finding", root);
	/* What overlayfs takes as separators in its options would have to be escaped, which not every client does. */
	if (strpbrk(mounts.root, ":,\\"))
		return error_set(error, -EINVAL, "the root %s must not have ':', ',' or '\\' in its path", mounts.root);
	r = take_lock(&mounts, error);
	if (r == 0)
		r = sweep(&mounts, error);
	if (r < 0)
		return r;
	if (mkdir(mounts.snapshots, 0700) < 0 && errno != EEXIST)
		return fail(error, -errno, "making", mounts.snapshots);
	mounts.snapshots_fd = open(mounts.snapshots, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (mounts.snapshots_fd < 0)
		return fail(error, -errno, "opening", mounts.snapshots);
	mounts.host = (PlanHost){
		.snapshots = mounts.snapshots,
		.index_off = access("/sys/module/overlay/parameters/index", F_OK) == 0,
		.user_xattr = in_user_namespace(),
	};
	*ret_mounts = mounts;
	mounts = (Mounts){ .lock_fd = -1, .snapshots_fd = -1 };
	return 0;
}

void mounts_close(Mounts *mounts)
{
	close_p(&mounts->snapshots_fd);
	close_p(&mounts->lock_fd);
	free(mounts->root);
	free(mounts->snapshots);
	*mounts = (Mounts){ .lock_fd = -1, .snapshots_fd = -1 };
}

/* mkdir() minds the umask, which main() has set to 0. */
static int make_parts(int fd, bool writable, uid_t uid, gid_t gid)
{
	if (mkdirat(fd, "fs", 0755) < 0 || (writable && mkdirat(fd, "work", 0711) < 0))
		return -errno;
	if ((uid != 0 || gid != 0) && fchownat(fd, "fs", uid, gid, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	return 0;
}

int mounts_create(const Mounts *mounts, uint64_t id, bool writable, uid_t uid, gid_t gid, Error *error)
{
	char name[ID_TEXT];
	(void)id_text(id, name);
	if (mkdirat(mounts->snapshots_fd, name, 0700) < 0)
		return fail(error, -errno, "making the directory of snapshot", name);
	_cleanup_close_ int fd = openat(mounts->snapshots_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r = fd < 0 ? -errno : make_parts(fd, writable, uid, gid);
	if (r == 0)
		return 0;
	int removal = mounts_tree_remove(mounts->snapshots_fd, name); /* else Cleanup does it */
	(void)removal;
	return fail(error, r, "making the directories of snapshot", name);
}

static bool links_to(int fd, const char *tree)
{
	char target[PATH_MAX];
	ssize_t size = readlinkat(fd, "fs", target, sizeof(target));
	return size >= 0 && (size_t)size == strlen(tree) && memcmp(target, tree, (size_t)size) == 0;
}

/* The tree may be somewhere else than before; whoever mounts meanwhile finds the one or the other. */
static int replace_link(int fd, const char *tree)
{
	char name[32];
	(void)snprintf(name, sizeof(name), ".fs-%d", (int)gettid());
	if (unlinkat(fd, name, 0) < 0 && errno != ENOENT)
		return -errno;
	return symlinkat(tree, fd, name) < 0 || renameat(fd, name, fd, "fs") < 0 ? -errno : 0;
}

int mounts_link(const Mounts *mounts, uint64_t id, const char *tree, char **ret_path, Error *error)
{
	char name[ID_TEXT];
	(void)id_text(id, name);
	if (mkdirat(mounts->snapshots_fd, name, 0700) < 0 && errno != EEXIST)
		return fail(error, -errno, "making the directory of snapshot", name);
	_cleanup_close_ int fd = openat(mounts->snapshots_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r = fd < 0 ? -errno : links_to(fd, tree) ? 0 : replace_link(fd, tree);
	if (r < 0)
		return fail(error, r, "making the link to the tree of snapshot", name);
	*ret_path = plan_directory(&mounts->host, id, "fs");
	return *ret_path ? 0 : fail(error, -ENOMEM, "making the link to the tree of snapshot", name);
}

static int open_fs(const Mounts *mounts, uint64_t id, Error *error)
{
	char path[ID_TEXT + 4];
	(void)snprintf(path, sizeof(path), "%" PRIu64 "/fs", id);
	int fd = openat(mounts->snapshots_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	return fd < 0 ? fail(error, -errno, "opening the directory", path) : fd;
}

int mounts_owner(const Mounts *mounts, uint64_t id, uid_t *ret_uid, gid_t *ret_gid, Error *error)
{
	struct stat status;
	_cleanup_close_ int fd = open_fs(mounts, id, error);
	if (fd < 0)
		return fd;
	if (fstat(fd, &status) < 0)
		return fail(error, -errno, "looking at the directory of", "a snapshot");
	*ret_uid = status.st_uid;
	*ret_gid = status.st_gid;
	return 0;
}

int mounts_usage(const Mounts *mounts, uint64_t id, int64_t *ret_size, int64_t *ret_inodes, Error *error)
{
	int fd = open_fs(mounts, id, error);
	if (fd < 0)
		return fd;
	int r = mounts_tree_usage(fd, ret_size, ret_inodes);
	return r < 0 ? fail(error, r, "measuring a directory below", mounts->snapshots) : 0;
}

int mounts_remove(const Mounts *mounts, uint64_t id, Error *error)
{
	char name[ID_TEXT];
	int r = mounts_tree_remove(mounts->snapshots_fd, id_text(id, name));
	return r < 0 && r != -ENOENT ? fail(error, r, "removing the directory of snapshot", name) : 0;
}

static bool read_id(const char *name, uint64_t *ret_id)
{
	char again[ID_TEXT];
	*ret_id = strtoull(name, NULL, 10);
	return strcmp(id_text(*ret_id, again), name) == 0;
}

int mounts_ids(const Mounts *mounts, uint64_t **ret_ids, size_t *ret_count, Error *error)
{
	_cleanup_free_ uint64_t *ids = NULL;
	size_t count = 0;
	int fd = openat(mounts->snapshots_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_closedir_ DIR *directory = fd < 0 ? NULL : fdopendir(fd);
	if (!directory) {
		int r = -errno;
		close_p(&fd);
		return fail(error, r, "reading", mounts->snapshots);
	}
	for (struct dirent *entry; (errno = 0, entry = readdir(directory));) {
		uint64_t id;
		if (!read_id(entry->d_name, &id))
			continue;
		uint64_t *larger = reallocarray(ids, count + 1, sizeof(*ids));
		if (!larger)
			return fail(error, -ENOMEM, "reading", mounts->snapshots);
		ids = larger;
		ids[count++] = id;
	}
	if (errno != 0)
		return fail(error, -errno, "reading", mounts->snapshots);
	*ret_ids = TAKE_PTR(ids);
	*ret_count = count;
	return 0;
}
