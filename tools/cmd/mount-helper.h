/*
 * imgfs as a helper of mount(8), under the name mount.imgfs: mount(8) runs it for `mount -t imgfs` and for lines of fstab with this
 * type (mount(8), "EXTERNAL HELPERS").
 */
#pragma once

#include <stdbool.h>

/* Is this the name of the helper, with or without directories before it? */
bool mount_helper_is(const char *program);

/* Mounts as mount(8) asks. Returns an exit status of mount(8): 0, 1 (wrong invocation), 2 (system error) or 32 (mount failed). */
int mount_helper_main(int argc, char **argv);
