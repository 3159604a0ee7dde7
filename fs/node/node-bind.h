/* Where images are seen: bind mounts of directories of the shared file systems, in the mount namespace of this process. */
#pragma once

#include <limits.h>
#include <stdbool.h>

#include "fs/base/digest.h"
#include "fs/base/error.h"

/*
 * Can something be mounted at `directory`, an absolute path? `ret_path` is it without symbolic links. Errors: -EBUSY (an image is mounted there),
 * -ENOTDIR, stat's, with a sentence.
 */
int node_bind_check(const char *directory, char ret_path[static PATH_MAX], Error *error) _must_check_;

/* Mounts the tree at `source` on `directory`, read-only, nosuid and nodev from its first moment on. Errors: mount_setattr's and the like. */
int node_bind(const char *source, const char *directory, bool noexec, Error *error) _must_check_;

/* Is the topmost mount at `directory` the image of that chain? Asks no file system, so that it does not wait for one. */
bool node_bound(const char *directory, const Digest *chain_id);

/*
 * Are the topmost mounts at `directory` and at `whole` of one file system? A bind that a dead keeper has left is not of the one that its successor has
 * mounted. In the text of a mountinfo.
 */
bool node_bound_in(const char *table, const char *directory, const char *whole);

/*
 * Unmounts that image if it is mounted there. Errors: -EBUSY (in use, also by an overlay that would go on without it; lazily neither is asked), umount2's, with
 * a sentence.
 */
int node_unbind(const char *directory, const Digest *chain_id, bool lazy, Error *error) _must_check_;

/*
 * Is there an overlay with `directory` or something below it as a lower directory? Overlays do not keep a mount busy, and go on using it when it
 * is gone. In the text of a mountinfo; and on this machine, as far as this process sees it.
 */
bool node_overlay_search(const char *table, const char *directory);
bool node_overlay_on(const char *directory);

/* Is that image mounted at `directory`, on top or below other mounts? In the text of a mountinfo. */
bool node_bound_search(const char *table, const char *directory, const Digest *chain_id);

/* Likewise, but of the file system that is mounted at `whole`. */
bool node_bound_of(const char *table, const char *directory, const Digest *chain_id, const char *whole);

/* The text of this process's mountinfo, malloc'ed; NULL when it cannot be read. */
char *node_mount_table(void);
