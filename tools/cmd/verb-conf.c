#include "tools/cmd/verb-conf.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define SNAPSHOTTER "snapshotter"

static const NetHosts *loaded;

const NetHosts *verb_conf_hosts(void)
{
	return loaded;
}

void verb_conf_done(VerbConf *conf)
{
	verb_set_origins(NULL, NULL, 0);
	if (loaded == &conf->hosts)
		loaded = NULL;
	net_hosts_done(&conf->hosts);
	for (int i = 0; conf->argv && i < conf->count; i++)
		free(conf->argv[1 + i]);
	free(conf->argv);
	free(conf->lines);
	conf_done(&conf->conf);
	*conf = (VerbConf){ 0 };
}

static int fail(const Conf *conf, const ConfEntry *entry, const char *what, const char *name, const char *way_out)
{
	fprintf(stderr, "imgfs: %s:%u: %s \"%s\"; %s\n", conf->path, entry->line, what, name, way_out);
	return VERB_FAILURE;
}

static const VerbOption *find_option(const Verb *verb, const char *name)
{
	for (const VerbOption *option = verb->options; option && option->name; option++)
		if (strcmp(option->name, name) == 0)
			return option;
	return NULL;
}

/* "yes" and the like: 1; "no" and the like: 0; anything else: -1. */
static int read_switch(const char *value)
{
	static const char *const words[][2] = { { "no", "yes" }, { "off", "on" }, { "false", "true" }, { "0", "1" } };
	for (size_t i = 0; i < ELEMENTS(words); i++)
		for (int on = 0; on < 2; on++)
			if (strcasecmp(value, words[i][on]) == 0)
				return on;
	return -1;
}

static int add_option(VerbConf *conf, const ConfEntry *entry, bool has_value)
{
	char *text;
	if (asprintf(&text, "--%s%s%s", entry->key, has_value ? "=" : "", has_value ? entry->value : "") < 0) {
		fprintf(stderr, "imgfs: out of memory\n");
		return VERB_FAILURE;
	}
	conf->lines[conf->count++] = entry->line;
	conf->argv[conf->count] = text;
	return VERB_SUCCESS;
}

/* What is said in one section for every verb that has such an option, if that is VERB_OPTION_SHARED: `--cache` of `imgfs serve` is not, since it means another server. */
static bool is_shared(const ConfEntry *entry, const Verb *verb)
{
	static const char *const keys[][2] = {
		{ "cache", "cache" }, { "cache", "quota" }, { "daemon", "state" }, { SNAPSHOTTER, "root" }
	};
	const VerbOption *option = find_option(verb, entry->key);
	for (size_t i = 0; option && option->id >= VERB_OPTION_SHARED && i < ELEMENTS(keys); i++)
		if (strcmp(entry->section, keys[i][0]) == 0 && strcmp(entry->key, keys[i][1]) == 0)
			return strcmp(entry->section, verb->name) != 0;
	return false;
}

/* Checks an entry, and puts it into the command line if it is one of `verb`, or shared with it; these come `first`, so that its own win. */
static int use_entry(VerbConf *conf, const ConfEntry *entry, const Verb *verb, bool first)
{
	if (net_hosts_has_section(entry->section))
		return VERB_SUCCESS; /* net_hosts_parse() looks at these */
	/* imgfs-snapshotter looks at this. */
	if (strcmp(entry->section, SNAPSHOTTER) == 0)
		return first && entry->key && is_shared(entry, verb) ? add_option(conf, entry, true) : VERB_SUCCESS;
	const Verb *owner = verbs_find(entry->section);
	if (!owner || !owner->options || entry->name)
		return fail(&conf->conf, entry, "there is no section", entry->section,
			    "sections are called as the verbs of `imgfs help`");
	if (!entry->key)
		return VERB_SUCCESS;
	const VerbOption *option = find_option(owner, entry->key);
	if (!option)
		return fail(&conf->conf, entry, "there is no key", entry->key,
			    "keys are called as the long options of the verb, see `imgfs help VERB`");
	int on = option->argument ? 1 : read_switch(entry->value);
	if (on < 0)
		return fail(&conf->conf, entry, "neither yes nor no:", entry->value, "this key is a switch");
	bool wanted = first ? is_shared(entry, verb) : owner == verb;
	return wanted && on ? add_option(conf, entry, option->argument != NULL) : VERB_SUCCESS;
}

static int build(VerbConf *conf, const Verb *verb, int argc, char **argv)
{
	conf->lines = calloc(conf->conf.count + 1, sizeof(*conf->lines));
	conf->argv = calloc(conf->conf.count + (size_t)argc + 1, sizeof(char *));
	if (!conf->lines || !conf->argv) {
		fprintf(stderr, "imgfs: out of memory\n");
		return VERB_FAILURE;
	}
	conf->argv[0] = argv[0];
	for (size_t i = 0; i < 2 * conf->conf.count; i++) {
		bool first = i < conf->conf.count;
		int status = use_entry(conf, &conf->conf.entries[i % conf->conf.count], verb, first);
		if (status != VERB_SUCCESS)
			return status;
	}
	memcpy(conf->argv + 1 + conf->count, argv + 1, (size_t)argc * sizeof(char *)); /* with the NULL */
	conf->argc = conf->count + argc;
	verb_set_origins(conf->conf.path, conf->lines, conf->count);
	return VERB_SUCCESS;
}

int verb_conf_load(const char *path, const Verb *verb, int argc, char **argv, VerbConf *ret_conf)
{
	Error error = { 0 };
	const char *named = path ?: getenv("IMGFS_CONFIG");
	int r = named && !named[0] ? 0 : conf_read(named ?: VERB_CONF_PATH, &ret_conf->conf, &error);
	/* The machine's own may be missing, or not for everybody to read. */
	if (r < 0 && (named || (r != -ENOENT && r != -EACCES)))
		return verb_fail(verb->name, r, &error);
	r = net_hosts_parse(&ret_conf->conf, &ret_conf->hosts, &error);
	if (r < 0)
		return verb_fail(verb->name, r, &error);
	loaded = &ret_conf->hosts;
	return build(ret_conf, verb, argc, argv);
}
