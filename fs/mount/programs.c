#include "fs/mount/programs.h"

#include <stdbool.h>
#include <string.h>

#include "fs/mount/arguments.h"

static bool programs_in(const char *directory, Programs *programs)
{
	int keeper = snprintf(programs->keeper, PATH_MAX, "%s/" KEEPER_PROGRAM, directory);
	int server = snprintf(programs->server, PATH_MAX, "%s/" SERVER_PROGRAM, directory);
	return keeper < PATH_MAX && server < PATH_MAX && access(programs->keeper, X_OK) == 0 &&
	       access(programs->server, X_OK) == 0;
}

/*
 * Looks beside this executable, then where an installation of any prefix and a build tree have them as seen from it, then where this
 * build is to be installed.
 */
int programs_find(Programs *ret_programs, Error *error)
{
	static const char *const places[] = { ".", "../libexec/imgfs", "../../fs/mount" };
	char own[PATH_MAX];
	ssize_t length = readlink("/proc/self/exe", own, sizeof(own) - 1);
	own[length > 0 ? length : 0] = '\0';
	char *slash = strrchr(own, '/');
	for (size_t i = 0; slash && i < ELEMENTS(places); i++) {
		char directory[2 * PATH_MAX];
		(void)snprintf(directory, sizeof(directory), "%.*s/%s", (int)(slash - own), own, places[i]);
		if (programs_in(directory, ret_programs))
			return 0;
	}
	if (programs_in(IMGFS_LIBEXEC_DIRECTORY, ret_programs))
		return 0;
	return error_set(error, -ENOENT,
			 KEEPER_PROGRAM " and " SERVER_PROGRAM
					" are neither beside this program nor in %s; install imgfs completely",
			 IMGFS_LIBEXEC_DIRECTORY);
}
