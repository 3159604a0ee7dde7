#include "fs/cache/cache-seal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/base/fd.h"
#include "fs/cache/cache-private.h"

#define HEADER    "imgfs seal 1\n"
#define SEAL_SIZE (sizeof(HEADER) + DIGEST_TEXT_SIZE)
#define PATH_SIZE (sizeof("blobs//seal") + DIGEST_HEX_SIZE)

static void seal_path(const Digest *blob, char ret_path[static PATH_SIZE])
{
	char hex[DIGEST_HEX_SIZE];
	(void)snprintf(ret_path, PATH_SIZE, "blobs/%s/seal", digest_hex(blob, hex));
}

static int open_seal(CacheStore *store, const Digest *blob, int flags, int *ret_fd)
{
	char path[PATH_SIZE];
	seal_path(blob, path);
	int fd = openat(store->dirfd, path, flags | O_CLOEXEC | O_NOFOLLOW, CACHE_FILE_MODE);
	if (fd < 0)
		return -errno;
	*ret_fd = fd;
	return 0;
}

int cache_seal_open(CacheStore *store, const Digest *blob, int *ret_fd)
{
	int r = open_seal(store, blob, O_RDWR | O_CREAT, ret_fd);
	return r == -EROFS || r == -EACCES ? cache_seal_get(store, blob, ret_fd) : r;
}

int cache_seal_get(CacheStore *store, const Digest *blob, int *ret_fd)
{
	return open_seal(store, blob, O_RDONLY, ret_fd);
}

bool cache_seal_is_written(CacheStore *store, const Digest *blob)
{
	char path[PATH_SIZE];
	struct stat status;
	seal_path(blob, path);
	return fstatat(store->dirfd, path, &status, AT_SYMLINK_NOFOLLOW) == 0 && status.st_size > 0;
}

static size_t seal_text(const Digest *diff_id, char ret_text[static SEAL_SIZE])
{
	char text[DIGEST_TEXT_SIZE];
	return (size_t)snprintf(ret_text, SEAL_SIZE, HEADER "%s\n", digest_text(diff_id, text));
}

bool cache_seal_is_valid(int fd, const Digest *diff_id)
{
	char wanted[SEAL_SIZE], found[SEAL_SIZE];
	size_t size = seal_text(diff_id, wanted);
	return fd_pread_all(fd, found, size, 0) == 0 && memcmp(found, wanted, size) == 0;
}

static int is_read_only(int fd)
{
	int flags = fcntl(fd, F_GETFL);
	if (flags < 0)
		return -errno;
	return (flags & O_ACCMODE) == O_RDONLY ? -EROFS : 0;
}

int cache_seal_write(int fd, const Digest *diff_id)
{
	char text[SEAL_SIZE];
	size_t size = seal_text(diff_id, text);
	int r = is_read_only(fd);
	/* First what it speaks of, manifest, index, view and directories as well, which are written without fsync. */
	if (r == 0 && syncfs(fd) < 0)
		r = -errno;
	if (r == 0)
		r = fd_pwrite_all(fd, text, size, 0);
	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	return r;
}

int cache_seal_clear(int fd)
{
	int r = is_read_only(fd);
	return r == 0 && ftruncate(fd, 0) < 0 ? -errno : r;
}
