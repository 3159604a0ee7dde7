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
		if (why_container_length(mount->record->groups[i], filter) > 0)
			return true;
	return false;
}

/* What this user has mounted comes before what others say that they have, then the one that was made last. */
static bool is_better(const MountObserved *mount, const MountObserved *found)
{
	bool own = mount->owner == geteuid(), found_own = found->owner == geteuid();
	if (own != found_own)
		return own;
	return mount->record && found->record && mount->record->head.began > found->record->head.began;
}

/* The best of those that fit, and how many these are. */
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
		if (!found || is_better(mount, found))
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

static void set_containers(Subject *subject, const char *const *containers, size_t count)
{
	subject->filter.containers = containers;
	subject->filter.count = count;
}

static void set_one(Subject *subject, const char *container)
{
	subject->one = container;
	set_containers(subject, &subject->one, 1);
}

/* What a name may mean: as one can say it instead, a cgroup or an id. */
typedef struct Meanings {
	size_t count;
	char **items;
} Meanings;

static void meanings_done(Meanings *meanings)
{
	for (size_t i = 0; i < meanings->count; i++)
		free(meanings->items[i]);
	free((void *)meanings->items);
}

/* One may stand for the other: the same, a cgroup in the other's, or one whose name has the other's id. */
static bool is_same(const char *one, const char *other)
{
	const char *const containers[] = { one, other };
	return why_container_length(one, &(WhyFilter){ .containers = &containers[1], .count = 1 }) > 0 ||
	       why_container_length(other, &(WhyFilter){ .containers = &containers[0], .count = 1 }) > 0;
}

static int add_meaning(Meanings *meanings, const char *text, size_t length)
{
	char *copy = strndup(text, length);
	bool known = false;
	for (size_t i = 0; copy && i < meanings->count; i++)
		known |= is_same(meanings->items[i], copy);
	char **larger = NULL;
	if (copy && !known)
		larger = (char **)reallocarray((void *)meanings->items, meanings->count + 1, sizeof(*larger));
	if (larger) {
		meanings->items = larger;
		meanings->items[meanings->count++] = copy;
		return 0;
	}
	free(copy);
	return known ? 0 : -ENOMEM;
}

/* The cgroups that the name stands for and that have read. */
static int add_groups(const MountsObserved *observed, const char *what, Meanings *meanings)
{
	const WhyFilter filter = { .containers = &what, .count = 1 };
	for (size_t i = 0; i < observed->count; i++) {
		const StartRecord *record = observed->items[i].record;
		for (uint32_t j = 0; record && j < record->group_count; j++) {
			size_t length = why_container_length(record->groups[j], &filter);
			int r = length > 0 ? add_meaning(meanings, record->groups[j], length) : 0;
			if (r < 0)
				return r;
		}
	}
	return 0;
}

/* As add_groups(), or the id itself if it has read nothing. */
static int add_id(const MountsObserved *observed, const char *id, Meanings *meanings)
{
	int r = add_groups(observed, id, meanings);
	return r < 0 ? r : add_meaning(meanings, id, strlen(id));
}

static int ambiguous(const char *what, const Meanings *meanings, Error *error)
{
	char list[800] = "";
	size_t used = 0;
	for (size_t i = 0; i < meanings->count && used < sizeof(list); i++)
		used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%s", i > 0 ? ", " : "",
					 meanings->items[i]);
	return error_set(error, -EINVAL, "several containers are called %s; say which one: %s", what, list);
}

/* Is one name that of containers of several engines, or of several places of one? */
static int check_meanings(const MountsObserved *observed, const Subject *subject, Error *error)
{
	_cleanup_(meanings_done) Meanings meanings = { 0 };
	int r = add_groups(observed, subject->filter.what, &meanings);
	if (r == 0 && subject->id[0])
		r = add_id(observed, subject->id, &meanings);
	/* Those of containerd are of one pod or of one name: they are several only beside others. */
	bool several = meanings.count > 1, others = meanings.count > 0;
	for (size_t i = 0; r == 0 && i < subject->names.count; i++) {
		size_t before = meanings.count;
		r = add_id(observed, subject->names.ids[i], &meanings);
		several |= others && meanings.count > before;
	}
	if (r < 0)
		return error_set(error, r, "out of memory");
	return several ? ambiguous(subject->filter.what, &meanings, error) : 0;
}

static bool is_whole_id(const char *what)
{
	return strlen(what) == DIGEST_HEX_SIZE - 1 && strspn(what, "0123456789abcdef") == DIGEST_HEX_SIZE - 1;
}

/* By the names of Kubernetes and nerdctl. A container that is known, but has read nothing, gets a sentence of its own. */
static int choose_named(const MountsObserved *observed, Subject *subject, const MountObserved **ret_mount, Error *error)
{
	const char *what = subject->filter.what;
	set_containers(subject, (const char *const *)subject->names.ids, subject->names.count);
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

/* A container is one by the cgroups that have read, by what docker calls so, or by what containerd does. All are asked: one name may be that of several. */
static int find_container(const MountsObserved *observed, const char *socket, Subject *subject,
			  const MountObserved **ret_mount, Error *error)
{
	const char *what = subject->filter.what;
	set_one(subject, what);
	bool read = choose(observed, has_container, &subject->filter, ret_mount) > 0;
	if (read && (is_whole_id(what) || what[0] == '/'))
		return 0;
	if (image_docker_container(NULL, what, subject->id) < 0)
		subject->id[0] = '\0';
	Error named = { 0 };
	int r = why_names_find(socket, what, &subject->names, &named);
	if (r == -EINVAL) /* several within containerd */
		return error_set(error, r, "%s", error_text(&named, r));
	int several = check_meanings(observed, subject, error);
	if (several < 0)
		return several;
	if (read)
		return 0;
	set_one(subject, subject->id);
	if (subject->id[0] && choose(observed, has_container, &subject->filter, ret_mount) > 0)
		return 0;
	if (r == -ENOENT)
		return missing(what, observed->hidden, error);
	if (r < 0)
		return error_set(error, r, "%s", error_text(&named, r));
	return choose_named(observed, subject, ret_mount, error);
}

/* Which mount, and whose reads. */
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
	return find_container(observed, arguments->socket ?: CLIENT_SOCKET, subject, ret_mount, error);
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
