/* What imgfs-snapshotter says of images that it did not make lazy. */
#pragma once

#include <stdbool.h>

#include "fs/base/error.h"

#define WHY_SNAPSHOTTER_ROOT "/var/lib/imgfs/snapshotter"

/*
 * Looks into the snapshotter's directory for an image that fits(IMAGE, what), its name or the chain ID of a layer. -ENODATA, with a sentence that
 * says when and why a layer of it was pulled whole; 0: nothing is known, or only root may know it. Blocks on the disk.
 */
int why_whole(const char *root, const char *what, bool (*fits)(const char *image, const char *what), Error *error);

/*
 * The same for containers, all that somebody may mean, whose layers are looked for in the snapshotter's metadata. -ENODATA also when a container has no
 * lazy layer, none of them has, and no reason is known. Errors also: -ENOMEM.
 */
int why_whole_containers(const char *root, const char *const *containers, size_t count, Error *error);
