/* imgfs list: what imgfsd holds, for whom, and where it is seen. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "tools/cmd/daemon-client.h"
#include "tools/cmd/output.h"

#define VERB "list"

enum { OPTION_JSON = VERB_OPTION_LONG };

const VerbOption cmd_list_options[] = {
	DAEMON_OPTIONS,
	{ "json", OPTION_JSON, NULL, "print a JSON array" },
	{ 0 },
};

static int collect(void *arg, const json_t *entry)
{
	return json_array_append(arg, (json_t *)(uintptr_t)entry) < 0 ? -ENOMEM : 0;
}

static const char *text_of(const json_t *entry, const char *key)
{
	return json_string_value(json_object_get(entry, key)) ?: "-";
}

static void print_entry(const json_t *entry)
{
	const char *fault = json_string_value(json_object_get(entry, "fault"));
	printf("%s\n  shows   %s\n          %s\n  image   %s\n  at      %s\n", text_of(entry, "owner"),
	       text_of(entry, "reference"), text_of(entry, "manifest"), text_of(entry, "image"),
	       text_of(entry, "path"));
	printf("  state   %s%s%s%s\n", text_of(entry, "state"),
	       json_is_true(json_object_get(entry, "sealed")) ? ", sealed" : "",
	       json_is_true(json_object_get(entry, "pinned")) ? ", pinned" : "",
	       json_is_true(json_object_get(entry, "lingering")) ? ", for who still uses it (`imgfs detach` ends that)"
								 : "");
	if (fault)
		printf("          %s\n", fault);
}

static int run(const char *socket, bool as_json, Error *error)
{
	_cleanup_(control_client_free_p) ControlClient *client = NULL;
	int r = daemon_client_connect(socket, &client, error);
	if (r < 0)
		return r;
	json_t *list = json_array(), *entry;
	size_t at;
	r = list ? daemon_client_list(client, collect, list, error) : error_set(error, -ENOMEM, "out of memory");
	if (r == 0 && as_json)
		r = output_json(json_incref(list));
	else if (r == 0)
		json_array_foreach(list, at, entry) print_entry(entry);
	json_decref(list);
	return r;
}

int cmd_list(int argc, char **argv)
{
	Error error = { 0 };
	const char *socket = NULL;
	bool as_json = false;
	for (int id; (id = verb_getopt(argc, argv, cmd_list_options)) != -1;) {
		if (id == DAEMON_OPTION_SOCKET)
			socket = optarg;
		else if (id == OPTION_JSON)
			as_json = true;
		else
			return VERB_USAGE;
	}
	if (optind < argc)
		return verb_usage_error(VERB, "it takes no argument such as %s", argv[optind]);
	int r = run(socket, as_json, &error);
	return r < 0 ? verb_fail(VERB, r, &error) : VERB_SUCCESS;
}
