/* imgfs cache: what the cache of this node holds, and what of it can go. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "fs/base/digest-list.h"
#include "fs/fetch/fetch-contents.h"
#include "fs/fetch/fetch-seal.h"
#include "fs/mount/mount-table.h"
#include "tools/cmd/output.h"
#include "tools/cmd/remote-options.h"

#define VERB "cache"

#define YOUNG 3600 /* seconds: what is younger may be in the making */

enum { OPTION_JSON = VERB_OPTION_LONG, OPTION_ALL, OPTION_DRY_RUN, OPTION_KEEP };

const VerbOption cmd_cache_options[] = {
	{ "cache", REMOTE_OPTION_CACHE, "DIR", "the cache; default " REMOTE_CACHE ", a user's: $XDG_CACHE_HOME/imgfs" },
	{ "all", OPTION_ALL, NULL, "prune: forget the tags too, and keep only what is mounted" },
	{ "keep", OPTION_KEEP, "N", "prune: keep the N manifests got last too, whatever tags mean; default 0" },
	{ "dry-run", OPTION_DRY_RUN, NULL, "prune: remove nothing, only say what would go" },
	{ "json", OPTION_JSON, NULL, "print JSON" },
	{ 0 },
};

#define KEEP_MAX 4096u

typedef struct Arguments {
	const char *action;
	RemoteOptions remote;
	unsigned long keep;
	bool all;
	bool dry_run;
	bool json;
} Arguments;

static int parse_option(int id, Arguments *arguments)
{
	switch (id) {
	case OPTION_ALL:
		arguments->all = true;
		return VERB_SUCCESS;
	case OPTION_KEEP:
		if (verb_number(optarg, 0, KEEP_MAX, &arguments->keep) < 0)
			return verb_usage_error(VERB, "--keep %s: give a number up to %u", optarg, KEEP_MAX);
		return VERB_SUCCESS;
	case OPTION_DRY_RUN:
		arguments->dry_run = true;
		return VERB_SUCCESS;
	case OPTION_JSON:
		arguments->json = true;
		return VERB_SUCCESS;
	default:
		return remote_options_take(&arguments->remote, id);
	}
}

static int parse(int argc, char **argv, Arguments *arguments)
{
	for (int id; (id = verb_getopt(argc, argv, cmd_cache_options)) != -1;) {
		int status = parse_option(id, arguments);
		if (status != VERB_SUCCESS)
			return status;
	}
	if (argc - optind != 1)
		return verb_usage_error(VERB, "give one of ls, size, prune");
	arguments->action = argv[optind];
	if (strcmp(arguments->action, "prune") != 0 && (arguments->all || arguments->keep || arguments->dry_run))
		return verb_usage_error(VERB, "--all, --keep and --dry-run are for prune");
	return VERB_SUCCESS;
}

/* One image of the list, or NULL when memory is out. */
static json_t *describe(CacheStore *cache, const CacheTag *tag)
{
	char manifest[DIGEST_TEXT_SIZE], config[DIGEST_TEXT_SIZE] = "";
	FetchContents contents = { 0 };
	bool known = fetch_contents_describe(cache, &tag->manifest, &contents) == 0;
	if (known)
		(void)digest_text(&contents.config, config);
	return json_pack("{s:s, s:s, s:s, s:I, s:I, s:b, s:b, s:b}", "reference", tag->reference, "manifest",
			 digest_text(&tag->manifest, manifest), "image", config, "totalBytes",
			 (json_int_t)contents.total, "presentBytes", (json_int_t)contents.present, "complete",
			 known && contents.present == contents.total, "decoded",
			 known && contents.decoded == contents.layers, "sealed",
			 known && fetch_seal_check(cache, &tag->manifest, tag->reference));
}

static int list(const Arguments *arguments, CacheStore *cache, Error *error)
{
	CacheTag *tags = NULL;
	size_t count = 0;
	json_t *array = json_array();
	int r = array ? cache_contents_tags(cache, &tags, &count) : -ENOMEM;
	for (size_t i = 0; r == 0 && i < count; i++)
		r = json_array_append_new(array, describe(cache, &tags[i])) < 0 ? -ENOMEM : 0;
	cache_contents_tags_free(tags, count);
	if (r == 0 && arguments->json) {
		r = output_json(json_incref(array));
	} else if (r == 0) {
		size_t at;
		json_t *row;
		printf("%-12s %10s %6s  %s\n", "MANIFEST", "SIZE", "HERE", "REFERENCE");
		json_array_foreach(array, at, row)
		{
			char size[OUTPUT_SIZE_TEXT];
			uint64_t total = (uint64_t)json_integer_value(json_object_get(row, "totalBytes"));
			uint64_t here = (uint64_t)json_integer_value(json_object_get(row, "presentBytes"));
			printf("%.12s %10s %5u%%  %s\n",
			       json_string_value(json_object_get(row, "manifest")) + strlen("sha256:"),
			       output_size(total, size), total ? (unsigned)(here * 100 / total) : 0,
			       json_string_value(json_object_get(row, "reference")));
		}
	}
	json_decref(array);
	return r < 0 ? error_set(error, r, "the cache cannot be listed: %s", error_text(NULL, r)) : 0;
}

