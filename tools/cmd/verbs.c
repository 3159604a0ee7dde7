#include "tools/cmd/verbs.h"

#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/cmd/output.h"

/* One line a verb, in the order in which an image travels: made, served, mounted, looked at. */
const Verb verbs[] = {
	{ "export", "SOURCE", "put an image into the store", cmd_export, cmd_export_options },
	{ "serve", "", "be a read-only registry of the store's images", cmd_serve, cmd_serve_options },
	{ "trust", "HOST:PORT", "believe a server's private authority on this machine", cmd_trust, cmd_trust_options },
	{ "mount", "REFERENCE DIR", "make an image usable at a directory", cmd_mount, cmd_mount_options },
	{ "pull", "REFERENCE", "fetch all of an image, so that mounts of it need nobody else", cmd_pull,
	  cmd_pull_options },
	{ "cache", "ls|size|pin|unpin|evict|prune|verify [REFERENCE]",
	  "show what this node has fetched, keep it, make room, check it", cmd_cache, cmd_cache_options },
	{ "status", "", "show what is mounted, by digest, and how complete it is", cmd_status, cmd_status_options },
	{ "why", "[DIR|IMAGE|CONTAINER]", "tell what a start waited for, file by file", cmd_why, cmd_why_options },
	{ "profile", "record DIR FILE|show FILE|IMAGE|import IMAGE FILE|push DIR|FILE [HOST]",
	  "keep what a start reads first, so that the next one finds it fetched", cmd_profile, cmd_profile_options },
	{ "metrics", "", "print what mounts count, for Prometheus", cmd_metrics, cmd_metrics_options },
	{ "daemon", "", "be imgfsd: serve all of this node's images, and bring them back after a reboot", cmd_daemon,
	  cmd_daemon_options },
	{ "list", "", "list the images that imgfsd holds", cmd_list, cmd_list_options },
	{ "attach", "REFERENCE", "have imgfsd hold an image", cmd_attach, cmd_attach_options },
	{ "detach", "OWNER", "let an image go that imgfsd holds", cmd_detach, cmd_detach_options },
	{ "stop", "", "end imgfsd and all of its mounts", cmd_stop, cmd_stop_options },
	{ "doctor", "[HOST:PORT...]", "find out what is wrong with this machine, and what to do", cmd_doctor,
	  cmd_doctor_options },
	{ "umount", "DIR", "take a mounted image away", cmd_umount, cmd_umount_options },
	{ "upgrade", "[DIR...]", "let mounted images go on under this version of imgfs", cmd_upgrade,
	  cmd_upgrade_options },
	{ "ls", "", "list the images of the store", cmd_ls, cmd_ls_options },
	{ "inspect", "NAME[:TAG][@DIGEST]", "show what an image of the store is made of", cmd_inspect,
	  cmd_inspect_options },
	{ "diff", "NAME[:TAG] NAME[:TAG]", "show what differs between two images, and what an update moves", cmd_diff,
	  cmd_diff_options },
	{ "verify", "NAME[:TAG]...", "read every byte of an image and check it", cmd_verify, cmd_verify_options },
	{ "import", "NAME[:TAG] docker-archive:FILE|oci:DIR[:TAG]", "write an image of the store for other engines",
	  cmd_import, cmd_import_options },
	{ "tag", "NAME[:TAG] NEWNAME[:TAG]", "give an image of the store one more name", cmd_tag, cmd_tag_options },
	{ "rm", "NAME[:TAG]...", "take names of images away", cmd_rm, cmd_rm_options },
	{ "gc", "", "free what no name of the store reaches", cmd_gc, cmd_gc_options },
	{ 0 },
};

const Verb *verbs_find(const char *name)
{
	for (const Verb *verb = verbs; verb->name; verb++) {
		if (strcmp(verb->name, name) == 0)
			return verb;
	}
	return NULL;
}

void verbs_print_help(void)
{
	printf("Usage: imgfs VERB [OPTION...] [ARGUMENT...]\n"
	       "Container images that are used before they are copied.\n\n");
	for (const Verb *verb = verbs; verb->name; verb++)
		printf("  %-10s %s\n", verb->name, verb->summary);
	printf("\n`imgfs help VERB` shows the options of a verb, `imgfs --version` the version.\n"
	       "Options can stand in /etc/imgfs/imgfs.conf, see docs/operations.md; `imgfs --config FILE VERB` takes "
	       "another.\n"
	       "Exit status: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 corrupt.\n");
}

