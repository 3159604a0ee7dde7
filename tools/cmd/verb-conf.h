/*
 * The configuration of the verbs: /etc/imgfs/imgfs.conf, or the file that `imgfs --config FILE` or IMGFS_CONFIG names. A section is called
 * as a verb, its keys as that verb's long options; they count as if they stood before what is on the command line. Sections of hosts and
 * sources are told of in fs/net/net-hosts.h.
 */
#pragma once

#include "fs/base/conf.h"
#include "fs/net/net-hosts.h"
#include "tools/cmd/verbs.h"

#define VERB_CONF_PATH "/etc/imgfs/imgfs.conf"

/* A command line with the file's options put in. */
typedef struct VerbConf {
	Conf conf;
	int argc;
	char **argv;     /* those of the file are owned, the others are the caller's */
	unsigned *lines; /* of the options of the file */
	int count;       /* of them; they are argv[1] and so on */
	NetHosts hosts;
} VerbConf;

void verb_conf_done(VerbConf *conf); /* safe on a zeroed one */

/*
 * Reads the file (`path`; NULL: IMGFS_CONFIG, where empty means none, or VERB_CONF_PATH, which need not exist) and checks the names of all
 * sections and keys in it. Returns VERB_SUCCESS, or what to exit with after a sentence on standard error.
 */
int verb_conf_load(const char *path, const Verb *verb, int argc, char **argv, VerbConf *ret_conf);

/* What the file that was loaded says of hosts; NULL: none was. */
const NetHosts *verb_conf_hosts(void);
