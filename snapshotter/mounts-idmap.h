/*
 * Layers seen with other owners: for a container in a user namespace whose ids the client wants mapped here (labels uidmapping and gidmapping),
 * the directory of all snapshots is mounted once more below <root>/idmap, with the mapping (mount_setattr(2), MOUNT_ATTR_IDMAP). One mount
 * serves all containers with that mapping. Needs Linux 5.19, where overlayfs takes such lower directories.
 */
#pragma once

#include "snapshotter/mounts.h"

/*
 * Makes sure that the mount for this mapping is there. Either text may be NULL: no mapping of these. Returns the directory that stands for
 * <root>/snapshots, the caller's. Blocks. Errors: -EINVAL (no mapping), -EOPNOTSUPP (this kernel or file system cannot), -EIO, with a sentence.
 */
int mounts_idmap(const Mounts *mounts, const char *uids, const char *gids, char **ret_directory, Error *error)
	_must_check_;

/* Takes away the mounts of mappings that none of `count` directories, as mounts_idmap() gave them, is of. */
int mounts_idmap_clean(const Mounts *mounts, char *const *directories, size_t count, Error *error) _must_check_;

/* The directory alone, whether it is mounted or not. NULL without memory. */
char *mounts_idmap_directory(const Mounts *mounts, const char *uids, const char *gids);