static void print_option(const VerbOption *option)
{
	char left[64];
	int used = option->id < VERB_OPTION_LONG ? snprintf(left, sizeof(left), "-%c, ", option->id)
						 : snprintf(left, sizeof(left), "    ");
	(void)snprintf(left + used, sizeof(left) - (size_t)used, "--%s%s%s", option->name, option->argument ? " " : "",
		       option->argument ?: "");
	printf("  %-24s %s\n", left, option->help);
}

void verbs_print_verb_help(const Verb *verb)
{
	printf("Usage: imgfs %s%s%s%s\n%c%s.\n", verb->name, verb->options ? " [OPTION...]" : "",
	       verb->arguments[0] ? " " : "", verb->arguments, verb->summary[0] - 'a' + 'A', verb->summary + 1);
	if (!verb->options)
		return;
	printf("\n");
	for (const VerbOption *option = verb->options; option->name; option++)
		print_option(option);
}

static struct {
	const char *path;
	const unsigned *lines;
	int count;
	int current; /* the option that verb_getopt() returned last, from 1 on; 0: none of the file's */
} origins;

void verb_set_origins(const char *path, const unsigned *lines, int count)
{
	origins.path = path;
	origins.lines = lines;
	origins.count = count;
}

bool verb_option_is_configured(void)
{
	return origins.current > 0;
}

int verb_getopt(int argc, char **argv, const VerbOption *options)
{
	struct option longs[VERB_OPTIONS_MAX + 1] = { 0 };
	char shorts[2 * VERB_OPTIONS_MAX + 2] = ":";
	size_t used = 1;
	for (size_t i = 0; options[i].name && i < VERB_OPTIONS_MAX; i++) {
		longs[i] = (struct option){ .name = options[i].name,
					    .has_arg = options[i].argument ? required_argument : no_argument,
					    .val = options[i].id };
		if (options[i].id >= VERB_OPTION_LONG)
			continue;
		shorts[used++] = (char)options[i].id;
		if (options[i].argument)
			shorts[used++] = ':';
	}
	shorts[used] = '\0';

	opterr = 0;
	int at = optind;
	int id = getopt_long(argc, argv, shorts, longs, NULL);
	/* One inside a group of short ones has not been stepped over; a file has none of these. */
	origins.current = id != -1 && optind > at && optind - 1 <= origins.count ? optind - 1 : 0;
	if (id == ':') {
		(void)verb_usage_error(argv[0], "option %s wants an argument", argv[optind - 1]);
		return '?';
	}
	if (id == '?') {
		/* For a long option getopt_long() has stepped over it; a short one may stand inside a group. */
		const char *word = optind > at ? argv[optind - 1] : argv[optind];
		if (optopt > 0 && optopt < VERB_OPTION_LONG && strncmp(word, "--", 2) != 0)
			(void)verb_usage_error(argv[0], "there is no option -%c", optopt);
		else if (optopt)
			(void)verb_usage_error(argv[0], "option %s takes no argument", word);
		else
			(void)verb_usage_error(argv[0], "there is no option %s, or it is cut short ambiguously", word);
	}
	return id;
}

int verb_usage_error(const char *verb, const char *format, ...)
{
	va_list args;
	fprintf(stderr, "imgfs %s: ", verb);
	if (origins.current > 0)
		fprintf(stderr, "%s:%u: ", origins.path, origins.lines[origins.current - 1]);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, "; see `imgfs help %s`\n", verb);
	return VERB_USAGE;
}

int verb_fail(const char *verb, int code, const Error *error)
{
	/* A sentence may name what is in an image. */
	fprintf(stderr, "imgfs %s: ", verb);
	(void)output_text(stderr, error_text(error, code));
	fprintf(stderr, "\n");
	switch (code) {
	case -ENOENT:
		return VERB_NOT_FOUND;
	case -EBADMSG:
	case -EKEYREJECTED:
		return VERB_CORRUPT;
	default:
		return VERB_FAILURE;
	}
}

int verb_number(const char *text, unsigned long low, unsigned long high, unsigned long *ret_number)
{
	char *end;
	if (text[0] < '0' || text[0] > '9')
		return -EINVAL;
	errno = 0;
	unsigned long number = strtoul(text, &end, 10);
	if (errno != 0 || *end || number < low || number > high)
		return -EINVAL;
	*ret_number = number;
	return 0;
}
