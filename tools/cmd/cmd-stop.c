/* imgfs stop: ends imgfsd with all that is its own: mounts, server, keeper. What is attached is remembered for its next start. */
#include <getopt.h>
#include <poll.h>
#include <sys/pidfd.h>

#include "tools/cmd/daemon-client.h"

#define VERB    "stop"
#define WAIT_MS 30000

const VerbOption cmd_stop_options[] = {
	DAEMON_OPTIONS,
	{ 0 },
};

static int run(const char *socket, Error *error)
{
	_cleanup_(control_client_free_p) ControlClient *client = NULL;
	json_t *answer = NULL;
	int r = daemon_client_connect(socket, &client, error);
	if (r == 0)
		r = daemon_client_call(client, json_pack("{s:s}", "call", "ping"), &answer, error);
	if (r < 0)
		return r;
	pid_t pid = (pid_t)json_integer_value(json_object_get(answer, "pid"));
	json_decref(answer);
	_cleanup_close_ int pidfd = pidfd_open(pid, 0);
	r = daemon_client_call(client, json_pack("{s:s}", "call", "end"), NULL, error);
	if (r < 0)
		return r;
	client = control_client_free(client);
	struct pollfd ended = { .fd = pidfd, .events = POLLIN };
	if (pidfd >= 0 && poll(&ended, 1, WAIT_MS) == 1)
		return 0;
	return error_set(error, -ETIMEDOUT, "imgfsd (process %d) has not ended within %d s; its log says why", pid,
			 WAIT_MS / 1000);
}

int cmd_stop(int argc, char **argv)
{
	Error error = { 0 };
	const char *socket = NULL;
	for (int id; (id = verb_getopt(argc, argv, cmd_stop_options)) != -1;) {
		if (id != DAEMON_OPTION_SOCKET)
			return VERB_USAGE;
		socket = optarg;
	}
	if (optind < argc)
		return verb_usage_error(VERB, "it takes no argument such as %s", argv[optind]);
	int r = run(socket, &error);
	return r < 0 ? verb_fail(VERB, r, &error) : VERB_SUCCESS;
}
