#include "tools/export/export-tags.h"

#include <string.h>

#include "fs/format/reference.h"

void export_tags_free(ExportTag *tags, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		free(tags[i].name);
		free(tags[i].tag);
		free(tags[i].given);
	}
	free(tags);
}

/*
 * The name without what cannot or need not stand in a store: a registry host with a port, "localhost", and the "docker.io/" and
 * "docker.io/library/" that engines add to names of the Docker Hub. Other hosts stay, as part of the name.
 */
static const char *without_host(const char *name)
{
	size_t first = strcspn(name, "/");
	if (name[first] != '/')
		return name;
	bool host = memchr(name, ':', first) || strncmp(name, "localhost/", 10) == 0 ||
		    strncmp(name, "docker.io/", 10) == 0;
	if (!host)
		return name;
	if (strncmp(name, "docker.io/library/", 18) == 0)
		return name + 18;
	return name + first + 1;
}

static int make_tag(const char *text, ExportTag *ret_tag, Error *error)
{
	Reference reference;
	int r = reference_parse_local(text, &reference, error);
	if (r < 0)
		return r;
	if (reference.has_digest)
		return error_set(error, -EINVAL, "\"%s\" has a digest; a tag is NAME:TAG", text);
	ExportTag tag = { .name = strdup(reference.name), .tag = strdup(reference.tag) };
	if (!tag.name || !tag.tag) {
		free(tag.name);
		free(tag.tag);
		return error_set(error, -ENOMEM, "out of memory for a tag");
	}
	*ret_tag = tag;
	return 0;
}

/* Whether `tag` is one of these already: two of the source's names may differ in their host only. */
static bool is_there(const ExportTag *tags, size_t count, const ExportTag *tag)
{
	for (size_t i = 0; i < count; i++) {
		if (strcmp(tags[i].name, tag->name) == 0 && strcmp(tags[i].tag, tag->tag) == 0)
			return true;
	}
	return false;
}

/* Adds a name of the source; one that cannot be a tag is passed over. */
static int add_name(ExportTag *tags, size_t *count, const char *given)
{
	ExportTag *tag = &tags[*count];
	const char *name = without_host(given);
	int r = make_tag(name, tag, NULL);
	if (r == -EINVAL)
		return 0;
	if (r < 0)
		return r;
	if (is_there(tags, *count, tag)) {
		free(tag->name);
		free(tag->tag);
		*tag = (ExportTag){ 0 };
		return 0;
	}
	++*count;
	/* Engines add docker.io themselves; nobody misses it. */
	bool said = name != given && strncmp(given, "docker.io/", 10) != 0;
	return said && !(tag->given = strdup(given)) ? -ENOMEM : 0;
}

int export_tags_choose(const char *wanted, char *const *names, size_t name_count, ExportTag **ret_tags,
		       size_t *ret_count, Error *error)
{
	ExportTag *tags = calloc(name_count + 1, sizeof(*tags));
	size_t count = 0;
	int r = 0;
	if (!tags)
		return error_set(error, -ENOMEM, "out of memory for tags");
	if (wanted) {
		r = make_tag(wanted, &tags[0], error);
		if (r < 0)
			(void)error_prefix(error, r, "--tag %s", wanted);
		count = r < 0 ? 0 : 1;
	} else {
		for (size_t i = 0; i < name_count && r == 0; i++)
			r = add_name(tags, &count, names[i]);
		if (r == 0 && count == 0)
			r = error_set(error, -EINVAL, "%s%s%s; give the image a name with --tag NAME:TAG",
				      name_count ? "the source's name \"" : "the source has no name for this image",
				      name_count ? names[0] : "", name_count ? "\" cannot be a tag of a store" : "");
	}
	if (r < 0) {
		export_tags_free(tags, count);
		return r;
	}
	*ret_tags = tags;
	*ret_count = count;
	return 0;
}