static int measure(const Arguments *arguments, CacheStore *cache, Error *error)
{
	static const struct {
		const char *name;
		CacheKind kind;
	} kinds[] = {
		{ "blobs", CACHE_BLOB }, { "decoded", CACHE_DECODED },    { "indexes", CACHE_INDEX },
		{ "views", CACHE_VIEW }, { "manifests", CACHE_MANIFEST },
	};
	json_t *sizes = json_object();
	uint64_t total = 0;
	int r = sizes ? 0 : -ENOMEM;
	for (size_t i = 0; r == 0 && i < ELEMENTS(kinds); i++) {
		_cleanup_free_ CacheObject *objects = NULL;
		size_t count = 0;
		uint64_t bytes = 0;
		r = cache_contents_list(cache, kinds[i].kind, &objects, &count);
		for (size_t j = 0; r == 0 && j < count; j++)
			bytes += objects[j].bytes;
		total += bytes;
		if (r == 0 && json_object_set_new(sizes, kinds[i].name, json_integer((json_int_t)bytes)) < 0)
			r = -ENOMEM;
	}
	if (r == 0 && json_object_set_new(sizes, "total", json_integer((json_int_t)total)) < 0)
		r = -ENOMEM;
	if (r == 0 && arguments->json) {
		r = output_json(json_incref(sizes));
	} else if (r == 0) {
		const char *name;
		json_t *value;
		char size[OUTPUT_SIZE_TEXT];
		json_object_foreach(sizes, name, value)
			printf("%-10s %10s\n", name, output_size((uint64_t)json_integer_value(value), size));
	}
	json_decref(sizes);
	return r < 0 ? error_set(error, r, "the cache cannot be measured: %s", error_text(NULL, r)) : 0;
}

/* Adds what is mounted where this process sees it: a source ends in the manifest's digest (cmd-mount.c). */
static int add_mounted(void *arg, const char *source)
{
	const char *at = strrchr(source, '@');
	Digest digest;
	if (!at || digest_from_text(at + 1, &digest) < 0)
		return 0;
	return digest_list_add(arg, &digest);
}

static int add_newest(CacheStore *cache, unsigned long keep, DigestList *roots)
{
	_cleanup_free_ Digest *newest = calloc(keep + 1, sizeof(*newest));
	size_t count = 0;
	int r = newest ? cache_store_newest(cache, CACHE_MANIFEST, keep, newest, &count) : -ENOMEM;
	for (size_t i = 0; r == 0 && i < count; i++)
		r = digest_list_add(roots, &newest[i]);
	return r;
}

/* Tags keep what they mean, or go. */
static int use_tags(const Arguments *arguments, CacheStore *cache, DigestList *roots)
{
	CacheTag *tags = NULL;
	size_t count = 0;
	int r = cache_contents_tags(cache, &tags, &count);
	for (size_t i = 0; r == 0 && i < count; i++) {
		if (!arguments->all)
			r = digest_list_add(roots, &tags[i].manifest);
		else if (!arguments->dry_run)
			r = cache_contents_tag_remove(cache, &tags[i]);
	}
	cache_contents_tags_free(tags, count);
	return r;
}

static int prune(const Arguments *arguments, CacheStore *cache, Error *error)
{
	DigestList roots = { 0 };
	FetchPruned pruned = { 0 };
	int r = mount_table_each(add_mounted, &roots);
	if (r == 0)
		r = add_newest(cache, arguments->keep, &roots);
	if (r == 0)
		r = use_tags(arguments, cache, &roots);
	if (r < 0) {
		digest_list_done(&roots);
		return error_set(error, r, "cannot find out what to keep: %s", error_text(NULL, r));
	}
	FetchPrune options = {
		.manifests = roots.digests,
		.manifest_count = roots.count,
		.min_age = arguments->all ? 0 : YOUNG,
		.dry_run = arguments->dry_run,
	};
	r = fetch_contents_prune(cache, &options, &pruned, error);
	digest_list_done(&roots);
	if (r < 0)
		return r;
	char size[OUTPUT_SIZE_TEXT];
	if (arguments->json)
		return output_json(json_pack("{s:I, s:I, s:b}", "objects", (json_int_t)pruned.objects, "bytes",
					     (json_int_t)pruned.bytes, "dryRun", arguments->dry_run));
	printf("%s %llu objects, %s\n", arguments->dry_run ? "would remove" : "removed",
	       (unsigned long long)pruned.objects, output_size(pruned.bytes, size));
	return 0;
}

int cmd_cache(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*run)(const Arguments *arguments, CacheStore *cache, Error *error);
	} actions[] = { { "ls", list }, { "size", measure }, { "prune", prune } };
	Error error = { 0 };
	Arguments arguments = { 0 };
	int status = parse(argc, argv, &arguments);
	if (status != VERB_SUCCESS)
		return status;
	for (size_t i = 0; i < ELEMENTS(actions); i++) {
		if (strcmp(actions[i].name, arguments.action) != 0)
			continue;
		_cleanup_(cache_store_free_p) CacheStore *cache = NULL;
		int r = remote_options_cache(&arguments.remote, &cache, &error);
		if (r == 0)
			r = actions[i].run(&arguments, cache, &error);
		return r < 0 ? verb_fail(VERB, r, &error) : VERB_SUCCESS;
	}
	return verb_usage_error(VERB, "\"%s\" is none of ls, size, prune", arguments.action);
}
