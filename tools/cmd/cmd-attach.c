/* imgfs attach: has imgfsd hold an image, without a mount of one's own; what is printed is where it is seen. */
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/cmd/daemon-client.h"
#include "tools/cmd/output.h"

#define VERB "attach"

enum { OPTION_OWNER = VERB_OPTION_LONG, OPTION_JSON };

const VerbOption cmd_attach_options[] = {
	DAEMON_OPTIONS,
	{ "owner", OPTION_OWNER, "NAME", "who holds it, for `imgfs detach`; default the reference" },
	{ "store", 's', "DIR", "attach NAME[:TAG] from this store" },
	REMOTE_OPTIONS,
	{ "json", OPTION_JSON, NULL, "print a JSON object" },
	{ 0 },
};

typedef struct Arguments {
	const char *socket, *owner, *store, *reference;
	RemoteOptions remote;
	bool json;
} Arguments;

static int parse_option(int id, Arguments *arguments)
{
	switch (id) {
	case DAEMON_OPTION_SOCKET:
		arguments->socket = optarg;
		return VERB_SUCCESS;
	case OPTION_OWNER:
		arguments->owner = optarg;
		return VERB_SUCCESS;
	case 's':
		arguments->store = optarg;
		return VERB_SUCCESS;
	case OPTION_JSON:
		arguments->json = true;
		return VERB_SUCCESS;
	default:
		return remote_options_take(&arguments->remote, id);
	}
}

static int run(const Arguments *arguments, Error *error)
{
	_cleanup_(control_client_free_p) ControlClient *client = NULL;
	_cleanup_free_ char *store = arguments->store ? realpath(arguments->store, NULL) : NULL;
	if (arguments->store && !store)
		return error_set(error, -errno, "cannot open the store %s: %s", arguments->store, strerror(errno));
	int r = daemon_client_connect(arguments->socket, &client, error);
	if (r < 0)
		return r;
	json_t *answer = NULL,
	       *request = json_pack("{s:s, s:s, s:s, s:s*}", "call", "attach", "reference", arguments->reference,
				    "owner", arguments->owner ?: arguments->reference, "store", store);
	r = request ? daemon_client_add_remote(request, &arguments->remote, error) : 0;
	if (r < 0) {
		json_decref(request);
		return r;
	}
	r = daemon_client_call(client, request, &answer, error);
	if (r < 0)
		return r;
	if (arguments->json)
		return output_json(answer);
	printf("%s\n", json_string_value(json_object_get(answer, "path")));
	json_decref(answer);
	return 0;
}

int cmd_attach(int argc, char **argv)
{
	Error error = { 0 };
	Arguments arguments = { 0 };
	int status = VERB_SUCCESS;
	for (int id; status == VERB_SUCCESS && (id = verb_getopt(argc, argv, cmd_attach_options)) != -1;)
		status = parse_option(id, &arguments);
	if (status == VERB_SUCCESS && argc - optind != 1)
		status = verb_usage_error(VERB, "give one reference");
	if (status == VERB_SUCCESS)
		status = remote_options_check(&arguments.remote, VERB);
	if (status == VERB_SUCCESS)
		status = remote_options_check_reference(VERB, argv[optind], arguments.store != NULL);
	if (status == VERB_SUCCESS) {
		arguments.reference = argv[optind];
		int r = run(&arguments, &error);
		status = r < 0 ? verb_fail(VERB, r, &error) : VERB_SUCCESS;
	}
	remote_options_done(&arguments.remote);
	return status;
}
