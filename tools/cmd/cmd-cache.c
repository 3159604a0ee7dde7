/* imgfs cache: what the cache of this node holds, what of it can go, and what stays. */
#include "tools/cmd/cmd-cache.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "fs/base/conf.h"
#include "tools/cmd/cmd-daemon.h"
#include "tools/cmd/daemon-client.h"

#define VERB     "cache"
#define KEEP_MAX 4096u

enum {
	OPTION_JSON = VERB_OPTION_LONG,
	OPTION_ALL,
	OPTION_DRY_RUN,
	OPTION_KEEP,
	OPTION_FREE,
	OPTION_QUOTA = VERB_OPTION_SHARED,
	OPTION_STATE,
};

const VerbOption cmd_cache_options[] = {
	REMOTE_CACHE_OPTION,
	{ "quota", OPTION_QUOTA, "SIZE", "evict: how much the cache may take (20G, 500M); default any size" },
	{ "free", OPTION_FREE, "SIZE", "evict: free that much at least" },
	{ "all", OPTION_ALL, NULL,
	  "prune: forget the tags too, and keep only what is mounted, attached, pinned or sealed" },
	{ "keep", OPTION_KEEP, "N", "prune: keep the N manifests got last too, whatever tags mean; default 0" },
	{ "dry-run", OPTION_DRY_RUN, NULL, "prune: remove nothing, only say what would go" },
	{ "state", OPTION_STATE, "DIR", "prune: what imgfsd has attached; default " DAEMON_STATE },
	DAEMON_OPTIONS,
	{ "json", OPTION_JSON, NULL, "print JSON" },
	{ "quiet", 'q', NULL, "no progress, and nothing where all is well" },
	{ 0 },
};

static const struct {
	const char *name;
	CacheAction *run;
	bool takes_reference;
} actions[] = {
	{ "ls", cache_action_ls, false },         { "size", cache_action_size, false },
	{ "pin", cache_action_pin, true },        { "unpin", cache_action_unpin, true },
	{ "evict", cache_action_evict, false },   { "prune", cache_action_prune, false },
	{ "verify", cache_action_verify, false },
};

static int parse_size(const char *option, uint64_t *ret_bytes)
{
	if (conf_size(optarg, ret_bytes) < 0)
		return verb_usage_error(VERB, "--%s %s: give bytes, as 20G, 500M or 64Mi", option, optarg);
	return VERB_SUCCESS;
}

static int parse_option(int id, CacheArguments *arguments)
{
	switch (id) {
	case OPTION_ALL:
		arguments->all = true;
		return VERB_SUCCESS;
	case OPTION_KEEP:
		if (verb_number(optarg, 0, KEEP_MAX, &arguments->keep) < 0)
			return verb_usage_error(VERB, "--keep %s: give a number up to %u", optarg, KEEP_MAX);
		return VERB_SUCCESS;
	case OPTION_QUOTA:
		return parse_size("quota", &arguments->quota);
	case OPTION_FREE:
		return parse_size("free", &arguments->free);
	case OPTION_DRY_RUN:
		arguments->dry_run = true;
		return VERB_SUCCESS;
	case OPTION_STATE:
		arguments->state = optarg;
		return VERB_SUCCESS;
	case DAEMON_OPTION_SOCKET:
		arguments->socket = optarg;
		return VERB_SUCCESS;
	case OPTION_JSON:
		arguments->json = true;
		return VERB_SUCCESS;
	case 'q':
		arguments->quiet = true;
		return VERB_SUCCESS;
	default:
		return remote_options_take(&arguments->remote, id);
	}
}

static int check(const CacheArguments *arguments)
{
	bool prune = strcmp(arguments->action, "prune") == 0, evict = strcmp(arguments->action, "evict") == 0;
	if (!prune && (arguments->all || arguments->keep || arguments->dry_run))
		return verb_usage_error(VERB, "--all, --keep and --dry-run are for prune");
	/* A quota stands in the configuration, for whom it is for. */
	if (!evict && arguments->free)
		return verb_usage_error(VERB, "--free is for evict");
	if (evict && !arguments->quota && !arguments->free)
		return verb_usage_error(VERB,
					"say how much the cache may take (--quota), or how much to free (--free)");
	return VERB_SUCCESS;
}

static int parse(int argc, char **argv, CacheArguments *arguments)
{
	for (int id; (id = verb_getopt(argc, argv, cmd_cache_options)) != -1;) {
		int status = parse_option(id, arguments);
		if (status != VERB_SUCCESS)
			return status;
	}
	if (optind == argc)
		return verb_usage_error(VERB, "say what to do: ls, size, pin, unpin, evict, prune or verify");
	arguments->action = argv[optind++];
	arguments->reference = optind < argc ? argv[optind++] : NULL;
	if (optind < argc)
		return verb_usage_error(VERB, "\"%s\" is one argument too many", argv[optind]);
	return check(arguments);
}

int cmd_cache(int argc, char **argv)
{
	Error error = { 0 };
	CacheArguments arguments = { 0 };
	int status = parse(argc, argv, &arguments);
	if (status != VERB_SUCCESS)
		return status;
	for (size_t i = 0; i < ELEMENTS(actions); i++) {
		if (strcmp(actions[i].name, arguments.action) != 0)
			continue;
		if (actions[i].takes_reference != (arguments.reference != NULL))
			return verb_usage_error(VERB,
						actions[i].takes_reference
							? "%s wants a reference: HOST/NAME:TAG, or a digest"
							: "%s takes no argument",
						arguments.action);
		Digest manifest;
		if (arguments.reference && digest_from_text(arguments.reference, &manifest) < 0 &&
		    remote_options_check_reference(VERB, arguments.reference, false) != VERB_SUCCESS)
			return VERB_USAGE;
		_cleanup_(cache_store_free_p) CacheStore *cache = NULL;
		int r = remote_options_cache(&arguments.remote, false, &cache, &error);
		if (r == 0)
			r = actions[i].run(&arguments, cache, &error);
		return r < 0 ? verb_fail(VERB, r, &error) : VERB_SUCCESS;
	}
	return verb_usage_error(VERB, "\"%s\" is none of ls, size, pin, unpin, evict, prune, verify", arguments.action);
}
