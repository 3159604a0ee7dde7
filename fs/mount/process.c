#include "fs/mount/process.h"

#include <grp.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>

#include "fs/mount/proc-file.h"

#define NOBODY     65534
#define STATUS_MAX 65536u

int process_drop_privileges(pid_t keeper, Error *error)
{
	if (geteuid() == 0 &&
	    (setgroups(0, NULL) < 0 || setresgid(NOBODY, NOBODY, NOBODY) < 0 || setresuid(NOBODY, NOBODY, NOBODY) < 0))
		return error_set(error, -errno, "cannot give up root: %s", strerror(errno));
	/* Only now: a change of credentials clears the death signal. */
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 ||
	    prctl(PR_SET_DUMPABLE, 0) < 0)
		return error_set(error, -errno, "cannot restrict the server: %s", strerror(errno));
	if (getppid() != keeper)
		return error_set(error, -ESRCH, "the keeper has ended");
	return 0;
}

bool process_status_is_dying(const char *status)
{
	/* A signal that ends a process is turned into a SIGKILL pending for each of its threads. */
	static const char field[] = "\nSigPnd:";
	const char *found = strstr(status, field);
	return found && strtoull(found + sizeof(field) - 1, NULL, 16) & UINT64_C(1) << (SIGKILL - 1);
}

bool process_is_dying(pid_t thread)
{
	char path[64];
	(void)snprintf(path, sizeof(path), "/proc/%d/status", thread);
	_cleanup_free_ char *status = NULL;
	size_t size;
	return proc_file_read(path, STATUS_MAX, &status, &size) == 0 && process_status_is_dying(status);
}
