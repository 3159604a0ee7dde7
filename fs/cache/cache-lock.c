#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "fs/cache/cache-evict-blob.h"
#include "fs/cache/cache-evict.h"
#include "fs/cache/cache-private.h"

#define LOCK "evict.lock"

int cache_evict_lock(CacheStore *store, bool wait, int *ret_fd)
{
	_cleanup_close_ int fd = openat(store->dirfd, LOCK, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	while (flock(fd, LOCK_EX | (wait ? 0 : LOCK_NB)) < 0)
		if (errno != EINTR)
			return -errno;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

void cache_evict_mark(int lock_fd, bool unfinished)
{
	/* A hole takes no room on a disk that is full. Without the mark no more is lost than that others learn of it later. */
	_unused_ int r = ftruncate(lock_fd, unfinished ? 1 : 0);
}

bool cache_evict_is_unfinished(CacheStore *store)
{
	struct stat status;
	return fstatat(store->dirfd, LOCK, &status, AT_SYMLINK_NOFOLLOW) == 0 && status.st_size > 0;
}
