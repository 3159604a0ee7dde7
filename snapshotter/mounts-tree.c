#include "snapshotter/mounts-tree.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <uthash.h>

#define BLOCK            512  /* stat(2): st_blocks counts these */
#define USAGE_DEPTH_MAX  2000 /* a descriptor and two frames a level; what is deeper is not counted */
#define REMOVE_DEPTH_MAX 200

typedef struct FileId {
	dev_t device;
	ino_t inode;
} FileId;

typedef struct Seen {
	FileId id;
	UT_hash_handle hh;
} Seen;

typedef struct Usage {
	int64_t size, inodes;
	dev_t device;
	Seen *seen; /* files with several names */
} Usage;

/* 1: not seen before. */
static int note(Usage *usage, const struct stat *status)
{
	FileId id;
	memset(&id, 0, sizeof(id)); /* padding, too, is compared */
	id.device = status->st_dev;
	id.inode = status->st_ino;
	Seen *seen;
	HASH_FIND(hh, usage->seen, &id, sizeof(id), seen);
	if (seen)
		return 0;
	seen = calloc(1, sizeof(*seen));
	if (!seen)
		return -ENOMEM;
	seen->id = id;
	HASH_ADD(hh, usage->seen, id, sizeof(seen->id), seen);
	return 1;
}

static int add(Usage *usage, const struct stat *status)
{
	int r = status->st_nlink > 1 && !S_ISDIR(status->st_mode) ? note(usage, status) : 1;
	if (r == 1) {
		usage->size += (int64_t)status->st_blocks * BLOCK;
		usage->inodes++;
	}
	return r < 0 ? r : 0;
}

/* What is done with an entry of a directory that is `depth` levels below the top. */
typedef int TreeEntry(void *arg, int dirfd, const char *name, unsigned depth);

/* Takes `fd`, or the error that there is instead. What vanishes meanwhile is no error. */
static int walk(int fd, TreeEntry *each, void *arg, unsigned depth)
{
	_cleanup_closedir_ DIR *directory = fd < 0 ? NULL : fdopendir(fd);
	if (!directory) {
		int r = fd < 0 ? fd : -errno;
		close_p(&fd);
		return r;
	}
	for (struct dirent *entry; (errno = 0, entry = readdir(directory));) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		int r = each(arg, dirfd(directory), entry->d_name, depth);
		if (r < 0 && r != -ENOENT)
			return r;
	}
	return -errno;
}

/* -EXDEV for what something is mounted on, of the same file system too: a client's mount may have come here by propagation. */
static int open_below(int dirfd, const char *name)
{
	const struct open_how how = {
		.flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC,
		.resolve = RESOLVE_NO_XDEV,
	};
	int fd = (int)syscall(SYS_openat2, dirfd, name, &how, sizeof(how));
	return fd < 0 ? -errno : fd;
}

static int count_entry(void *arg, int dirfd, const char *name, unsigned depth)
{
	Usage *usage = arg;
	struct stat status;
	if (fstatat(dirfd, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	if (status.st_dev != usage->device)
		return 0;
	int r = add(usage, &status);
	if (r < 0 || !S_ISDIR(status.st_mode) || depth == USAGE_DEPTH_MAX)
		return r;
	r = walk(open_below(dirfd, name), count_entry, usage, depth + 1);
	/* A container may have put something else there meanwhile. */
	return r == -EXDEV || r == -ENOTDIR ? 0 : r;
}

int mounts_tree_usage(int fd, int64_t *ret_size, int64_t *ret_inodes)
{
	struct stat status;
	Usage usage = { 0 };
	if (fstat(fd, &status) < 0) {
		int r = -errno;
		(void)close(fd);
		return r;
	}
	usage.device = status.st_dev;
	int r = add(&usage, &status);
	if (r == 0)
		r = walk(fd, count_entry, &usage, 1);
	else
		(void)close(fd);
	Seen *seen, *next;
	HASH_ITER(hh, usage.seen, seen, next)
	{
		HASH_DEL(usage.seen, seen);
		free(seen);
	}
	if (r < 0)
		return r;
	*ret_size = usage.size;
	*ret_inodes = usage.inodes;
	return 0;
}

typedef struct Removal {
	int top;        /* the tree's own directory */
	unsigned moved; /* entries that were too deep and went there */
} Removal;

static int move_up(Removal *removal, int dirfd, const char *name)
{
	char new_name[32];
	struct stat status;
	do
		(void)snprintf(new_name, sizeof(new_name), ".deep-%u", removal->moved++);
	while (fstatat(removal->top, new_name, &status, AT_SYMLINK_NOFOLLOW) == 0);
	return renameat(dirfd, name, removal->top, new_name) < 0 ? -errno : 0;
}

static int remove_entry(void *arg, int dirfd, const char *name, unsigned depth)
{
	Removal *removal = arg;
	if (unlinkat(dirfd, name, 0) == 0)
		return 0;
	if (errno != EISDIR && errno != EPERM)
		return -errno;
	if (depth == REMOVE_DEPTH_MAX)
		return move_up(removal, dirfd, name);
	int r = walk(open_below(dirfd, name), remove_entry, removal, depth + 1);
	if (r < 0)
		return r == -EXDEV ? -EBUSY : r;
	return unlinkat(dirfd, name, AT_REMOVEDIR) < 0 ? -errno : 0;
}

int mounts_tree_remove(int dirfd, const char *name)
{
	int r = 0;
	_cleanup_close_ int top = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (top < 0)
		return -errno;
	Removal removal = { .top = top };
	do {
		removal.moved = 0;
		r = walk(open_below(top, "."), remove_entry, &removal, 0);
	} while (r == 0 && removal.moved > 0);
	if (r < 0)
		return r;
	return unlinkat(dirfd, name, AT_REMOVEDIR) < 0 ? -errno : 0;
}
