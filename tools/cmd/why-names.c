#include "tools/cmd/why-names.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/base/cleanup.h"
#include "snapshotter/client-containers.h"

/* Those of pods a kubelet sets, that of its own nerdctl. */
#define LABEL_NAMESPACE "io.kubernetes.pod.namespace"
#define LABEL_POD       "io.kubernetes.pod.name"
#define LABEL_CONTAINER "io.kubernetes.container.name"
#define LABEL_NERDCTL   "nerdctl/name"

#define PARTS_MAX   3u
#define PART_MAX    253u /* a subdomain, as Kubernetes names pods */
#define FILTERS_MAX 3u
#define FILTER_SIZE 1024u

typedef struct Filters {
	char texts[FILTERS_MAX][FILTER_SIZE];
	const char *list[FILTERS_MAX];
	size_t count;
} Filters;

void why_names_done(WhyNames *names)
{
	for (size_t i = 0; i < names->count; i++) {
		free(names->ids[i]);
		free(names->names[i]);
	}
	free((void *)names->ids);
	free((void *)names->names);
	*names = (WhyNames){ 0 };
}

/* Parts between slashes; 0: it cannot be such a name. */
static size_t split(const char *what, char parts[static PARTS_MAX][PART_MAX + 1])
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
	for (size_t count = 0; count < PARTS_MAX; what++) {
		size_t length = strspn(what, allowed);
		if (length == 0 || length > PART_MAX)
			return 0;
		memcpy(parts[count], what, length);
		parts[count++][length] = '\0';
		what += length;
		if (*what == '\0')
			return count;
		if (*what != '/')
			return 0;
	}
	return 0;
}

/* A filter that wants all of some labels; a part that is NULL may be anything. */
static void add_filter(Filters *filters, const char *name_space, const char *pod, const char *container)
{
	const struct {
		const char *label, *value;
	} wanted[] = { { LABEL_NAMESPACE, name_space }, { LABEL_POD, pod }, { LABEL_CONTAINER, container } };
	char *text = filters->texts[filters->count];
	size_t used = 0;
	for (size_t i = 0; i < ELEMENTS(wanted); i++)
		if (wanted[i].value)
			used += (size_t)snprintf(text + used, FILTER_SIZE - used, "%slabels.\"%s\"==\"%s\"",
						 used > 0 ? "," : "", wanted[i].label, wanted[i].value);
	filters->list[filters->count++] = text;
}

static bool make_filters(const char *what, Filters *filters)
{
	char parts[PARTS_MAX][PART_MAX + 1];
	*filters = (Filters){ 0 };
	switch (split(what, parts)) {
	case 1:
		add_filter(filters, NULL, parts[0], NULL);
		add_filter(filters, NULL, NULL, parts[0]);
		(void)snprintf(filters->texts[2], FILTER_SIZE, "labels.\"" LABEL_NERDCTL "\"==\"%s\"", parts[0]);
		filters->list[filters->count++] = filters->texts[2];
		return true;
	case 2:
		add_filter(filters, parts[0], parts[1], NULL);
		add_filter(filters, NULL, parts[0], parts[1]);
		return true;
	case 3:
		add_filter(filters, parts[0], parts[1], parts[2]);
		return true;
	default:
		return false;
	}
}

static const char *label_of(const ClientLabel *labels, const char *name)
{
	for (; labels->name; labels++)
		if (strcmp(labels->name, name) == 0)
			return labels->value;
	return NULL;
}

/* What holds a pod together has its labels, but for the container's name, and reads nothing of the image. */
static int add(void *arg, const char *id, const ClientLabel *labels, Error *error)
{
	WhyNames *names = arg;
	const char *name_space = label_of(labels, LABEL_NAMESPACE), *pod = label_of(labels, LABEL_POD),
		   *container = label_of(labels, LABEL_CONTAINER), *nerdctl = label_of(labels, LABEL_NERDCTL);
	if (!nerdctl && !(name_space && pod && container))
		return 0;
	char **ids = (char **)reallocarray((void *)names->ids, names->count + 1, sizeof(*ids));
	names->ids = ids ?: names->ids;
	char **texts = (char **)reallocarray((void *)names->names, names->count + 1, sizeof(*texts));
	names->names = texts ?: names->names;
	char *copy = strdup(id), *name = NULL;
	if (!ids || !texts || !copy ||
	    (container ? asprintf(&name, "%s/%s/%s", name_space, pod, container) : asprintf(&name, "%s", nerdctl)) <
		    0) {
		free(copy);
		return error_set(error, -ENOMEM, "out of memory");
	}
	ids[names->count] = copy;
	texts[names->count++] = name;
	return 0;
}

/* The length of what names the pod, or all of nerdctl's name. */
static size_t owner_length(const char *name)
{
	const char *last = strrchr(name, '/');
	return last ? (size_t)(last - name) : strlen(name);
}

static int check_one(const WhyNames *names, const char *what, Error *error)
{
	char list[400];
	size_t used = 0;
	bool several = false;
	for (size_t i = 0; i < names->count; i++) {
		const char *name = names->names[i];
		size_t length = owner_length(name);
		several |= length != owner_length(names->names[0]) || memcmp(name, names->names[0], length) != 0;
		if (used < sizeof(list))
			used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%s", used > 0 ? ", " : "", name);
	}
	return several ? error_set(error, -EINVAL, "several containers are called %s; say which one: %s", what, list)
		       : 0;
}

int why_names_find(const char *socket, const char *what, WhyNames *ret_names, Error *error)
{
	_cleanup_(why_names_done) WhyNames names = { 0 };
	Filters filters;
	if (!make_filters(what, &filters))
		return error_set(error, -ENOENT, "%s is no name of a container", what);
	int r = client_containers(socket, filters.list, filters.count, add, &names, error);
	if (r < 0)
		return r == -ECONNREFUSED || r == -EACCES ? -ENOENT : r;
	if (names.count == 0)
		return error_set(error, -ENOENT, "containerd knows no container %s", what);
	r = check_one(&names, what, error);
	if (r < 0)
		return r;
	*ret_names = names;
	names = (WhyNames){ 0 };
	return 0;
}

bool why_names_differ(const WhyNames *names)
{
	for (size_t i = 1; i < names->count; i++)
		if (strcmp(names->names[i], names->names[0]) != 0)
			return true;
	return false;
}
