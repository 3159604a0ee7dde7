/* imgfs cache ls and size: what is here. */
#include <stdio.h>
#include <string.h>

#include "fs/cache/cache-contents.h"
#include "fs/fetch/fetch-contents.h"
#include "fs/fetch/fetch-seal.h"
#include "tools/cmd/cmd-cache.h"

/* One image of the list, or NULL when memory is out. */
static json_t *describe(CacheStore *cache, const CacheTag *tag)
{
	char manifest[DIGEST_TEXT_SIZE], config[DIGEST_TEXT_SIZE] = "";
	FetchContents contents = { 0 };
	bool known = fetch_contents_describe(cache, &tag->manifest, &contents) == 0;
	if (known)
		(void)digest_text(&contents.config, config);
	return json_pack("{s:s, s:s, s:s, s:I, s:I, s:b, s:b, s:I, s:b, s:b}", "reference", tag->reference, "manifest",
			 digest_text(&tag->manifest, manifest), "image", config, "totalBytes",
			 (json_int_t)contents.total, "presentBytes", (json_int_t)contents.present, "complete",
			 known && contents.present == contents.total, "decoded",
			 known && contents.decoded == contents.layers, "used", (json_int_t)contents.used, "pinned",
			 contents.pinned, "sealed", known && fetch_seal_check(cache, &tag->manifest, tag->reference));
}

static bool is_set(const json_t *row, const char *key)
{
	return json_is_true(json_object_get(row, key));
}

static void print_row(const json_t *row)
{
	char size[OUTPUT_SIZE_TEXT], age[OUTPUT_AGE_TEXT] = "never";
	uint64_t total = (uint64_t)json_integer_value(json_object_get(row, "totalBytes"));
	uint64_t here = (uint64_t)json_integer_value(json_object_get(row, "presentBytes"));
	time_t used = (time_t)json_integer_value(json_object_get(row, "used"));
	if (used > 0)
		(void)output_age(used, time(NULL), age);
	printf("%.12s %10s %5u%% %10s %-6s  %s\n",
	       json_string_value(json_object_get(row, "manifest")) + strlen("sha256:"), output_size(total, size),
	       total ? (unsigned)(here * 100 / total) : 0, age,
	       is_set(row, "sealed") ? "sealed" : (is_set(row, "pinned") ? "pinned" : "-"),
	       json_string_value(json_object_get(row, "reference")));
}

int cache_action_ls(const CacheArguments *arguments, CacheStore *cache, Error *error)
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
		printf("%-12s %10s %6s %10s %-6s  %s\n", "MANIFEST", "SIZE", "HERE", "USED", "KEPT", "REFERENCE");
		json_array_foreach(array, at, row) print_row(row);
	}
	json_decref(array);
	return r < 0 ? error_set(error, r, "the cache cannot be listed: %s", error_text(NULL, r)) : 0;
}

int cache_action_size(const CacheArguments *arguments, CacheStore *cache, Error *error)
{
	static const struct {
		const char *name;
		CacheKind kind;
	} kinds[] = {
		{ "blobs", CACHE_BLOB },     { "decoded", CACHE_DECODED },    { "indexes", CACHE_INDEX },
		{ "views", CACHE_VIEW },     { "manifests", CACHE_MANIFEST }, { "profiles", CACHE_PROFILE },
		{ "configs", CACHE_CONFIG },
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
