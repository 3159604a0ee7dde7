#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>

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
