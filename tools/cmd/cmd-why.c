/* imgfs why: what a start waited for, file by file. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "tools/cmd/verbs.h"
#include "tools/cmd/why-report.h"
#include "tools/cmd/why-whole.h"
#include "tools/image/image-docker.h"

#define VERB "why"

#define DIGEST_PREFIX_MIN 6u

enum { OPTION_JSON = VERB_OPTION_LONG, OPTION_PLOT, OPTION_ROOT };

const VerbOption cmd_why_options[] = {
	{ "json", OPTION_JSON, NULL, "print JSON: all files, all readers, each read" },
	{ "plot", OPTION_PLOT, "FILE", "draw the time line as SVG, too" },
	{ "root", OPTION_ROOT, "DIR",
	  "imgfs-snapshotter's, which knows what was not lazy; default " WHY_SNAPSHOTTER_ROOT },
	{ 0 },
};

typedef struct Arguments {
	const char *what; /* NULL: the one mount there is */
	const char *plot;
	const char *root; /* NULL: the usual one */
	bool json;
} Arguments;

/* "sha256:HEX", or the beginning of HEX. */
static bool is_digest(const char *digest, const char *what)
{
	static const char prefix[] = "sha256:";
	if (!digest || strncmp(digest, prefix, strlen(prefix)) != 0)
		return false;
	if (strncmp(what, prefix, strlen(prefix)) == 0)
		what += strlen(prefix);
	return strlen(what) >= DIGEST_PREFIX_MIN && strncmp(digest + strlen(prefix), what, strlen(what)) == 0;
}

/* The reference whole, or what is behind its host, with a tag or without. */
static bool is_reference(const char *reference, const char *what)
{
	size_t length = strlen(what);
	const char *slash = strchr(reference, '/');
	const char *starts[] = { reference, slash ? slash + 1 : reference };
	for (size_t i = 0; i < ELEMENTS(starts); i++) {
		if (strncmp(starts[i], what, length) != 0)
			continue;
		if (starts[i][length] == '\0' || (starts[i][length] == ':' && !strchr(starts[i] + length + 1, '/')))
			return true;
	}
	return false;
}

static bool is_image(const char *image, const char *what)
{
	return is_reference(image, what) || is_digest(image, what);
}

static bool shows_image(const MountObserved *mount, const char *what)
{
	return is_reference(mount->reference, what) || is_digest(mount->plan.manifest, what) ||
	       is_digest(mount->plan.config, what);
}

static bool has_container(const MountObserved *mount, const char *container)
{
	for (uint32_t i = 0; mount->record && i < mount->record->group_count; i++)
		if (why_is_container(mount->record->groups[i], container))
			return true;
	return false;
}

/* The mount last made of those that fit. */
static const MountObserved *choose(const MountsObserved *observed,
				   bool (*fits)(const MountObserved *mount, const char *what), const char *what)
{
	const MountObserved *found = NULL;
	for (size_t i = 0; i < observed->count; i++) {
		const MountObserved *mount = &observed->items[i];
		if (fits(mount, what) && (!found || (mount->record && found->record &&
						     mount->record->head.began > found->record->head.began)))
			found = mount;
	}
	return found;
}

static int missing(const char *what, size_t hidden, Error *error)
{
	return error_set(error, -ENOENT,
			 "%s is neither a mount of imgfs here, nor an image that is mounted, nor a container that has "
			 "read from one%s; `imgfs status` lists what is mounted",
			 what, hidden ? " (root sees those of other users, too)" : "");
}

/* Which mount, and whose reads: a container is one by the cgroups that have read, else by what the docker engine calls so. */
static int find(const MountsObserved *observed, const char *what, char id[static IMAGE_DOCKER_ID],
		const MountObserved **ret_mount, WhyFilter *ret_filter, Error *error)
{
	if (!what && observed->count != 1)
		return error_set(error, observed->count ? -EINVAL : -ENOENT,
				 observed->count ? "several images are mounted: say which, as `imgfs status` lists them"
						 : "nothing is mounted here");
	*ret_mount = what ? mounts_observed_at(observed, what) : &observed->items[0];
	if (!*ret_mount)
		*ret_mount = choose(observed, shows_image, what);
	if (*ret_mount)
		return 0;
	ret_filter->container = what;
	*ret_mount = choose(observed, has_container, what);
	if (!*ret_mount && image_docker_container(NULL, what, id) == 0) {
		ret_filter->container = id;
		*ret_mount = choose(observed, has_container, id);
	}
	return *ret_mount ? 0 : missing(what, observed->hidden, error);
}

static int run(const Arguments *arguments, Error *error)
{
	MountsObserved observed = { 0 };
	const MountObserved *mount = NULL;
	WhyFilter filter = { 0 };
	WhyReport report = { 0 };
	char id[IMAGE_DOCKER_ID];
	int r = mounts_observe(false, &observed);
	if (r < 0)
		return error_set(error, r, "the mounts of this machine cannot be looked at: %s", error_text(NULL, r));
	r = find(&observed, arguments->what, id, &mount, &filter, error);
	/* Before the sentence that it is not known here. */
	if (r == -ENOENT && arguments->what) {
		int whole = why_whole(arguments->root, arguments->what, is_image, error);
		r = whole < 0 ? whole : r;
	}
	if (r == 0)
		r = why_report_make(mount, &filter, &report, error);
	if (r == 0) {
		r = arguments->json ? why_print_json(&report) : why_print(&report);
		if (r < 0)
			(void)error_set(error, r, "standard output cannot be written to");
	}
	if (r == 0 && arguments->plot)
		r = why_plot(&report, arguments->plot, error);
	why_report_done(&report);
	mounts_observed_done(&observed);
	return r;
}

int cmd_why(int argc, char **argv)
{
	Error error = { 0 };
	Arguments arguments = { 0 };
	for (int id; (id = verb_getopt(argc, argv, cmd_why_options)) != -1;) {
		if (id == OPTION_JSON)
			arguments.json = true;
		else if (id == OPTION_PLOT)
			arguments.plot = optarg;
		else if (id == OPTION_ROOT)
			arguments.root = optarg;
		else
			return VERB_USAGE;
	}
	if (argc - optind > 1)
		return verb_usage_error(VERB, "give one mount, image or container");
	arguments.what = argv[optind];
	int r = run(&arguments, &error);
	return r < 0 ? verb_fail(VERB, r, &error) : VERB_SUCCESS;
}
