#include "snapshotter/mounts-idmap.h"

#include <fcntl.h>
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

char *mounts_idmap_directory(const Mounts *mounts, const char *uids, const char *gids)
{
	_cleanup_free_ char *text = NULL;
	char hex[DIGEST_HEX_SIZE], *directory;
	Digest digest;
	if (asprintf(&text, "%s\n%s", uids ?: IDENTITY, gids ?: IDENTITY) < 0 ||
	    digest_of(text, strlen(text), &digest) < 0)
		return NULL;
	return asprintf(&directory, "%s/idmap/%.*s", mounts->root, NAME_LENGTH, digest_hex(&digest, hex)) < 0
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
	pid_t pid = (pid_t)syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, NULL, NULL, NULL, NULL);
	if (pid < 0)
		return -errno;
	if (pid == 0) {
		(void)syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			(void)syscall(SYS_pause);
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

static int mount_mapped(const Mounts *mounts, const char *directory, int namespace_fd)
{
	struct mount_attr attributes = {
		.attr_set = MOUNT_ATTR_IDMAP | MOUNT_ATTR_RDONLY,
		.userns_fd = (uint64_t)namespace_fd,
	};
	_cleanup_close_ int tree = (int)syscall(SYS_open_tree, mounts->snapshots_fd, "",
						AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (tree < 0 || syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH, &attributes, sizeof(attributes)) < 0)
		return -errno;
	return syscall(SYS_move_mount, tree, "", AT_FDCWD, directory, MOVE_MOUNT_F_EMPTY_PATH) < 0 ? -errno : 0;
}

/* Is it a mount already? Then it is another one than that of <root>. */
static bool is_mounted(const char *directory)
{
	struct statx status;
	return statx(AT_FDCWD, directory, AT_SYMLINK_NOFOLLOW, 0, &status) == 0 &&
	       status.stx_attributes & STATX_ATTR_MOUNT_ROOT;
}

/* Two that come at the same time mount twice, one over the other: mounts_idmap_clean() takes both away. */
static int make_mount(const Mounts *mounts, const char *uids, const char *gids, const char *directory)
{
	_cleanup_close_ int namespace_fd = -1;
	int r = fd_make_directories(AT_FDCWD, directory, 0700);
	if (r == 0)
		r = open_namespace(uids, gids, &namespace_fd);
	return r < 0 ? r : mount_mapped(mounts, directory, namespace_fd);
}

int mounts_idmap(const Mounts *mounts, const char *uids, const char *gids, char **ret_directory, Error *error)
{
	uint32_t root;
	int r = uids ? plan_map_id(uids, 0, &root, error) : 0;
	if (r == 0 && gids)
		r = plan_map_id(gids, 0, &root, error);
	if (r < 0)
		return r;
	_cleanup_free_ char *directory = mounts_idmap_directory(mounts, uids, gids);
	if (!directory)
		return error_set(error, -ENOMEM, "out of memory");
	if (!is_mounted(directory))
		r = make_mount(mounts, uids, gids, directory);
	if (r < 0)
		return error_set(
			error, -EOPNOTSUPP,
			"the layers cannot be shown with the ids %s and %s: %s; let the client change owners instead "
			"(ctr run without --remap-labels)",
			uids ?: "-", gids ?: "-", strerror(-r));
	*ret_directory = TAKE_PTR(directory);
	return 0;
}

static void remove_mount(const char *directory)
{
	while (is_mounted(directory) && umount2(directory, MNT_DETACH) == 0)
		;
	(void)rmdir(directory);
}

static bool is_wanted(const char *directory, char *const *directories, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(directories[i], directory) == 0)
			return true;
	return false;
}

int mounts_idmap_clean(const Mounts *mounts, char *const *directories, size_t count, Error *error)
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
		if (!is_wanted(path, directories, count))
			remove_mount(path);
	}
	return 0;
}
