/* `imgfsd`, which is `imgfs daemon` by another name. */
#pragma once

#include <stdbool.h>

#define DAEMON_NAME  "imgfsd"
#define DAEMON_STATE "/var/lib/imgfs/node" /* where it remembers what is attached, unless told otherwise */

/* Is this program called by that name? */
bool daemon_is(const char *program);

/* The whole command line of imgfsd, or of `imgfs` with the verb: by what the daemon reads its configuration again and goes on as another build. */
typedef struct DaemonStart {
	char **argv;           /* as the process was started */
	const char *conf_path; /* --config; NULL: the usual file */
	int argc_own;          /* the daemon's own options: argv_own[0] is the verb's name */
	char **argv_own;
} DaemonStart;

/* To be called before the verb runs; `start` is kept. */
void daemon_set_start(const DaemonStart *start);
