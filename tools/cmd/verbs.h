/*
 * The verbs of `imgfs`: one table, from which dispatch, help and option parsing are made. A verb is one file, cmd-NAME.c, with
 * cmd_NAME() and cmd_NAME_options[]; its line in the table of verbs.c is all that main needs to know of it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "fs/base/error.h"

/* What a verb returns and `imgfs` exits with (README.md). */
enum {
	VERB_SUCCESS = 0,
	VERB_FAILURE = 1,   /* it was tried and did not work; the sentence on standard error says why */
	VERB_USAGE = 2,     /* the command line makes no sense; nothing was tried */
	VERB_NOT_FOUND = 3, /* what the command line names is not there: file, image, tag, store */
	VERB_CORRUPT = 4,   /* bytes are not what their digest or their format says */
};

/* An option of a verb. A list of them ends with one whose name is NULL. */
typedef struct VerbOption {
	const char *name; /* long, without the "--" */
	int id;           /* what verb_getopt() returns: the letter of its short form, or VERB_OPTION_LONG and above */
	const char *argument; /* placeholder shown in the help; NULL when the option takes none */
	const char *help;     /* half a line */
} VerbOption;

#define VERB_OPTION_LONG 256 /* ids from here on have no short form */
#define VERB_OPTION_SHARED \
	0x1000 /* and from here on also take what another section of the configuration says for all (verb-conf.c) */
#define VERB_OPTIONS_MAX 32

/* argv[0] is the verb's name. Returns one of VERB_*. */
typedef int VerbHandler(int argc, char **argv);

typedef struct Verb {
	const char *name;
	const char *arguments; /* as the help shows them, options aside */
	const char *summary;   /* one line */
	VerbHandler *run;
	const VerbOption *options; /* NULL: none */
} Verb;

/* The table, in the order of the help; ends with one whose name is NULL. */
extern const Verb verbs[];

/* The verb of that name, or NULL. */
const Verb *verbs_find(const char *name);

/* Help on standard output: all verbs, or one. */
void verbs_print_help(void);
void verbs_print_verb_help(const Verb *verb);

/*
 * The next option of a verb's command line, by getopt_long(): its id (argument in `optarg`), -1 after the last (the first
 * operand is argv[optind]), or '?' after a sentence on standard error: return VERB_USAGE then.
 */
int verb_getopt(int argc, char **argv, const VerbOption *options);

/* Does the option that verb_getopt() returned last stand in a configuration file? */
bool verb_option_is_configured(void);

/*
 * From now on argv[1] to argv[count] of verb_getopt() are options that stand in a configuration file: in `path`, at lines[0] and so on.
 * What is wrong with one of them is said of that line. Neither is copied.
 */
void verb_set_origins(const char *path, const unsigned *lines, int count);

/* Says on standard error what is wrong with the command line and how to get help; returns VERB_USAGE. */
int verb_usage_error(const char *verb, const char *format, ...) _printf_(2, 3);

/* Says on standard error what went wrong (`code`: negative errno); returns the VERB_* that fits it. */
int verb_fail(const char *verb, int code, const Error *error);

/* A number from the command line, between `low` and `high`. Errors: -EINVAL. */
int verb_number(const char *text, unsigned long low, unsigned long high, unsigned long *ret_number) _must_check_;

VerbHandler cmd_cache, cmd_diff, cmd_doctor, cmd_export, cmd_gc, cmd_import, cmd_inspect, cmd_ls, cmd_mount, cmd_pull,
	cmd_rm, cmd_serve, cmd_tag, cmd_trust, cmd_umount, cmd_upgrade, cmd_verify;
VerbHandler cmd_metrics, cmd_profile, cmd_status, cmd_why;
extern const VerbOption cmd_metrics_options[], cmd_profile_options[], cmd_status_options[], cmd_why_options[];
extern const VerbOption cmd_cache_options[], cmd_diff_options[], cmd_doctor_options[], cmd_export_options[],
	cmd_gc_options[], cmd_import_options[], cmd_inspect_options[], cmd_ls_options[], cmd_mount_options[],
	cmd_pull_options[], cmd_rm_options[], cmd_serve_options[], cmd_tag_options[], cmd_trust_options[],
	cmd_umount_options[], cmd_verify_options[];
VerbHandler cmd_attach, cmd_daemon, cmd_detach, cmd_list, cmd_stop;
extern const VerbOption cmd_attach_options[], cmd_daemon_options[], cmd_detach_options[], cmd_list_options[],
	cmd_stop_options[], cmd_upgrade_options[];
