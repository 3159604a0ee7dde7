#include "tools/cmd/mount-helper.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/format/reference.h"
#include "fs/mount/mount-table.h"
#include "tools/cmd/daemon-client.h"
#include "tools/cmd/verb-conf.h"
#include "tools/cmd/verbs.h"

#define NAME          "mount.imgfs"
#define SOURCE_PREFIX "imgfs:" /* of what cmd-mount.c has mountinfo show */

enum { EXIT_INVOCATION = 1, EXIT_SYSTEM = 2, EXIT_MOUNT = 32 };

/* What mount(8) hands on though it is for itself, for systemd, or means what is so anyway. */
static const char *const ignored[] = {
	"ro",         "rw",         "defaults",   "auto",     "noauto",     "user",        "nouser",        "users",
	"nousers",    "owner",      "group",      "nofail",   "_netdev",    "async",       "nosuid",        "nodev",
	"exec",       "atime",      "noatime",    "relatime", "norelatime", "strictatime", "nostrictatime", "diratime",
	"nodiratime", "lazytime",   "nolazytime", "silent",   "loud",       "sync",        "mand",          "nomand",
	"iversion",   "noiversion",
};

typedef struct Helper {
	const char *source;
	const char *directory;
	char *options; /* NULL: none */
	bool fake;
	bool sloppy;
	bool verbose;
	int argc;
	char **argv; /* of the verb */
} Helper;

bool mount_helper_is(const char *program)
{
	const char *slash = program ? strrchr(program, '/') : NULL;
	return program && strcmp(slash ? slash + 1 : program, NAME) == 0;
}

static int usage(const char *what)
{
	fprintf(stderr,
		NAME ": %s\n"
		     "usage: mount -t imgfs HOST[:PORT]/NAME[:TAG] DIR [-o OPTION,...]\n"
		     "OPTION is one of `imgfs help mount` without its dashes, as in "
		     "cache=/var/cache/imgfs,deadline=30,plain-http\n",
		what);
	return EXIT_INVOCATION;
}

static bool is_ignored(const char *option)
{
	if (strncmp(option, "x-", 2) == 0 || strncmp(option, "X-", 2) == 0 || strncmp(option, "comment=", 8) == 0)
		return true;
	for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
		if (strcmp(option, ignored[i]) == 0)
			return true;
	return false;
}

static const VerbOption *find_option(const char *name, size_t length)
{
	for (const VerbOption *option = cmd_mount_options; option->name; option++)
		if (strlen(option->name) == length && memcmp(option->name, name, length) == 0)
			return option;
	return NULL;
}

/* mount(8) keeps "user" for itself. */
#define USER_OPTION "username="

/* NAME or NAME=VALUE becomes --NAME or --NAME=VALUE of the verb; the text is the caller's of `ret_argument`. */
static int translate(const Helper *helper, const char *text, char **ret_argument)
{
	char sentence[256];
	if (strncmp(text, USER_OPTION, strlen(USER_OPTION)) == 0)
		return asprintf(ret_argument, "--user=%s", text + strlen(USER_OPTION)) < 0 ? EXIT_SYSTEM : 0;
	size_t length = strcspn(text, "=");
	const VerbOption *option = find_option(text, length);
	*ret_argument = NULL;
	if (!option) {
		if (helper->sloppy)
			return 0;
		(void)snprintf(sentence, sizeof(sentence), "there is no option \"%.*s\"", (int)length, text);
		return usage(sentence);
	}
	if (!option->argument != (text[length] == '\0')) {
		(void)snprintf(sentence, sizeof(sentence), "option \"%s\" takes %s", option->name,
			       option->argument ? "a value" : "no value");
		return usage(sentence);
	}
	return asprintf(ret_argument, "--%s", text) < 0 ? EXIT_SYSTEM : 0;
}

/* "\054" stands for a comma inside a value. */
static void put_commas(char *text)
{
	static const char escape[] = "\\054";
	for (char *at = text; (at = strstr(at, escape)); at++) {
		*at = ',';
		memmove(at + 1, at + strlen(escape), strlen(at + strlen(escape)) + 1);
	}
}

/* Splits at commas. */
static int add_options(Helper *helper)
{
	char *state = NULL;
	for (char *text = strtok_r(helper->options, ",", &state); text; text = strtok_r(NULL, ",", &state)) {
		if (is_ignored(text))
			continue;
		put_commas(text);
		int status = translate(helper, text, &helper->argv[helper->argc]);
		if (status != 0)
			return status;
		helper->argc += helper->argv[helper->argc] ? 1 : 0;
	}
	return 0;
}

static int build_command(Helper *helper)
{
	size_t room = 8; /* the verb, --quiet, the first option, "--", two operands, NULL */
	for (const char *at = helper->options; at && *at; at++)
		room += *at == ',';
	helper->argv = calloc(room, sizeof(char *));
	if (!helper->argv || !(helper->argv[helper->argc++] = strdup("mount")))
		return EXIT_SYSTEM;
	if (!helper->verbose && !(helper->argv[helper->argc++] = strdup("--quiet")))
		return EXIT_SYSTEM;
	int status = helper->options ? add_options(helper) : 0;
	if (status != 0)
		return status;
	const char *const last[] = { "--", helper->source, helper->directory };
	for (size_t i = 0; i < 3; i++)
		if (!(helper->argv[helper->argc++] = strdup(last[i])))
			return EXIT_SYSTEM;
	return 0;
}

