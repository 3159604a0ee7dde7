/* imgfs cache prune and evict: what can go. */
#include <stdio.h>
#include <string.h>

#include "fs/base/digest-list.h"
#include "fs/cache/cache-contents.h"
#include "fs/cache/cache-evict.h"
#include "fs/fetch/fetch-contents.h"
#include "fs/mount/mount-table.h"
#include "tools/cmd/cmd-cache.h"

#define YOUNG 3600 /* seconds: what is younger may be in the making */

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
static int use_tags(const CacheArguments *arguments, CacheStore *cache, DigestList *roots)
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

int cache_action_prune(const CacheArguments *arguments, CacheStore *cache, Error *error)
{
	DigestList roots = { 0 }, objects = { 0 };
	FetchPruned pruned = { 0 };
	Error own = { 0 };
	int r = mount_table_each(add_mounted, &roots);
	if (r == 0)
		r = cache_held_add(arguments, &roots, &objects, &own);
	if (r == 0)
		r = add_newest(cache, arguments->keep, &roots);
	if (r == 0)
		r = use_tags(arguments, cache, &roots);
	if (r < 0) {
		digest_list_done(&roots);
		digest_list_done(&objects);
		return error_set(error, r, "cannot find out what to keep: %s", error_text(&own, r));
	}
	FetchPrune options = {
		.manifests = roots.digests,
		.manifest_count = roots.count,
		.objects = objects.digests,
		.object_count = objects.count,
		.min_age = arguments->all ? 0 : YOUNG,
		.dry_run = arguments->dry_run,
	};
	r = fetch_contents_prune(cache, &options, &pruned, error);
	digest_list_done(&roots);
	digest_list_done(&objects);
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

static int print_evicted(const CacheArguments *arguments, const CacheEvicted *evicted)
{
	char gone[OUTPUT_SIZE_TEXT], left[OUTPUT_SIZE_TEXT];
	uint64_t bytes = evicted->before > evicted->after ? evicted->before - evicted->after : 0;
	if (arguments->json)
		return output_json(json_pack("{s:I, s:I, s:I, s:I, s:b}", "chunks", (json_int_t)evicted->chunks,
					     "bytes", (json_int_t)bytes, "total", (json_int_t)evicted->after,
					     "keptBytes", (json_int_t)evicted->kept, "enough", evicted->enough));
	if (!arguments->quiet)
		printf("evicted %llu chunks, %s; the cache has %s\n", (unsigned long long)evicted->chunks,
		       output_size(bytes, gone), output_size(evicted->after, left));
	return 0;
}

int cache_action_evict(const CacheArguments *arguments, CacheStore *cache, Error *error)
{
	CacheEvict options = { .quota = arguments->quota, .free = arguments->free, .wait = true };
	CacheEvicted evicted = { 0 };
	char kept[OUTPUT_SIZE_TEXT], left[OUTPUT_SIZE_TEXT];
	int r = cache_evict(cache, &options, &evicted, error);
	if (r == 0)
		r = print_evicted(arguments, &evicted);
	if (r < 0 || evicted.enough)
		return r;
	return error_set(error, -EBUSY,
			 "the cache still has %s: %s are of images that are pinned or sealed (imgfs cache ls), the "
			 "rest is in use, or indexes and views, which go by imgfs cache prune",
			 output_size(evicted.after, left), output_size(evicted.kept, kept));
}
