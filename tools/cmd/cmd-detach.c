/* imgfs detach: lets go what `imgfs attach` or a lazy unmount had imgfsd hold. */
#include <getopt.h>

#include "tools/cmd/daemon-client.h"

#define VERB "detach"

const VerbOption cmd_detach_options[] = {
	DAEMON_OPTIONS,
	{ 0 },
};

int cmd_detach(int argc, char **argv)
{
	Error error = { 0 };
	const char *socket = NULL;
	for (int id; (id = verb_getopt(argc, argv, cmd_detach_options)) != -1;) {
		if (id != DAEMON_OPTION_SOCKET)
			return VERB_USAGE;
		socket = optarg;
	}
	if (argc - optind != 1)
		return verb_usage_error(VERB, "give the owner, as `imgfs list` shows it");
	_cleanup_(control_client_free_p) ControlClient *client = NULL;
	int r = daemon_client_connect(socket, &client, &error);
	if (r == 0)
		r = daemon_client_call(client, json_pack("{s:s, s:s}", "call", "detach", "owner", argv[optind]), NULL,
				       &error);
	return r < 0 ? verb_fail(VERB, r, &error) : VERB_SUCCESS;
}
