/*
 * What becomes of the two mounts while they are wanted. Who unmounts one by hand takes it away from where new images are looked for, though the binds of it go
 * on: it is put back from a detached copy that the keeper has of it. One whose connection was aborted (umount -f does that) is dead for good, and made anew,
 * with all images that were there; the other one goes on.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>

#include "fs/base/fd.h"
#include "fs/base/log.h"
#include "fs/mount/keeper-daemon.h"

#define LOOK_MS  1000  /* between two looks at the table of mounts, which may be long */
#define RETRY_MS 10000 /* after what could not be made anew */

void keeper_restore_init(KeeperDaemon *daemon)
{
	daemon->table_fd = -1;
	for (size_t i = 0; i < 2; i++)
		daemon->spare_fds[i] = -1;
}

/* A copy that is mounted nowhere. No request is made of the file system, which may have no server yet. */
static void copy_mount(KeeperDaemon *daemon, size_t number)
{
	int *spare = &daemon->spare_fds[number];
	close_p(spare);
	*spare = open_tree(AT_FDCWD, daemon->mounts[number].directory, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (*spare < 0)
		log_warning("cannot copy a mount, which would not come back if it were unmounted dir=%s reason=\"%s\"",
			    daemon->mounts[number].directory, strerror(errno));
}

void keeper_restore_start(KeeperDaemon *daemon)
{
	for (size_t i = 0; i < 2; i++)
		if (daemon->spare_fds[i] < 0)
			copy_mount(daemon, i);
	daemon->table_fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
}

void keeper_restore_stop(KeeperDaemon *daemon)
{
	for (size_t i = 0; i < 2; i++)
		close_p(&daemon->spare_fds[i]);
	close_p(&daemon->table_fd);
	keeper_restore_init(daemon);
}

/* Puts it back if nothing at all is mounted there. */
static void put_back(KeeperDaemon *daemon, size_t number)
{
	MountEntry entry;
	const char *directory = daemon->mounts[number].directory;
	if (daemon->spare_fds[number] < 0 || mount_table_find(directory, &entry) != -ENOENT)
		return;
	if (fd_make_directories(AT_FDCWD, directory, 0755) < 0 ||
	    move_mount(daemon->spare_fds[number], "", AT_FDCWD, directory, MOVE_MOUNT_F_EMPTY_PATH) < 0) {
		log_error("was unmounted, and cannot be mounted again dir=%s reason=\"%s\"", directory,
			  strerror(errno));
		return;
	}
	log_warning("was unmounted by somebody, and is mounted again dir=%s", directory);
	copy_mount(daemon, number);
}

static void close_mount(KeeperMount *mount)
{
	int *const fds[] = { &mount->fuse_fd, &mount->init_fd, &mount->journal_fd };
	for (size_t i = 0; i < ELEMENTS(fds); i++) {
		close_p(fds[i]);
		*fds[i] = -1;
	}
}

/* The server is given the new connection when it starts again; what was in flight on the other one is taken over as ever. */
static int make_anew(KeeperDaemon *daemon, size_t number, Error *error)
{
	KeeperMount *mount = &daemon->mounts[number], made = *mount;
	MountEntry entry;
	made.fuse_fd = made.init_fd = made.journal_fd = -1;
	if (mount_table_find(mount->directory, &entry) == 0 && entry.major == mount->entry.major &&
	    entry.minor == mount->entry.minor)
		(void)umount2(mount->directory, UMOUNT_NOFOLLOW | MNT_DETACH);
	int r = fd_make_directories(AT_FDCWD, mount->directory, 0755);
	if (r < 0)
		return error_set(error, r, "cannot make %s: %s", mount->directory, strerror(-r));
	r = keeper_mount_make(&made, error);
	if (r < 0) {
		if (made.fuse_fd >= 0)
			(void)umount2(mount->directory, UMOUNT_NOFOLLOW | MNT_DETACH);
		close_mount(&made);
		return r;
	}
	close_mount(mount);
	*mount = made;
	keeper_mount_set_read_ahead(mount);
	copy_mount(daemon, number);
	if (daemon->server.pid > 0)
		(void)kill(daemon->server.pid, SIGKILL);
	return 0;
}

static void replace_dead(KeeperDaemon *daemon, size_t number, int64_t now)
{
	Error error = { 0 };
	if (now < daemon->remake_at)
		return;
	log_error("the connection of a mount was aborted; it is made anew, and programs that used it have to start "
		  "again dir=%s",
		  daemon->mounts[number].directory);
	int r = make_anew(daemon, number, &error);
	if (r < 0) {
		log_error("no mount dir=%s reason=\"%s\"", daemon->mounts[number].directory, error_text(&error, r));
		daemon->remake_at = now + RETRY_MS;
	}
}

void keeper_restore(KeeperDaemon *daemon, int64_t now)
{
	bool look = daemon->table_changed && now >= daemon->look_at;
	if (daemon->ending)
		return;
	for (size_t i = 0; i < 2; i++) {
		bool gone = keeper_mount_is_gone(&daemon->mounts[i]);
		if (gone && !keeper_mount_is_gone(&daemon->mounts[1 - i]))
			replace_dead(daemon, i, now);
		else if (!gone && look)
			put_back(daemon, i);
	}
	if (look) {
		daemon->table_changed = false;
		daemon->look_at = now + LOOK_MS;
	}
}
