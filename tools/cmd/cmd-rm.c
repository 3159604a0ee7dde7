/* imgfs rm: takes tags away. What only they reached stays until `imgfs gc`. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "tools/cmd/cmd-store.h"
#include "tools/cmd/verbs.h"
#include "tools/export/store-image.h"

#define VERB "rm"

const VerbOption cmd_rm_options[] = {
	CMD_STORE_OPTION,
	{ 0 },
};

/* Is every tag there? A name that was mistyped should take none of the others with it. */
static int check_tags(Store *store, const Reference *tags, size_t count, Error *error)
{
	for (size_t i = 0; i < count; i++) {
		_cleanup_free_ char *json = NULL;
		size_t size;
		if (store_tag_get(store, tags[i].name, tags[i].tag, &json, &size) == -ENOENT)
			return error_set(error, -ENOENT,
					 "store %s has no tag %s:%s; nothing is removed; `imgfs ls` lists what it has",
					 store_path(store), tags[i].name, tags[i].tag);
	}
	return 0;
}

static int run(const char *path, const Reference *tags, size_t count)
{
	_cleanup_(store_free_p) Store *store = NULL;
	Error error = { 0 };
	int r = cmd_store_open(path, false, &store, &error);
	if (r == 0)
		r = check_tags(store, tags, count, &error);
	for (size_t i = 0; i < count && r == 0; i++) {
		r = store_tag_remove(store, tags[i].name, tags[i].tag, &error);
		if (r == 0)
			printf("removed %s:%s\n", tags[i].name, tags[i].tag);
	}
	return r < 0 ? verb_fail(VERB, r, &error) : VERB_SUCCESS;
}

static int parse_tags(char **names, size_t count, Reference *tags)
{
	Error error = { 0 };
	for (size_t i = 0; i < count; i++) {
		if (store_image_parse(names[i], &tags[i], &error) < 0)
			return verb_usage_error(VERB, "%s", error_text(&error, -EINVAL));
		if (tags[i].has_digest)
			return verb_usage_error(VERB, "%s: tags are removed by name, without a digest", names[i]);
		for (size_t before = 0; before < i; before++) {
			if (strcmp(tags[before].name, tags[i].name) == 0 && strcmp(tags[before].tag, tags[i].tag) == 0)
				return verb_usage_error(VERB, "%s is named twice", names[i]);
		}
	}
	return VERB_SUCCESS;
}

int cmd_rm(int argc, char **argv)
{
	const char *path = NULL;
	for (int id; (id = verb_getopt(argc, argv, cmd_rm_options)) != -1;) {
		if (id != 's')
			return VERB_USAGE;
		path = optarg;
	}
	size_t count = (size_t)(argc - optind);
	if (count == 0)
		return verb_usage_error(VERB, "the name of an image is missing");
	_cleanup_free_ Reference *tags = calloc(count, sizeof(*tags));
	if (!tags)
		return verb_fail(VERB, -ENOMEM, NULL);
	int status = parse_tags(argv + optind, count, tags);
	return status == VERB_SUCCESS ? run(path, tags, count) : status;
}
