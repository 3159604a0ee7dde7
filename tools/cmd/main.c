/* imgfs: finds the verb and hands over. */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "tools/cmd/mount-helper.h"
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

static int dispatch(int argc, char **argv)
{
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
	return verb->run(argc - 1, argv + 1);
}

int main(int argc, char **argv)
{
	int status = mount_helper_is(argv[0]) ? mount_helper_main(argc, argv) : dispatch(argc, argv);
	/* Output that did not reach its file is a failure, not a short answer. */
	if (fflush(stdout) != 0 || ferror(stdout)) {
		fprintf(stderr, "imgfs: writing to standard output failed\n");
		return status == VERB_SUCCESS ? VERB_FAILURE : status;
	}
	return status;
}
