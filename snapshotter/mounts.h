/*
 * The directories of snapshots: <root>/snapshots/<id>/fs, and /work for those that are written to. Everything here blocks for the disk.
 * Errors are -EIO, -ENOSPC and -ENOMEM with a sentence, never an errno that a client would take for a statement about snapshots.
 */
#pragma once

#include <sys/types.h>

#include "fs/base/error.h"
#include "snapshotter/plan.h"

typedef struct Mounts {
	char *root, *snapshots; /* absolute */
	int lock_fd;            /* held as long as this is open: one snapshotter a root */
	int snapshots_fd;
	PlanHost host;
} Mounts;

/* Makes what is missing below `root`. Errors also: -EBUSY (another one uses this root). */
int mounts_open(const char *root, Mounts *ret_mounts, Error *error) _must_check_;
void mounts_close(Mounts *mounts);

/* <id>/fs with mode 0755 and that owner; with `writable` also <id>/work. What was made is removed on failure. */
int mounts_create(const Mounts *mounts, uint64_t id, bool writable, uid_t uid, gid_t gid, Error *error) _must_check_;

/*
 * Makes <id>/fs of a lazy snapshot a symbolic link to its tree, or sees that it is one: a lower directory beside those of ordinary snapshots.
 * Goes with <id>. Returns its path, the caller's.
 */
int mounts_link(const Mounts *mounts, uint64_t id, const char *tree, char **ret_path, Error *error) _must_check_;

/* Who owns <id>/fs. */
int mounts_owner(const Mounts *mounts, uint64_t id, uid_t *ret_uid, gid_t *ret_gid, Error *error) _must_check_;

/* Bytes on disk and inodes of <id>/fs, hard links once. */
int mounts_usage(const Mounts *mounts, uint64_t id, int64_t *ret_size, int64_t *ret_inodes, Error *error) _must_check_;

/* Removes <id> with all in it; also what is not there at all is removed well. */
int mounts_remove(const Mounts *mounts, uint64_t id, Error *error) _must_check_;

/* All ids with a directory; owned by the caller. Entries that are no id are left alone. */
int mounts_ids(const Mounts *mounts, uint64_t **ret_ids, size_t *ret_count, Error *error) _must_check_;
