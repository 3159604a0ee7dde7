#include "fs/mount/shared-memory.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#include "fs/base/fd.h"

int64_t shared_memory_clock(void)
{
	struct timespec now;
	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int64_t shared_memory_real_clock(void)
{
	struct timespec now;
	(void)clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int shared_memory_create(const char *name, uint32_t magic, uint32_t version, size_t size, int *ret_fd)
{
	SharedHead head = {
		.magic = magic,
		.version = version,
		.began_real = shared_memory_real_clock(),
		.began = shared_memory_clock(),
	};
	_cleanup_close_ int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0 || ftruncate(fd, (off_t)size) < 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return -errno;
	/* The head alone: the rest takes no memory before it is used. */
	int r = fd_pwrite_all(fd, &head, sizeof(head), 0);
	if (r < 0)
		return r;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static int check(int fd, uint32_t magic, uint32_t version, size_t size)
{
	struct stat status;
	SharedHead head;
	if (fstat(fd, &status) < 0)
		return -errno;
	if (status.st_size < (off_t)size)
		return -EBADMSG;
	int seals = fcntl(fd, F_GET_SEALS);
	if (seals < 0 || !(seals & F_SEAL_SHRINK))
		return -EBADMSG;
	int r = fd_pread_all(fd, &head, sizeof(head), 0);
	if (r < 0)
		return r;
	return head.magic == magic && head.version == version ? 0 : -EBADMSG;
}

int shared_memory_map(int fd, uint32_t magic, uint32_t version, size_t size, void **ret_memory)
{
	int r = check(fd, magic, version, size);
	if (r < 0)
		return r;
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (memory == MAP_FAILED)
		return -errno;
	*ret_memory = memory;
	return 0;
}

int shared_memory_copy(int fd, uint32_t magic, uint32_t version, size_t size, void **ret_copy)
{
	int r = check(fd, magic, version, size);
	if (r < 0)
		return r;
	_cleanup_free_ void *copy = malloc(size);
	if (!copy)
		return -ENOMEM;
	r = fd_pread_all(fd, copy, size, 0);
	if (r < 0)
		return r;
	*ret_copy = TAKE_PTR(copy);
	return 0;
}
