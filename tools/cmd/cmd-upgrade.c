/* imgfs upgrade: lets mounts go on under these programs, while they are in use. */
#include <getopt.h>

#include "fs/mount/mount.h"
#include "tools/cmd/verbs.h"

#define VERB "upgrade"

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

int cmd_upgrade(int argc, char **argv)
{
	static const VerbOption none[] = { { 0 } };
	if (verb_getopt(argc, argv, none) != -1)
		return VERB_USAGE;
	int status = VERB_SUCCESS;
	int at = optind;
	do {
		Error error = { 0 };
		const char *directory = at < argc ? argv[at] : NULL;
		int r = mount_upgrade(directory, print_upgraded, &status, &error);
		if (r < 0)
			status = verb_fail(VERB, r, &error);
		else if (r == 0)
			printf("no image is mounted\n");
	} while (++at < argc);
	return status;
}
