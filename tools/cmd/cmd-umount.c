/* imgfs umount: takes an image away from a directory, and with it what served it alone. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "fs/mount/mount-table.h"
#include "fs/mount/mount.h"
#include "tools/cmd/daemon-client.h"

#define VERB "umount"

const VerbOption cmd_umount_options[] = {
	{ "lazy", 'l', NULL, "detach it now, also while it is in use; who uses it goes on" },
	DAEMON_OPTIONS,
	{ 0 },
};

/* A bind mount, or nothing yet: then imgfsd may know of it. One that has the whole file system is a mount of its own. */
static bool may_be_daemons(const char *path)
{
	MountEntry entry;
	int r = mount_table_find(path, &entry);
	return r == -ENOENT || (r == 0 && strcmp(entry.root, "/") != 0);
}

/* Returns 1 when imgfsd has done it, 0 when it is not its own or does not run. */
static int unmount_by_daemon(const char *directory, const char *socket, bool lazy, Error *error)
{
	char path[PATH_MAX];
	_cleanup_(control_client_free_p) ControlClient *client = NULL;
	json_t *answer = NULL;
	if (mount_table_path(directory, path) < 0 || !daemon_client_takes(path) || !may_be_daemons(path))
		return 0;
	int r = daemon_client_try(socket, &client, NULL, error);
	if (r <= 0)
		return r;
	r = daemon_client_call(client, json_pack("{s:s, s:s, s:b}", "call", "detach", "owner", path, "lazy", lazy),
			       &answer, error);
	if (r == -ENOENT) {
		*error = (Error){ 0 };
		return 0;
	}
	if (r < 0)
		return r;
	if (json_is_true(json_object_get(answer, "lingering")))
		fprintf(stderr, "imgfs umount: who uses it goes on; `imgfs detach` ends that, see `imgfs list`\n");
	json_decref(answer);
	return 1;
}

int cmd_umount(int argc, char **argv)
{
	bool lazy = false;
	const char *socket = NULL;
	for (int id; (id = verb_getopt(argc, argv, cmd_umount_options)) != -1;) {
		if (id == 'l')
			lazy = true;
		else if (id == DAEMON_OPTION_SOCKET)
			socket = optarg;
		else
			return VERB_USAGE;
	}
	if (argc - optind != 1)
		return verb_usage_error(VERB, "give the directory an image is mounted on");
	Error error = { 0 };
	int r = unmount_by_daemon(argv[optind], socket, lazy, &error);
	if (r == 0)
		r = mount_unmount(argv[optind], lazy, &error);
	return r < 0 ? verb_fail(VERB, r, &error) : VERB_SUCCESS;
}
