#include "tools/export/import-file.h"

#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "fs/base/fd.h"

int import_write_error(const char *name, int code, Error *error)
{
	if (code == -ENOSPC || code == -EDQUOT)
		return error_set(error, code, "no space left to write %s; free some, or name another place", name);
	return error_set(error, code, "cannot write %s: %s", name, error_text(NULL, code));
}

static int make_name(ImportFile *file)
{
	uint64_t random;
	if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random))
		return -EIO;
	(void)snprintf(file->temporary, sizeof(file->temporary), ".tmp-%016llx", (unsigned long long)random);
	return 0;
}

/* Without a name where the file system can do that, else with one of its own. */
static int open_temporary(ImportFile *file)
{
	int r = fd_open_unnamed(file->directory, ".", 0644);
	if (r >= 0)
		file->fd = r;
	if (r != -EOPNOTSUPP)
		return r < 0 ? r : 0;
	r = make_name(file);
	if (r < 0)
		return r;
	file->fd = openat(file->directory, file->temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (file->fd < 0) {
		file->temporary[0] = '\0';
		return -errno;
	}
	return 0;
}

static int open_parent(int dirfd, const char *path, ImportFile *file)
{
	char parent[PATH_MAX];
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	size_t length = slash ? (size_t)(slash - path) : 0;
	if (name[0] == '\0')
		return -EISDIR;
	if (strlen(name) >= sizeof(file->name) || length >= sizeof(parent))
		return -ENAMETOOLONG;
	(void)snprintf(file->name, sizeof(file->name), "%s", name);
	(void)snprintf(parent, sizeof(parent), "%.*s", slash ? (int)length : 1, slash ? path : ".");
	file->directory = openat(dirfd, slash && length == 0 ? "/" : parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return file->directory < 0 ? -errno : 0;
}

static int open_file(int dirfd, const char *path, ImportFile *file)
{
	struct stat status;
	int r = open_parent(dirfd, path, file);
	if (r < 0)
		return r;
	if (fstatat(file->directory, file->name, &status, 0) == 0 && !S_ISREG(status.st_mode)) {
		file->in_place = true;
		file->fd = openat(file->directory, file->name, O_WRONLY | O_CLOEXEC | O_NOCTTY);
		return file->fd < 0 ? -errno : 0;
	}
	return open_temporary(file);
}

int import_file_open(int dirfd, const char *path, ImportFile *ret_file, Error *error)
{
	ImportFile file = IMPORT_FILE_NULL;
	int r = open_file(dirfd, path, &file);
	if (r < 0) {
		import_file_done(&file);
		return import_write_error(path, r, error);
	}
	*ret_file = file;
	return 0;
}

/* Gives a file without a name one, since a link cannot replace what has the name already. */
static int give_name(ImportFile *file)
{
	int r = make_name(file);
	if (r == 0)
		r = fd_give_name(file->fd, file->directory, file->temporary);
	if (r < 0)
		file->temporary[0] = '\0';
	return r;
}

int import_file_publish(ImportFile *file, Error *error)
{
	if (file->in_place)
		return 0;
	/* The bytes first: between the link and the rename there is nothing slow then. */
	int r = fsync(file->fd) < 0 ? -errno : 0;
	if (r == 0 && !file->temporary[0])
		r = give_name(file);
	if (r == 0)
		r = fd_publish_file(file->directory, file->fd, file->temporary, file->name);
	if (r < 0)
		return import_write_error(file->name, r, error);
	file->temporary[0] = '\0';
	return 0;
}

void import_file_done(ImportFile *file)
{
	if (file->temporary[0])
		(void)unlinkat(file->directory, file->temporary, 0);
	if (file->fd >= 0)
		(void)close(file->fd);
	if (file->directory >= 0)
		(void)close(file->directory);
	*file = IMPORT_FILE_NULL;
}
