#include "snapshotter/mounts-idmap.h"

#include <fcntl.h>
#include <inttypes.h>
#include <linux/mount.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "fs/base/digest.h"
#include "fs/base/fd.h"

#define NAME_LENGTH 16 /* of the digest's digits: paths of lower directories have to be short */
#define IDENTITY    "0:0:4294967295"

char *mounts_idmap_directory(const Mounts *mounts, const MountsIdmap *idmap)
{
	_cleanup_free_ char *text = NULL;
	char hex[DIGEST_HEX_SIZE], id[24] = "", *directory;
	Digest digest;
	if (asprintf(&text, "%s\n%s", idmap->uids ?: IDENTITY, idmap->gids ?: IDENTITY) < 0 ||
	    digest_of(text, strlen(text), &digest) < 0)
		return NULL;
	if (idmap->lazy_id)
		(void)snprintf(id, sizeof(id), "-%" PRIu64, idmap->lazy_id);
	return asprintf(&directory, "%s/idmap/%.*s%s", mounts->root, NAME_LENGTH, digest_hex(&digest, hex), id) < 0
		       ? NULL
		       : directory;
}

/* "0:100000:65536,..." as the kernel takes it: the numbers of a range with blanks between, a range a line. */
static char *kernel_map(const char *mapping)
{
	char *map = strdup(mapping ?: IDENTITY);
	for (char *byte = map; byte && *byte; byte++) {
		if (*byte == ':')
			*byte = ' ';
		else if (*byte == ',')
			*byte = '\n';
	}
	return map;
}

static int write_map(pid_t pid, const char *name, const char *mapping)
{
	char path[64];
	_cleanup_free_ char *map = kernel_map(mapping);
	(void)snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	return map ? fd_write_all(fd, map, strlen(map)) : -ENOMEM;
}

/* A user namespace lives as long as its descriptor; to begin with it needs a process, which only waits here to be killed. */
static int open_namespace(const char *uids, const char *gids, int *ret_fd)
{
	char path[64];
	pid_t parent = getpid();
	pid_t pid = (pid_t)syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, NULL, NULL, NULL, NULL);
	if (pid < 0)
		return -errno;
	if (pid == 0) {
		(void)syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL);
		/* Killed before that, the parent would leave a process with its lock on <root>. */
		if (syscall(SYS_getppid) != parent)
			(void)syscall(SYS_exit_group, 0);
		for (;;)
			(void)syscall(SYS_ppoll, NULL, 0, NULL, NULL, 0); /* pause(2) is not on every architecture */
	}
	int r = write_map(pid, "uid_map", uids);
	if (r == 0)
		r = write_map(pid, "gid_map", gids);
	(void)snprintf(path, sizeof(path), "/proc/%d/ns/user", (int)pid);
	int fd = r == 0 ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	if (r == 0 && fd < 0)
		r = -errno;
	(void)kill(pid, SIGKILL);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	if (r == 0)
		*ret_fd = fd;
	return r;
}

static int mount_mapped(const char *source, const char *directory, int namespace_fd)
{
	struct mount_attr attributes = {
		.attr_set = MOUNT_ATTR_IDMAP | MOUNT_ATTR_RDONLY,
		.userns_fd = (uint64_t)namespace_fd,
	};
	_cleanup_close_ int tree = (int)syscall(SYS_open_tree, AT_FDCWD, source, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (tree < 0 || syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH, &attributes, sizeof(attributes)) < 0)
		return -errno;
	return syscall(SYS_move_mount, tree, "", AT_FDCWD, directory, MOVE_MOUNT_F_EMPTY_PATH) < 0 ? -errno : 0;
}

/* Is the source seen there now? A lazy tree may have been shown anew, by another server of its own: then the mount is of the old one, or dead. */
static bool is_shown(const char *source, const char *directory)
{
	struct stat here, there;
	return stat(directory, &here) == 0 && stat(source, &there) == 0 && here.st_dev == there.st_dev &&
	       here.st_ino == there.st_ino;
}

/* Goes on top of a mount that is not right any more, and two that come at the same time mount twice: mounts_idmap_remove() takes all away. */
static int make_mount(const MountsIdmap *idmap, const char *source, const char *directory)
{
	_cleanup_close_ int namespace_fd = -1;
	int r = fd_make_directories(AT_FDCWD, directory, 0700);
	if (r == 0)
		r = open_namespace(idmap->uids, idmap->gids, &namespace_fd);
	return r < 0 ? r : mount_mapped(source, directory, namespace_fd);
}

static int check_maps(const MountsIdmap *idmap, Error *error)
{
	uint32_t root;
	int r = idmap->uids ? plan_map_id(idmap->uids, 0, &root, error) : 0;
	return r < 0 || !idmap->gids ? r : plan_map_id(idmap->gids, 0, &root, error);
}

int mounts_idmap(const Mounts *mounts, const MountsIdmap *idmap, char **ret_directory, Error *error)
{
	const char *source = idmap->lazy_id ? idmap->tree : mounts->snapshots;
	int r = check_maps(idmap, error);
	if (r < 0)
		return r;
	_cleanup_free_ char *directory = mounts_idmap_directory(mounts, idmap);
	if (!directory)
		return error_set(error, -ENOMEM, "out of memory");
	if (!is_shown(source, directory))
		r = make_mount(idmap, source, directory);
	if (r < 0)
		return error_set(error, -EOPNOTSUPP,
				 "%s cannot be shown with the ids %s and %s: %s; %slet the client change owners "
				 "instead (ctr run without --remap-labels)",
				 idmap->lazy_id ? "the lazy image" : "the layers", idmap->uids ?: "-",
				 idmap->gids ?: "-", strerror(-r),
				 idmap->lazy_id ? "that needs Linux 6.12 or later; " : "");
	*ret_directory = TAKE_PTR(directory);
	return 0;
}

void mounts_idmap_remove(const char *directory)
{
	while (umount2(directory, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)
		;
	(void)rmdir(directory);
}

int mounts_idmap_each(const Mounts *mounts, void (*each)(void *arg, const char *directory), void *arg, Error *error)
{
	_cleanup_free_ char *top = NULL;
	if (asprintf(&top, "%s/idmap", mounts->root) < 0)
		return error_set(error, -ENOMEM, "out of memory");
	_cleanup_closedir_ DIR *directory = opendir(top);
	if (!directory)
		return 0;
	for (struct dirent *entry; (entry = readdir(directory));) {
		_cleanup_free_ char *path = NULL;
		if (entry->d_name[0] == '.')
			continue;
		if (asprintf(&path, "%s/%s", top, entry->d_name) < 0)
			return error_set(error, -ENOMEM, "out of memory");
		each(arg, path);
	}
	return 0;
}
