/* imgfs: finds the verb and hands over. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/base/fd.h"
#include "tools/cmd/cmd-daemon.h"
#include "tools/cmd/mount-helper.h"
#include "tools/cmd/verb-conf.h"
#include "tools/cmd/verbs.h"

static int help(const char *name)
{
	if (!name) {
		verbs_print_help();
		return VERB_SUCCESS;
	}
	const Verb *verb = verbs_find(name);
	if (!verb) {
		fprintf(stderr, "imgfs: there is no verb \"%s\"; see `imgfs help`\n", name);
		return VERB_USAGE;
	}
	verbs_print_verb_help(verb);
	return VERB_SUCCESS;
}

static bool asks_for_help(int argc, char **argv)
{
	for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
		if (strcmp(argv[i], "--help") == 0)
			return true;
	}
	return false;
}

/* Runs a verb with what the configuration says of it before its own command line. */
static int run(const Verb *verb, const char *conf_path, int argc, char **argv)
{
	_cleanup_(verb_conf_done) VerbConf conf = { 0 };
	int status = verb_conf_load(conf_path, verb, argc, argv, &conf);
	return status == VERB_SUCCESS ? verb->run(conf.argc, conf.argv) : status;
}

/* All of its words are options of the verb, but for --config, which may stand anywhere. `argv` is changed. */
static int run_daemon(int argc, char **argv, DaemonStart *start)
{
	static char verb[] = "daemon";
	int kept = 1;
	for (int i = 1; i < argc; i++) {
		if (strncmp(argv[i], "--config=", 9) == 0)
			start->conf_path = argv[i] + 9;
		else if (strcmp(argv[i], "--config") == 0 && i + 1 < argc)
			start->conf_path = argv[++i];
		else
			argv[kept++] = argv[i];
	}
	argv[kept] = NULL;
	argv[0] = verb;
	if (asks_for_help(kept, argv))
		return help(verb);
	start->argc_own = kept;
	start->argv_own = argv;
	return run(verbs_find(verb), start->conf_path, kept, argv);
}

static int dispatch(int argc, char **argv, DaemonStart *start)
{
	const char *conf_path = NULL;
	if (argc > 1 && strncmp(argv[1], "--config=", 9) == 0) {
		conf_path = argv[1] + 9;
		argc--;
		argv++;
	} else if (argc == 2 && strcmp(argv[1], "--config") == 0) {
		fprintf(stderr, "imgfs: option --config wants a file; see `imgfs help`\n");
		return VERB_USAGE;
	} else if (argc > 2 && strcmp(argv[1], "--config") == 0) {
		conf_path = argv[2];
		argc -= 2;
		argv += 2;
	}
	if (argc < 2) {
		fprintf(stderr, "imgfs: a verb is missing; see `imgfs help`\n");
		return VERB_USAGE;
	}
	const char *name = argv[1];
	if (strcmp(name, "--version") == 0) {
		printf("imgfs %s\n", IMGFS_VERSION);
		return VERB_SUCCESS;
	}
	if (strcmp(name, "help") == 0 || strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
		return help(argv[2]);

	const Verb *verb = verbs_find(name);
	if (!verb) {
		fprintf(stderr, "imgfs: there is no %s \"%s\"; see `imgfs help`\n", name[0] == '-' ? "option" : "verb",
			name);
		return VERB_USAGE;
	}
	if (asks_for_help(argc - 1, argv + 1))
		return help(name);
	start->conf_path = conf_path;
	start->argc_own = argc - 1;
	start->argv_own = argv + 1;
	return run(verb, conf_path, argc - 1, argv + 1);
}

static int run_as(int argc, char **argv)
{
	_cleanup_free_ char **copy = calloc((size_t)argc + 1, sizeof(*copy));
	if (!copy)
		return VERB_FAILURE;
	memcpy(copy, argv, (size_t)argc * sizeof(*copy));
	DaemonStart start = { .argv = copy };
	daemon_set_start(&start);
	if (mount_helper_is(argv[0]))
		return mount_helper_main(argc, argv);
	return daemon_is(argv[0]) ? run_daemon(argc, argv, &start) : dispatch(argc, argv, &start);
}

int main(int argc, char **argv)
{
	fd_open_standard();
	int status = run_as(argc, argv);
	/* Output that did not reach its file is a failure, not a short answer. */
	if (fflush(stdout) != 0 || ferror(stdout)) {
		fprintf(stderr, "imgfs: writing to standard output failed\n");
		return status == VERB_SUCCESS ? VERB_FAILURE : status;
	}
	return status;
}
