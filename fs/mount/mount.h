/*
 * Mounting an image: a keeper process that mounts and holds every descriptor, and a server it starts, again and again if
 * need be (docs/architecture.md, "Keeper and server"). This is the face of the room; the rest of it is private.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "fs/base/error.h"
#include "fs/fetch/fetch-image.h"

typedef struct MountOptions {
	const char *directory;      /* where to mount */
	const char *source;         /* what mountinfo shows as the source: the reference with its digest */
	int64_t deadline;           /* of a read that waits for the network, milliseconds */
	unsigned read_ahead_kb;     /* of the mount's bdi; 0 means 512; root alone can change the kernel's 128 */
	bool no_fill;               /* nothing is fetched but what is read */
	uint64_t fill_rate;         /* of the background fill, bytes a second; 0: what readers leave */
	unsigned flags;             /* FUSE_MOUNT_* (fuse-mount.h) */
	const char *log_path;       /* of keeper and server; NULL: standard error in the foreground, else nowhere */
	bool foreground;            /* the keeper stays on the terminal; mount_image() waits for the unmount */
	CacheStore *cache;          /* where a janitor is to make room (janitor.h); NULL: nowhere */
	uint64_t quota;             /* of that cache, bytes; 0: none */
	void (*mounted)(void *arg); /* called once the mount answers; NULL: nobody wants to know */
	void *mounted_arg;
} MountOptions;

/* Can this process mount there at all? To be asked before an image is fetched; mount_image() asks again. */
int mount_check(const MountOptions *options, Error *error) _must_check_;

/*
 * Starts keeper and server and returns when the mount answers (or, in the foreground, when it is gone). The keeper goes
 * on by itself. Other users than root need fusermount3. In the foreground SIGTERM, SIGINT and SIGHUP unmount lazily; they must be blocked in all other
 * threads. Errors carry a sentence; then nothing is mounted and no process is left.
 */
int mount_image(const FetchImage *image, const MountOptions *options, Error *error) _must_check_;

/*
 * Asks a mount for its statfs(), which is never answered from a cache, in a child, since one whose server does not answer waits for ever. Blocks for some two
 * seconds at most. 0: it answers. Errors: -ENOTCONN (it is dead), -ETIMEDOUT, statvfs's, fork's. For a process of one thread.
 */
int mount_ask(const char *directory) _must_check_;

/*
 * Detaches what is left at a directory of mounts whose keeper has died, which answer everything with ENOTCONN. Returns 1 when there was
 * something, 0 when there was not; what lives there stays. Errors: fuse_unmount's. For a process of one thread: it forks.
 */
int mount_clear_dead(const char *directory, Error *error) _must_check_;

/*
 * Has the keeper of the imgfs mount at a directory, or of all mounts in this mount namespace (NULL), go on as the programs that
 * belong to this one, with a new server; nobody who uses the mount notices. `upgraded` is called for each keeper; its error is NULL
 * when that was done. One whose process is `except` was upgraded already and is passed over; 0: none. Returns how many there were. What other users have mounted is theirs to upgrade.
 * Errors: -ENOENT (no programs), -EINVAL (not an imgfs mount), -ENOTCONN (its keeper is dead).
 */
typedef void MountUpgraded(void *arg, const char *directory, const Error *error);
int mount_upgrade(const char *directory, pid_t except, MountUpgraded *upgraded, void *arg, Error *error) _must_check_;

/*
 * Unmounts an imgfs mount and waits until keeper and server are gone; lazily it waits but briefly, since users may keep them.
 * Errors: -EINVAL (not an imgfs mount), -EBUSY (in use; the sentence says so), -ETIMEDOUT, umount2's.
 */
int mount_unmount(const char *directory, bool lazy, Error *error) _must_check_;
