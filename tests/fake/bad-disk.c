/*
 * Preloaded into imgfs-keeper, and so into its servers: reads and writes of files below a directory fail now and then, and memory is out
 * now and then. IMGFS_BAD_DISK names a file that says so, which stays mapped: struct Ills. All zero: nothing is wrong.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

enum { READ_EIO, READ_SHORT, READ_FLIP, WRITE_EIO, WRITE_FULL, NO_MEMORY, ILLS };

typedef struct Ills {
	_Atomic uint32_t shares[ILLS]; /* of 100,000 calls */
	_Atomic uint32_t counts[ILLS]; /* how many calls have met it; those of all processes together */
	char directory[256];
} Ills;

static Ills *ills;

__attribute__((constructor)) static void open_ills(void)
{
	const char *path = getenv("IMGFS_BAD_DISK");
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	void *map = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof(*ills), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		abort(); /* a test that forgets to say what is wrong would prove nothing */
	(void)close(fd);
	ills = map;
}

/* Any sequence will do that does not repeat soon (splitmix64). */
static uint64_t dice(void)
{
	static _Atomic uint64_t state;
	if (state == 0)
		state = (uint64_t)getpid() << 32;
	uint64_t z = atomic_fetch_add(&state, 0x9e3779b97f4a7c15u);
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

static int meets(int ill)
{
	if (!ills || ills->shares[ill] == 0 || dice() % 100000 >= ills->shares[ill])
		return 0;
	(void)atomic_fetch_add(&ills->counts[ill], 1);
	return 1;
}

static int is_below(int fd)
{
	char link[64], path[4096];
	int saved = errno;
	(void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	ssize_t size = readlink(link, path, sizeof(path) - 1);
	errno = saved;
	size_t length = strlen(ills->directory);
	return size > 0 && (size_t)size > length && memcmp(path, ills->directory, length) == 0;
}

static ssize_t (*original(const char *name))(int, void *, size_t, off_t)
{
	ssize_t (*function)(int, void *, size_t, off_t);
	*(void **)&function = dlsym(RTLD_NEXT, name);
	return function;
}

ssize_t pread64(int fd, void *buffer, size_t size, off_t offset);
ssize_t pwrite64(int fd, const void *buffer, size_t size, off_t offset);
ssize_t preadv64(int fd, const struct iovec *parts, int count, off_t offset);

ssize_t pread64(int fd, void *buffer, size_t size, off_t offset)
{
	static ssize_t (*function)(int, void *, size_t, off_t);
	if (!function)
		function = original("pread64");
	if (!is_below(fd))
		return function(fd, buffer, size, offset);
	if (meets(READ_EIO)) {
		errno = EIO;
		return -1;
	}
	ssize_t count = function(fd, buffer, size > 1 && meets(READ_SHORT) ? size / 2 : size, offset);
	if (count > 0 && meets(READ_FLIP))
		((uint8_t *)buffer)[dice() % (uint64_t)count] ^= 4;
	return count;
}

ssize_t preadv64(int fd, const struct iovec *parts, int count, off_t offset)
{
	static ssize_t (*function)(int, const struct iovec *, int, off_t);
	if (!function)
		*(void **)&function = dlsym(RTLD_NEXT, "preadv64");
	if (!is_below(fd))
		return function(fd, parts, count, offset);
	if (meets(READ_EIO)) {
		errno = EIO;
		return -1;
	}
	ssize_t got = function(fd, parts, count > 1 && meets(READ_SHORT) ? count - 1 : count, offset);
	if (got > 0 && meets(READ_FLIP)) {
		const struct iovec *part = &parts[dice() % (uint64_t)count];
		((uint8_t *)part->iov_base)[dice() % part->iov_len] ^= 4;
	}
	return got;
}

ssize_t pwrite64(int fd, const void *buffer, size_t size, off_t offset)
{
	static ssize_t (*function)(int, void *, size_t, off_t);
	if (!function)
		function = original("pwrite64");
	if (is_below(fd) && meets(WRITE_EIO)) {
		errno = EIO;
		return -1;
	}
	if (is_below(fd) && meets(WRITE_FULL)) {
		/* As a disk does that becomes full within a write. */
		ssize_t part = size > 1 ? function(fd, (void *)(uintptr_t)buffer, size / 2, offset) : -1;
		errno = ENOSPC;
		return part;
	}
	return function(fd, (void *)(uintptr_t)buffer, size, offset);
}

/* glibc's own names of these, for who stands before them. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t size);

static int no_memory(void)
{
	if (!meets(NO_MEMORY))
		return 0;
	errno = ENOMEM;
	return 1;
}

void *malloc(size_t size)
{
	return no_memory() ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
	return no_memory() ? NULL : __libc_calloc(count, size);
}

void *realloc(void *memory, size_t size)
{
	return no_memory() ? NULL : __libc_realloc(memory, size);
}
