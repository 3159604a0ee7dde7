#include "fs/mount/keeper-mount.h"

#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>

#include "fs/base/fd.h"
#include "fs/base/log.h"
#include "fs/mount/fuse-mount.h"
#include "fs/mount/handshake.h"
#include "fs/mount/journal.h"

int keeper_write_setting(const char *path, const char *value)
{
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CLOEXEC);
	return fd < 0 || write(fd, value, strlen(value)) < 0 ? -errno : 0;
}

static int save_init(KeeperMount *mount, const void *init, size_t size, Error *error)
{
	mount->init_fd = memfd_create("imgfs-init", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int r = mount->init_fd < 0 ? -errno : fd_write_all(mount->init_fd, init, size);
	if (r == 0 && fcntl(mount->init_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) < 0)
		r = -errno;
	return r < 0 ? error_set(error, r, "cannot keep the kernel's FUSE_INIT: %s", strerror(-r)) : 0;
}

static int shake_hands(KeeperMount *mount, Error *error)
{
	char init[HANDSHAKE_INIT_MAX];
	ssize_t size = read(mount->fuse_fd, init, sizeof(init));
	if (size < 0)
		return error_set(error, -errno, "cannot read FUSE_INIT from the kernel: %s", strerror(errno));
	HandshakeReply reply;
	int r = handshake_answer(init, (size_t)size, mount->handshake, &reply, error);
	if (r < 0)
		return r;
	if (write(mount->fuse_fd, &reply, sizeof(reply)) < 0)
		return error_set(error, -errno, "the kernel refuses the answer to FUSE_INIT: %s", strerror(errno));
	return save_init(mount, init, (size_t)size, error);
}

int keeper_mount_make(KeeperMount *mount, Error *error)
{
	int r = journal_create(&mount->journal_fd);
	if (r < 0)
		return error_set(error, r, "cannot create the journal: %s", strerror(-r));
	r = fuse_mount(mount->directory, mount->source, mount->flags, &mount->fuse_fd, error);
	if (r < 0)
		return r;
	r = mount_table_find(mount->directory, &mount->entry);
	if (r < 0)
		return error_set(error, r, "cannot find %s in /proc/self/mountinfo: %s", mount->directory,
				 strerror(-r));
	return shake_hands(mount, error);
}

void keeper_mount_set_read_ahead(const KeeperMount *mount)
{
	if (geteuid() != 0)
		return; /* the kernel's own it is, then */
	char path[128], value[32];
	(void)snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb", mount->entry.major,
		       mount->entry.minor);
	(void)snprintf(value, sizeof(value), "%ld", mount->read_ahead_kb);
	int r = keeper_write_setting(path, value);
	if (r < 0)
		log_warning("cannot set read-ahead path=%s value=%s reason=\"%s\"", path, value, strerror(-r));
}

bool keeper_mount_is_gone(const KeeperMount *mount)
{
	struct pollfd poll_fd = { .fd = mount->fuse_fd };
	return poll(&poll_fd, 1, 0) > 0 && (poll_fd.revents & POLLERR);
}

void keeper_mount_unmount(const KeeperMount *mount)
{
	MountEntry entry;
	if (keeper_mount_is_gone(mount) || mount_table_find(mount->directory, &entry) < 0 ||
	    entry.major != mount->entry.major || entry.minor != mount->entry.minor)
		return;
	Error error = { 0 };
	int r = fuse_unmount(mount->directory, true, &error);
	if (r < 0)
		log_warning("cannot unmount dir=%s reason=\"%s\"", mount->directory, error_text(&error, r));
}
