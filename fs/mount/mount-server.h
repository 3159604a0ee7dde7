/*
 * What a server serves: one image that is the whole of a private mount, or any number of images in the daemon's two mounts, whose
 * roots are directories of them. Thread-safe.
 *
 * A node number is the image's slot in the upper half, its inode plus 1 in the lower one. Slot 0 is the image of a private mount;
 * the daemon's mounts have the one node 1 in it, their root.
 */
#pragma once

#include "fs/mount/mount-image.h"
#include "fs/mount/server-metrics.h"

typedef struct MountServer MountServer;

/* `metrics_fd` (server-metrics.h) stays the caller's. Errors: -ENOMEM. */
int mount_server_new(int metrics_fd, MountServer **ret_server) _must_check_;
ServerMetrics *mount_server_metrics(MountServer *server);

/* Ends every wait for the network; no image may be opened any more. */
void mount_server_stop(MountServer *server);

/* No request may be under way. */
MountServer *mount_server_free(MountServer *server);
DEFINE_CLEANUP(MountServer, mount_server_free);

/*
 * Adds an image; takes `plan` and its descriptors, also on failure. It is not opened yet: `ret_image` (may be NULL) gets a reference for
 * who wants to. Errors: -EEXIST (the slot, or the name in this mount), -ENOMEM.
 */
int mount_server_add(MountServer *server, const MountPlace *place, MountPlan *plan, MountImage **ret_image)
	_must_check_;

/* Takes an image away; requests under way are answered. Errors: -ENOENT. */
int mount_server_remove(MountServer *server, uint32_t slot) _must_check_;

/* A reference to the image in a slot, or with a name. Errors: -ENOENT. */
int mount_server_get(MountServer *server, uint32_t slot, MountImage **ret_image) _must_check_;
int mount_server_find(MountServer *server, bool xattr, const char *name, MountImage **ret_image) _must_check_;

/* A reference to the image with the lowest slot above `slot` in one of the daemon's mounts. Errors: -ENOENT. */
int mount_server_next(MountServer *server, bool xattr, uint32_t slot, MountImage **ret_image) _must_check_;

/* How many images one of the daemon's mounts has, and when that changed last; never the same time twice. */
typedef struct MountRoot {
	uint32_t count;
	struct timespec changed;
} MountRoot;
void mount_server_root(MountServer *server, bool xattr, MountRoot *ret_root);
