/* imgfs upgrade: lets mounts go on under these programs, while they are in use. */
#include <getopt.h>
#include <poll.h>
#include <string.h>

#include "fs/mount/mount-table.h"
#include "fs/mount/mount.h"
#include "tools/cmd/daemon-client.h"

#define VERB "upgrade"

#define BACK_SECONDS 60
#define BACK_PAUSE   5 /* milliseconds */

const VerbOption cmd_upgrade_options[] = {
	DAEMON_OPTIONS,
	{ 0 },
};

static void print_upgraded(void *arg, const char *directory, const Error *error)
{
	int *status = arg;
	if (!error) {
		printf("upgraded %s\n", directory);
		return;
	}
	fprintf(stderr, "imgfs " VERB ": %s: %s\n", directory, error_text(error, error->code));
	*status = VERB_FAILURE;
}

/* The manager executes its new program after it has answered; whoever speaks to it next is to find it. */
static int wait_back(const char *socket, ControlClient *client, Error *error)
{
	int r = control_wait_end(client, BACK_SECONDS * 1000);
	for (int tries = 0; r == 0 && tries < BACK_SECONDS * 1000 / BACK_PAUSE; tries++) {
		_cleanup_(control_client_free_p) ControlClient *next = NULL;
		if (daemon_client_connect(socket, &next, NULL) == 0)
			return 0;
		(void)poll(NULL, 0, BACK_PAUSE);
	}
	return error_set(error, -ETIMEDOUT,
			 "it has not come back within %d s after keeper and server were upgraded; its log says why",
			 BACK_SECONDS);
}

/* Returns 1 when there was an imgfsd, which goes on with keeper and server as what is installed in its place now (`ret_keeper`: its keeper's process, or 0); 0 when there was none. */
static int upgrade_daemon(const char *socket, pid_t *ret_keeper, Error *error)
{
	_cleanup_(control_client_free_p) ControlClient *client = NULL;
	int r = daemon_client_try(socket, &client, NULL, error);
	if (r <= 0)
		return r;
	json_t *answer = NULL;
	r = daemon_client_call(client, json_pack("{s:s}", "call", "upgrade"), &answer, error);
	if (r == 0) {
		*ret_keeper = (pid_t)json_integer_value(json_object_get(answer, "keeper"));
		json_decref(answer);
		r = wait_back(socket, client, error);
	}
	return r < 0 ? error_prefix(error, r, "imgfsd") : 1;
}

/* Has imgfsd mounted what is there? */
static bool is_daemons(const char *directory)
{
	char path[PATH_MAX];
	MountEntry entry;
	return mount_table_path(directory, path) == 0 && mount_table_find(path, &entry) == 0 &&
	       strncmp(entry.source, MOUNT_TABLE_DAEMON, strlen(MOUNT_TABLE_DAEMON)) == 0;
}

/* NULL: everything. Returns how many keepers there were. */
static int upgrade(const char *directory, const char *socket, int *status, Error *error)
{
	int daemons = 0;
	pid_t keeper = 0;
	if (!directory || is_daemons(directory))
		daemons = upgrade_daemon(socket, &keeper, error);
	if (daemons > 0)
		printf("upgraded imgfsd and all that it has mounted\n");
	if (daemons < 0 || (daemons > 0 && directory))
		return daemons;
	int own = mount_upgrade(directory, keeper, print_upgraded, status, error);
	return own < 0 ? own : own + daemons;
}

int cmd_upgrade(int argc, char **argv)
{
	const char *socket = NULL;
	for (int id; (id = verb_getopt(argc, argv, cmd_upgrade_options)) != -1;) {
		if (id != DAEMON_OPTION_SOCKET)
			return VERB_USAGE;
		socket = optarg;
	}
	int status = VERB_SUCCESS;
	int at = optind;
	do {
		Error error = { 0 };
		int r = upgrade(at < argc ? argv[at] : NULL, socket, &status, &error);
		if (r < 0)
			status = verb_fail(VERB, r, &error);
		else if (r == 0)
			printf("no image is mounted\n");
	} while (++at < argc);
	return status;
}
