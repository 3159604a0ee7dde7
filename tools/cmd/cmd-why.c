/* imgfs why: what a start waited for, file by file. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "snapshotter/client-containers.h"
#include "tools/cmd/verbs.h"
#include "tools/cmd/why-names.h"
#include "tools/cmd/why-report.h"
#include "tools/cmd/why-whole.h"
#include "tools/image/image-docker.h"

#define VERB "why"

#define DIGEST_PREFIX_MIN 6u

enum { OPTION_JSON = VERB_OPTION_LONG, OPTION_PLOT, OPTION_SOCKET, OPTION_ROOT = VERB_OPTION_SHARED };

const VerbOption cmd_why_options[] = {
	{ "json", OPTION_JSON, NULL, "print JSON: all files, all readers, each read" },
	{ "plot", OPTION_PLOT, "FILE", "draw the time line as SVG, too" },
	{ "root", OPTION_ROOT, "DIR",
	  "imgfs-snapshotter's, which knows what was not lazy; default " WHY_SNAPSHOTTER_ROOT },
	{ "containerd-socket", OPTION_SOCKET, "SOCKET",
	  "of the containerd that knows the names of containers; default " CLIENT_SOCKET },
	{ 0 },
};

typedef struct Arguments {
	const char *what; /* NULL: the one mount there is */
	const char *plot;
	const char *root;   /* NULL: the usual one */
	const char *socket; /* likewise */
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

static bool shows_image(const MountObserved *mount, const WhyFilter *filter)
{
	return is_reference(mount->reference, filter->what) || is_digest(mount->plan.manifest, filter->what) ||
	       is_digest(mount->plan.config, filter->what);
}

static bool has_container(const MountObserved *mount, const WhyFilter *filter)
{
	for (uint32_t i = 0; mount->record && i < mount->record->group_count; i++)
		if (why_is_container(mount->record->groups[i], filter))
			return true;
	return false;
}

/* The mount last made of those that fit, and how many these are. */
static size_t choose(const MountsObserved *observed, bool (*fits)(const MountObserved *mount, const WhyFilter *filter),
		     const WhyFilter *filter, const MountObserved **ret_mount)
{
	const MountObserved *found = NULL;
	size_t count = 0;
	for (size_t i = 0; i < observed->count; i++) {
		const MountObserved *mount = &observed->items[i];
		if (!fits(mount, filter))
			continue;
		count++;
		if (!found || (mount->record && found->record && mount->record->head.began > found->record->head.began))
			found = mount;
	}
	*ret_mount = found;
	return count;
}

static int missing(const char *what, size_t hidden, Error *error)
{
	return error_set(error, -ENOENT,
			 "%s is neither a mount of imgfs here, nor an image that is mounted, nor a container that has "
			 "read from one%s; `imgfs status` lists what is mounted",
			 what, hidden ? " (root sees those of other users, too)" : "");
}

/* Whom a name means. */
typedef struct Subject {
	char id[IMAGE_DOCKER_ID]; /* what the docker engine calls so */
	const char *one;          /* a container alone */
	WhyNames names;           /* what containerd calls so */
	WhyFilter filter;
} Subject;

static bool is_one(const MountsObserved *observed, const char *container, Subject *subject,
		   const MountObserved **ret_mount)
{
	subject->one = container;
	subject->filter.containers = &subject->one;
	subject->filter.count = 1;
	return choose(observed, has_container, &subject->filter, ret_mount) > 0;
}

/* By the names of Kubernetes and nerdctl. A container that is known, but has read nothing, gets a sentence of its own. */
static int find_named(const MountsObserved *observed, const char *socket, Subject *subject,
		      const MountObserved **ret_mount, Error *error)
{
	const char *what = subject->filter.what;
	int r = why_names_find(socket, what, &subject->names, error);
	if (r == -ENOENT)
		return missing(what, observed->hidden, error);
	if (r < 0)
		return r;
	subject->filter.containers = (const char *const *)subject->names.ids;
	subject->filter.count = subject->names.count;
	size_t count = choose(observed, has_container, &subject->filter, ret_mount);
	if (count == 0)
		return error_set(
			error, -ENODATA,
			"%s is the container %s, which has read nothing of an image of imgfs that the kernel had "
			"not cached",
			what, subject->names.ids[0]);
	if (count > 1 && why_names_differ(&subject->names))
		return error_set(
			error, -EINVAL,
			"the containers of %s read from %zu images; name one of them as NAMESPACE/POD/CONTAINER", what,
			count);
	return 0;
}

/* Which mount, and whose reads: a container is one by the cgroups that have read, else by what docker or containerd call so. */
static int find(const MountsObserved *observed, const Arguments *arguments, Subject *subject,
		const MountObserved **ret_mount, Error *error)
{
	const char *what = subject->filter.what = arguments->what;
	if (!what && observed->count != 1)
		return error_set(error, observed->count ? -EINVAL : -ENOENT,
				 observed->count ? "several images are mounted: say which, as `imgfs status` lists them"
						 : "nothing is mounted here");
	*ret_mount = what ? mounts_observed_at(observed, what) : &observed->items[0];
	if (*ret_mount || choose(observed, shows_image, &subject->filter, ret_mount) > 0)
		return 0;
	if (is_one(observed, what, subject, ret_mount))
		return 0;
	if (image_docker_container(NULL, what, subject->id) == 0 && is_one(observed, subject->id, subject, ret_mount))
		return 0;
	return find_named(observed, arguments->socket ?: CLIENT_SOCKET, subject, ret_mount, error);
}

/* Why it did not start lazily, if imgfs-snapshotter knows it as an image or as a container; else 0. */
static int not_lazy(const Arguments *arguments, const Subject *subject, Error *error)
{
	const char *const containers[] = { arguments->what, subject->id };
	int r = why_whole(arguments->root, arguments->what, is_image, error);
	if (r == 0)
		r = why_whole_containers(arguments->root, containers, subject->id[0] ? 2 : 1, error);
	if (r == 0)
		r = why_whole_containers(arguments->root, (const char *const *)subject->names.ids, subject->names.count,
					 error);
	return r;
}

static int run(const Arguments *arguments, Error *error)
{
	MountsObserved observed = { 0 };
	const MountObserved *mount = NULL;
	Subject subject = { 0 };
	WhyReport report = { 0 };
	int r = mounts_observe(false, &observed);
	if (r < 0)
		return error_set(error, r, "the mounts of this machine cannot be looked at: %s", error_text(NULL, r));
	r = find(&observed, arguments, &subject, &mount, error);
	/* Before the sentence that it is not known here, or has read nothing. */
	if ((r == -ENOENT || r == -ENODATA) && arguments->what) {
		int whole = not_lazy(arguments, &subject, error);
		r = whole < 0 ? whole : r;
	}
	if (r == 0)
		r = why_report_make(mount, &subject.filter, &report, error);
	if (r == 0) {
		r = arguments->json ? why_print_json(&report) : why_print(&report);
		if (r < 0)
			(void)error_set(error, r, "standard output cannot be written to");
	}
	if (r == 0 && arguments->plot)
		r = why_plot(&report, arguments->plot, error);
	why_report_done(&report);
	why_names_done(&subject.names);
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
		else if (id == OPTION_SOCKET)
			arguments.socket = optarg;
		else
			return VERB_USAGE;
	}
	if (argc - optind > 1)
		return verb_usage_error(VERB, "give one mount, image or container");
	arguments.what = argv[optind];
	int r = run(&arguments, &error);
	return r < 0 ? verb_fail(VERB, r, &error) : VERB_SUCCESS;
}
