/*
 * The rules of what a client is told to mount, and what labels mean. Pure: no file is looked at. Options are those of containerd's own
 * overlayfs snapshotter, so that its tools (diff, page-limit work-around, read-only handling) find what they expect.
 */
#pragma once

#include <sys/types.h>

#include "snapshotter/meta.h"

/* containerd hands ids of users in the container's namespace in these; "container:host:size[,...]". */
#define PLAN_LABEL_UID_MAPPING "containerd.io/snapshot/uidmapping"
#define PLAN_LABEL_GID_MAPPING "containerd.io/snapshot/gidmapping"

/* What the host is like. */
typedef struct PlanHost {
	const char *snapshots; /* the directory whose entries are <id>/fs and <id>/work */
	bool index_off;        /* overlayfs knows "index": it must be off, since lower directories are shared */
	bool user_xattr;       /* within a user namespace overlayfs keeps its marks in user.* */
} PlanHost;

/*
 * Options of mount(2) are a page at most. From this many bytes on containerd shortens a list of lower directories: it mounts from the directory
 * that all of them are in (mount_linux.go, compactLowerdirOption()).
 */
#define PLAN_OPTIONS_LONG (4096u - 512u)

typedef struct PlanMount {
	const char *type;
	char *source;
	char *options[8];
	size_t option_count;
} PlanMount;

/*
 * The one mount of a snapshot of `kind` (META_VIEW or META_ACTIVE) with its ancestors' directories `lowers`, the nearest first. Errors:
 * -ENOMEM.
 */
int plan_mount(const PlanHost *host, uint64_t id, MetaKind kind, char *const *lowers, size_t count,
	       PlanMount *ret_mount) _must_check_;
void plan_mount_done(PlanMount *mount);

/* Are the options so long that the lower directories have to have a directory in common? */
bool plan_mount_is_long(const PlanMount *mount);

/* "<snapshots>/<id>/<part>". NULL without memory. */
char *plan_directory(const PlanHost *host, uint64_t id, const char *part);

/*
 * The host's id for `id` of a container, by a label of the form above. Errors: -EINVAL with a sentence (no such form, or no range of
 * it has the id).
 */
int plan_map_id(const char *mapping, uint32_t id, uint32_t *ret_id, Error *error) _must_check_;
