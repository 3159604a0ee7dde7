#include "fs/base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>

#define HUGE_MIN ((size_t)4 << 20) /* that is read whole, so that a page of 2 MiB or two are worth while */

void fd_open_standard(void)
{
	/* open() takes the lowest number, and those below are there. */
	for (int fd = 0; fd <= STDERR_FILENO; fd++) {
		if (fcntl(fd, F_GETFD) < 0 && errno == EBADF &&
		    open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) < 0)
			return;
	}
}

int fd_pread_all(int fd, void *buffer, size_t size, uint64_t offset)
{
	uint8_t *to = buffer;
	while (size > 0) {
		ssize_t count = pread(fd, to, size, (off_t)offset);
		if (count < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		if (count == 0)
			return -ENODATA;
		to += count;
		size -= (size_t)count;
		offset += (uint64_t)count;
	}
	return 0;
}

int fd_pwrite_all(int fd, const void *data, size_t size, uint64_t offset)
{
	const uint8_t *from = data;
	while (size > 0) {
		ssize_t count = pwrite(fd, from, size, (off_t)offset);
		if (count < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		from += count;
		size -= (size_t)count;
		offset += (uint64_t)count;
	}
	return 0;
}

int fd_write_all(int fd, const void *data, size_t size)
{
	const uint8_t *from = data;
	while (size > 0) {
		ssize_t count = write(fd, from, size);
		if (count < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		from += count;
		size -= (size_t)count;
	}
	return 0;
}

ssize_t fd_read_full(int fd, void *buffer, size_t size)
{
	size_t done = 0;
	while (done < size) {
		ssize_t count = read(fd, (uint8_t *)buffer + done, size - done);
		if (count < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		if (count == 0)
			break;
		done += (size_t)count;
	}
	return (ssize_t)done;
}

int fd_read_file(int dirfd, const char *path, size_t limit, char **ret_data, size_t *ret_size)
{
	_cleanup_close_ int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return -errno;
	struct stat status;
	if (fstat(fd, &status) < 0)
		return -errno;
	if (S_ISDIR(status.st_mode))
		return -EISDIR;
	if (status.st_size < 0 || (uint64_t)status.st_size > limit)
		return -EFBIG;
	size_t size = (size_t)status.st_size;
	_cleanup_free_ char *data = malloc(size + 1);
	if (!data)
		return -ENOMEM;
	ssize_t count = fd_read_full(fd, data, size);
	if (count < 0)
		return (int)count;
	data[count] = '\0';
	*ret_data = TAKE_PTR(data);
	*ret_size = (size_t)count;
	return 0;
}

/* Splits `path` into a directory (opened) and a last component (pointing into `path`). */
static int open_parent(int dirfd, const char *path, int *ret_fd, const char **ret_name)
{
	const char *slash = strrchr(path, '/');
	_cleanup_free_ char *directory =
		slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
	if (!directory)
		return -ENOMEM;
	int fd = openat(dirfd, directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	*ret_fd = fd;
	*ret_name = slash ? slash + 1 : path;
	return 0;
}

int fd_publish_file(int dirfd, int fd, const char *temporary, const char *path)
{
	_cleanup_close_ int parent = -1;
	const char *name;
	int r = open_parent(dirfd, path, &parent, &name);
	if (r < 0)
		return r;
	if (fsync(fd) < 0)
		return -errno;
	if (renameat(dirfd, temporary, parent, name) < 0)
		return -errno;
	return fsync(parent) < 0 ? -errno : 0;
}

int fd_open_unnamed(int dirfd, const char *path, mode_t mode)
{
	if (access("/proc/self/fd", F_OK) < 0)
		return -EOPNOTSUPP;
	int fd = openat(dirfd, path, O_TMPFILE | O_RDWR | O_CLOEXEC, mode);
	/* What a kernel says that does not know the flag: it sees a directory that is to be written, or created. */
	if (fd < 0 && (errno == EISDIR || errno == ENOENT))
		return -EOPNOTSUPP;
	return fd < 0 ? -errno : fd;
}

int fd_give_name(int fd, int dirfd, const char *path)
{
	char self[64];
	(void)snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
	return linkat(AT_FDCWD, self, dirfd, path, AT_SYMLINK_FOLLOW) < 0 ? -errno : 0;
}

int fd_replace_file(int dirfd, const char *path, const void *data, size_t size, mode_t mode)
{
	_cleanup_close_ int parent = -1;
	const char *name;
	int r = open_parent(dirfd, path, &parent, &name);
	if (r < 0)
		return r;

	uint64_t random;
	if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random))
		return -EIO;
	char temporary[48];
	(void)snprintf(temporary, sizeof(temporary), ".tmp-%016llx", (unsigned long long)random);
	_cleanup_close_ int fd = openat(parent, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
	if (fd < 0)
		return -errno;
	r = fd_write_all(fd, data, size);
	if (r == 0)
		r = fd_publish_file(parent, fd, temporary, name);
	if (r < 0)
		(void)unlinkat(parent, temporary, 0);
	return r;
}

int fd_make_directories(int dirfd, const char *path, mode_t mode)
{
	char partial[PATH_MAX];
	size_t length = strlen(path);
	if (length >= sizeof(partial))
		return -ENAMETOOLONG;
	for (size_t i = 1; i <= length; i++) {
		if (path[i] != '/' && path[i] != '\0')
			continue;
		memcpy(partial, path, i);
		partial[i] = '\0';
		if (mkdirat(dirfd, partial, mode) < 0 && errno != EEXIST)
			return -errno;
	}
	return 0;
}

int fd_map(int fd, FdMap *ret_map)
{
	struct stat status;
	if (fstat(fd, &status) < 0)
		return -errno;
	size_t size = (size_t)status.st_size;
	if (size == 0) {
		*ret_map = (FdMap){ 0 };
		return 0;
	}
	void *data = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
	if (data == MAP_FAILED)
		return -errno;
	*ret_map = (FdMap){ .data = data, .size = size };
	return 0;
}

int fd_load_begin(int fd, FdMap *ret_map)
{
	struct stat status;
	if (fstat(fd, &status) < 0)
		return -errno;
	size_t size = (size_t)status.st_size;
	FdMap map = { 0 };
	if (size > 0) {
		void *data = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (data == MAP_FAILED)
			return -errno;
		map = (FdMap){ .data = data, .size = size };
	}
	*ret_map = map;
	return 0;
}

int fd_load_part(int fd, FdMap *map, size_t offset, size_t size)
{
	if (offset > map->size || size > map->size - offset)
		return -EINVAL;
	uint8_t *to = (uint8_t *)(uintptr_t)map->data + offset;
	/* All of it is written now: a fault for each 2 MiB instead of one for each page. Where the kernel has no such pages, that many. */
	if (size >= HUGE_MIN)
		(void)madvise(to - offset % (size_t)sysconf(_SC_PAGESIZE), size, MADV_HUGEPAGE);
	return fd_pread_all(fd, to, size, offset);
}

int fd_load_end(FdMap *map)
{
	return map->size > 0 && mprotect((void *)(uintptr_t)map->data, map->size, PROT_READ) < 0 ? -errno : 0;
}

int fd_load(int fd, FdMap *ret_map)
{
	FdMap map;
	int r = fd_load_begin(fd, &map);
	if (r < 0)
		return r;
	r = fd_load_part(fd, &map, 0, map.size);
	if (r == 0)
		r = fd_load_end(&map);
	if (r < 0) {
		fd_unmap(&map);
		return r;
	}
	*ret_map = map;
	return 0;
}

void fd_shrink(FdMap *map, size_t size)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	size_t keep = (size + page - 1) / page * page;
	if (keep == 0) {
		fd_unmap(map);
	} else if (keep < map->size) {
		(void)munmap((void *)(uintptr_t)(map->data + keep), map->size - keep);
		map->size = keep;
	}
}

void fd_unmap(FdMap *map)
{
	if (map->data)
		(void)munmap((void *)(uintptr_t)map->data, map->size);
	*map = (FdMap){ 0 };
}
