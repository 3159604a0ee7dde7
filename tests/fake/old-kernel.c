/*
 * Preloaded into imgfs-keeper: what it reads from /dev/fuse first, FUSE_INIT, offers what an older kernel does, so that keeper and
 * server, and by their answer the kernel too, do without the rest. IMGFS_OLD_KERNEL names the kernel: 5.15 or 6.1.
 */
#include <dlfcn.h>
#include <linux/fuse.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define FUSE_DEVICE makedev(10, 229) /* Documentation/admin-guide/devices.txt */

/* The protocol's history stands at the top of include/uapi/linux/fuse.h. */
typedef struct OldKernel {
	const char *name;
	uint32_t minor;
	uint32_t flags;
	uint32_t flags2;
	size_t body; /* bytes of struct fuse_init_in that it sends */
} OldKernel;

static const OldKernel kernels[] = {
	/* 7.34: flags up to FUSE_SETXATTR_EXT; flags2 came with 7.36. */
	{ "5.15", 34, (FUSE_SETXATTR_EXT << 1) - 1, 0, offsetof(struct fuse_init_in, flags2) },
	/* 7.37: of the second word, FUSE_SECURITY_CTX and FUSE_HAS_INODE_DAX. */
	{ "6.1", 37, UINT32_MAX, (uint32_t)((FUSE_SECURITY_CTX | FUSE_HAS_INODE_DAX) >> 32),
	  sizeof(struct fuse_init_in) },
};

static const OldKernel *wanted(void)
{
	const char *name = getenv("IMGFS_OLD_KERNEL");
	for (size_t i = 0; name && i < sizeof(kernels) / sizeof(kernels[0]); i++) {
		if (strcmp(name, kernels[i].name) == 0)
			return &kernels[i];
	}
	abort(); /* a test that forgets to say which would prove nothing */
}

static int is_fuse(int fd)
{
	struct stat st;
	return fstat(fd, &st) == 0 && S_ISCHR(st.st_mode) && st.st_rdev == FUSE_DEVICE;
}

/* Returns the request's new size. */
static ssize_t age(void *request, const OldKernel *kernel)
{
	struct fuse_in_header *header = request;
	struct fuse_init_in *init = (void *)(header + 1);
	init->minor = init->minor < kernel->minor ? init->minor : kernel->minor;
	init->flags &= kernel->flags;
	init->flags2 &= kernel->flags2;
	header->len = (uint32_t)(sizeof(*header) + kernel->body);
	return (ssize_t)header->len;
}

ssize_t read(int fd, void *buffer, size_t size)
{
	static ssize_t (*original)(int, void *, size_t);
	if (!original)
		*(void **)&original = dlsym(RTLD_NEXT, "read");
	ssize_t count = original(fd, buffer, size);
	const struct fuse_in_header *header = buffer;
	if (count >= (ssize_t)(sizeof(*header) + sizeof(struct fuse_init_in)) && header->opcode == FUSE_INIT &&
	    is_fuse(fd))
		return age(buffer, wanted());
	return count;
}
