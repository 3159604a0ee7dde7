#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "fs/base/fd.h"
#include "tools/export/store-private.h"

int store_error(const Store *store, int code, const char *what, Error *error)
{
	if (code == -ENOSPC || code == -EDQUOT)
		return error_set(error, code, "store %s: no space left to write %s; free some, or name another --store",
				 store->path, what);
	if (code == -EACCES || code == -EPERM || code == -EROFS)
		return error_set(error, code,
				 "store %s: may not write %s (%s); run as its owner, or name another --store",
				 store->path, what, strerrordesc_np(-code));
	return error_set(error, code, "store %s: writing %s failed: %s", store->path, what, error_text(NULL, code));
}

static int make_path(StoreTemporary *temporary)
{
	uint64_t random;
	if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random))
		return -EIO;
	(void)snprintf(temporary->path, sizeof(temporary->path), "tmp/%016llx", (unsigned long long)random);
	return 0;
}

/* Without a name where the file system can do that: whoever is interrupted then leaves nothing. */
static int create_unnamed(Store *store, StoreTemporary *ret_temporary)
{
	_cleanup_close_ int fd = fd_open_unnamed(store->fd, "tmp", 0644);
	if (fd < 0)
		return fd;
	if (flock(fd, LOCK_EX) < 0)
		return -errno;
	*ret_temporary = (StoreTemporary){ .fd = TAKE_FD(fd) };
	return 0;
}

/* Creates and locks a file. A sweep may remove it between the two; it is then of no name, and the next one is tried. */
static int create_locked(Store *store, StoreTemporary *ret_temporary)
{
	StoreTemporary temporary = STORE_TEMPORARY_NULL;
	int made = make_path(&temporary);
	if (made < 0)
		return made;
	temporary.fd = openat(store->fd, temporary.path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (temporary.fd < 0)
		return errno == EEXIST ? -EAGAIN : -errno;

	struct stat status;
	int r = 0;
	if (flock(temporary.fd, LOCK_EX) < 0 || fstat(temporary.fd, &status) < 0)
		r = -errno;
	else if (status.st_nlink == 0)
		r = -EAGAIN;
	if (r < 0) {
		store_temporary_done(store, &temporary);
		return r;
	}
	*ret_temporary = temporary;
	return 0;
}

int store_temporary_new(Store *store, StoreTemporary *ret_temporary, Error *error)
{
	int r = create_unnamed(store, ret_temporary);
	if (r == -EOPNOTSUPP) {
		do
			r = create_locked(store, ret_temporary);
		while (r == -EAGAIN || r == -EINTR);
	}
	return r < 0 ? store_error(store, r, "a temporary file", error) : 0;
}

int store_temporary_publish(Store *store, StoreTemporary *temporary, const char *path, Error *error)
{
	int r = 0;
	if (!temporary->path[0]) {
		/* The bytes first: between the name and the next one there is nothing slow then. */
		r = fsync(temporary->fd) < 0 ? -errno : make_path(temporary);
		if (r == 0)
			r = fd_give_name(temporary->fd, store->fd, temporary->path);
		if (r < 0)
			temporary->path[0] = '\0';
	}
	if (r == 0)
		r = fd_publish_file(store->fd, temporary->fd, temporary->path, path);
	if (r < 0)
		return store_error(store, r, path, error);
	(void)close(TAKE_FD(temporary->fd));
	return 0;
}

void store_temporary_done(Store *store, StoreTemporary *temporary)
{
	if (temporary->fd < 0)
		return;
	/* Unlinked while still locked, so that the name cannot be somebody else's by now. */
	if (temporary->path[0])
		(void)unlinkat(store->fd, temporary->path, 0);
	(void)close(TAKE_FD(temporary->fd));
}

static void sweep_one(int directory, const char *name)
{
	_cleanup_close_ int fd = openat(directory, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0)
		(void)unlinkat(directory, name, 0);
}

void store_temporary_sweep(Store *store)
{
	int fd = openat(store->fd, "tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return;
	_cleanup_closedir_ DIR *directory = fdopendir(fd);
	if (!directory) {
		(void)close(fd);
		return;
	}
	for (struct dirent *entry = readdir(directory); entry; entry = readdir(directory)) {
		if (entry->d_name[0] != '.')
			sweep_one(dirfd(directory), entry->d_name);
	}
}

int store_put(Store *store, const char *path, const void *data, size_t size, Error *error)
{
	StoreTemporary temporary = STORE_TEMPORARY_NULL;
	int r = store_temporary_new(store, &temporary, error);
	if (r < 0)
		return r;
	r = fd_write_all(temporary.fd, data, size);
	if (r < 0)
		(void)store_error(store, r, path, error);
	else
		r = store_temporary_publish(store, &temporary, path, error);
	store_temporary_done(store, &temporary);
	return r;
}

/* One directory of a path, and its name made durable. */
static int make_directory(int root, const char *path)
{
	if (mkdirat(root, path, 0755) < 0)
		return errno == EEXIST ? 0 : -errno;
	char parent[PATH_MAX];
	const char *slash = strrchr(path, '/');
	(void)snprintf(parent, sizeof(parent), "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
	_cleanup_close_ int fd = openat(root, parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

int store_make_directories(Store *store, const char *path, Error *error)
{
	char partial[STORE_PATH_SIZE];
	size_t length = strlen(path);
	if (length >= sizeof(partial))
		return store_error(store, -ENAMETOOLONG, path, error);
	for (size_t i = 1; i <= length; i++) {
		if (path[i] != '/' && path[i] != '\0')
			continue;
		memcpy(partial, path, i);
		partial[i] = '\0';
		int r = make_directory(store->fd, partial);
		if (r < 0)
			return store_error(store, r, partial, error);
	}
	return 0;
}
