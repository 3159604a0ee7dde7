/* Replaying a start-up profile: what an earlier start read first is fetched before this one asks for it. */
#pragma once

#include "fs/format/profile.h"
#include "fs/mount/mount-image.h"

/*
 * Reads the profile behind a descriptor, which stays the caller's. -1, and whatever is none of this image (`manifest`: the digest's text, or
 * NULL), gives an empty one. Errors: -ENOMEM.
 */
int mount_profile_read(int fd, const char *manifest, Profile *ret_profile) _must_check_;

/*
 * Asks for the chunks of the profile that the image's plan has, in their order, in the class below what is being read; only while the start is
 * still recorded. At most PROFILE_BYTES_MAX are asked for, whatever the profile says, and no chunk twice. The image's layers and its recorder
 * are open. Blocks on reading the profile alone. Errors: -ENOMEM.
 */
int mount_profile_replay(MountImage *image) _must_check_;
