/*
 * Layers seen with other owners: for a container in a user namespace whose ids the client wants mapped here (labels uidmapping and gidmapping),
 * they are mounted once more below <root>/idmap, with the mapping (mount_setattr(2), MOUNT_ATTR_IDMAP): the directory of all snapshots, and the
 * tree of each lazy one. One mount serves all containers with that mapping. Needs Linux 5.19, where overlayfs takes such lower directories;
 * for lazy ones 6.12, where FUSE can be mapped.
 */
#pragma once

#include "snapshotter/mounts.h"

/* What is to be seen so, with which ids: either text may be NULL, no mapping of these. */
typedef struct MountsIdmap {
	const char *uids, *gids;
	uint64_t lazy_id; /* 0: the directory of all snapshots */
	const char *tree; /* of the lazy one, which is shown there */
} MountsIdmap;

/*
 * Makes sure that the mount is there. Returns its directory, which stands for <root>/snapshots or for the tree; the caller's. Blocks.
 * Errors: -EINVAL (no mapping), -EOPNOTSUPP (this kernel or file system cannot), -ENOMEM, with a sentence.
 */
int mounts_idmap(const Mounts *mounts, const MountsIdmap *idmap, char **ret_directory, Error *error) _must_check_;

/* Each directory that there is, as mounts_idmap() gave it. Errors: -ENOMEM. */
int mounts_idmap_each(const Mounts *mounts, void (*each)(void *arg, const char *directory), void *arg, Error *error)
	_must_check_;

/* Takes away all that is mounted there, dead mounts too; programs that use them keep them. */
void mounts_idmap_remove(const char *directory);

/* The directory alone, whether it is mounted or not. NULL without memory. `tree` is not looked at. */
char *mounts_idmap_directory(const Mounts *mounts, const MountsIdmap *idmap);
