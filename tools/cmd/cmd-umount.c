/* imgfs umount: takes an image away from a directory, and with it the processes that served it. */
#include <getopt.h>

#include "fs/mount/mount.h"
#include "tools/cmd/verbs.h"

#define VERB "umount"

const VerbOption cmd_umount_options[] = {
	{ "lazy", 'l', NULL, "detach it now; it goes when its last user is gone" },
	{ 0 },
};

int cmd_umount(int argc, char **argv)
{
	bool lazy = false;
	for (int id; (id = verb_getopt(argc, argv, cmd_umount_options)) != -1;) {
		if (id != 'l')
			return VERB_USAGE;
		lazy = true;
	}
	if (argc - optind != 1)
		return verb_usage_error(VERB, "give the directory an image is mounted on");
	Error error = { 0 };
	int r = mount_unmount(argv[optind], lazy, &error);
	return r < 0 ? verb_fail(VERB, r, &error) : VERB_SUCCESS;
}