/* The list of processes shows the command line. */
static void hide_password(char *options)
{
	char *user = strstr(options, USER_OPTION);
	char *colon = user ? user + strcspn(user, ":,") : NULL;
	if (colon && *colon == ':')
		memset(colon + 1, 'x', strcspn(colon + 1, ","));
}

static int parse(int argc, char **argv, Helper *helper)
{
	if (argc < 3 || argv[1][0] == '-')
		return usage("give a reference and a directory");
	helper->source = argv[1];
	helper->directory = argv[2];
	optind = 3;
	for (int id; (id = getopt(argc, argv, "sfnvN:o:t:")) != -1;) {
		switch (id) {
		case 's':
			helper->sloppy = true;
			break;
		case 'f':
			helper->fake = true;
			break;
		case 'v':
			helper->verbose = true;
			break;
		case 'n':
		case 't':
			break;
		case 'N':
			return usage("mounting in another namespace is not supported; use nsenter(1)");
		case 'o':
			free(helper->options);
			helper->options = strdup(optarg);
			if (!helper->options)
				return EXIT_SYSTEM;
			hide_password(optarg);
			break;
		default:
			return usage("wrong option");
		}
	}
	return optind == argc ? 0 : usage("more than a reference and a directory");
}

static bool is_source(const char *mounted, const Reference *reference)
{
	_cleanup_free_ char *text = reference_text(reference);
	size_t length = text ? strlen(text) : 0;
	return text && strncmp(mounted, SOURCE_PREFIX, strlen(SOURCE_PREFIX)) == 0 &&
	       strncmp(mounted + strlen(SOURCE_PREFIX), text, length) == 0 &&
	       (reference->has_digest || mounted[strlen(SOURCE_PREFIX) + length] == '@');
}

typedef struct Sought {
	const Helper *helper;
	const char *path;
	bool found;
} Sought;

static int compare_entry(void *arg, const json_t *entry)
{
	Sought *sought = arg;
	const char *owner = json_string_value(json_object_get(entry, "owner"));
	const char *reference = json_string_value(json_object_get(entry, "reference"));
	sought->found |= owner && reference && strcmp(owner, sought->path) == 0 &&
			 strcmp(reference, sought->helper->source) == 0;
	return 0;
}

/* NULL: the usual one. */
static const char *socket_of(const Helper *helper)
{
	static const char option[] = "--socket=";
	for (int i = 0; i < helper->argc; i++)
		if (strncmp(helper->argv[i], option, strlen(option)) == 0)
			return helper->argv[i] + strlen(option);
	return NULL;
}

/* Of a mount of imgfsd, mountinfo does not say what it shows. */
static bool is_daemons(const Helper *helper, const char *path)
{
	_cleanup_(control_client_free_p) ControlClient *client = NULL;
	Sought sought = { .helper = helper, .path = path };
	Error error = { 0 };
	return daemon_client_try(socket_of(helper), &client, NULL, &error) > 0 &&
	       daemon_client_list(client, compare_entry, &sought, &error) == 0 && sought.found;
}

/* mountinfo has the digest too, so that `mount -a` cannot see by itself that a line of fstab is mounted already. */
static bool is_mounted(const Helper *helper)
{
	char path[PATH_MAX];
	MountEntry entry;
	Reference reference;
	if (mount_table_path(helper->directory, path) < 0 || mount_table_find(path, &entry) < 0)
		return false;
	if (strcmp(entry.root, "/") != 0)
		return is_daemons(helper, path);
	return (reference_parse_remote(helper->source, &reference, NULL) == 0 && is_source(entry.source, &reference)) ||
	       (reference_parse_local(helper->source, &reference, NULL) == 0 && is_source(entry.source, &reference));
}

static int run(Helper *helper)
{
	int status = build_command(helper);
	if (status != 0 || helper->fake || is_mounted(helper))
		return status;
	_cleanup_(verb_conf_done) VerbConf conf = { 0 };
	int result = verb_conf_load(NULL, verbs_find("mount"), helper->argc, helper->argv, &conf);
	optind = 0;
	switch (result == VERB_SUCCESS ? cmd_mount(conf.argc, conf.argv) : result) {
	case VERB_SUCCESS:
		return 0;
	case VERB_USAGE:
		return EXIT_INVOCATION;
	default:
		return EXIT_MOUNT;
	}
}

static void helper_done(Helper *helper)
{
	for (int i = 0; helper->argv && i < helper->argc; i++)
		free(helper->argv[i]);
	free(helper->argv);
	free(helper->options);
}

int mount_helper_main(int argc, char **argv)
{
	_cleanup_(helper_done) Helper helper = { 0 };
	int status = parse(argc, argv, &helper);
	return status == 0 ? run(&helper) : status;
}
