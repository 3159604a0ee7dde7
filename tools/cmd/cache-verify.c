/* imgfs cache verify: reads all that is here, and drops what is rotten. */
#include <stdio.h>
#include <string.h>

#include "fs/fetch/fetch-check.h"
#include "tools/cmd/cmd-cache.h"

typedef struct Report {
	const CacheArguments *arguments;
	OutputProgress progress;
	json_t *rotten, *unsealed;
} Report;

static const char *kind_name(CacheKind kind)
{
	switch (kind) {
	case CACHE_INDEX:
		return "index";
	case CACHE_VIEW:
		return "view";
	case CACHE_MANIFEST:
		return "manifest";
	case CACHE_BLOB:
		return "blob";
	case CACHE_DECODED:
		return "decoded copy";
	case CACHE_PROFILE:
		return "start-up profile";
	case CACHE_CONFIG:
		return "config";
	}
	return "object";
}

static void on_rotten(void *arg, CacheKind kind, const Digest *digest, uint64_t chunks)
{
	Report *report = arg;
	char text[DIGEST_TEXT_SIZE];
	(void)digest_text(digest, text);
	_unused_ int r = json_array_append_new(report->rotten, json_pack("{s:s, s:s, s:I}", "kind", kind_name(kind),
									 "digest", text, "chunks", (json_int_t)chunks));
	output_progress_clear(&report->progress);
	if (report->arguments->json)
		return;
	if (chunks > 0)
		printf("rotten   %s %s: %llu chunks, dropped\n", kind_name(kind), text, (unsigned long long)chunks);
	else
		printf("rotten   %s %s, dropped\n", kind_name(kind), text);
}

static void on_unsealed(void *arg, const char *reference, const Digest *manifest)
{
	Report *report = arg;
	char text[DIGEST_TEXT_SIZE];
	(void)digest_text(manifest, text);
	_unused_ int r = json_array_append_new(report->unsealed,
					       json_pack("{s:s, s:s}", "reference", reference, "manifest", text));
	output_progress_clear(&report->progress);
	if (!report->arguments->json)
		printf("unsealed %s (%s): imgfs pull --seal makes it whole again\n", reference, text);
}

static void on_progress(void *arg, uint64_t bytes)
{
	output_progress_update(&((Report *)arg)->progress, bytes);
}

static int print_checked(const Report *report, const FetchChecked *checked)
{
	char size[OUTPUT_SIZE_TEXT];
	if (report->arguments->json)
		return output_json(json_pack("{s:I, s:I, s:I, s:I, s:I, s:O, s:O}", "objects",
					     (json_int_t)checked->objects, "chunks", (json_int_t)checked->chunks,
					     "bytes", (json_int_t)checked->bytes, "rottenCount",
					     (json_int_t)checked->rotten, "unknownBlobs", (json_int_t)checked->unknown,
					     "rotten", report->rotten, "unsealed", report->unsealed));
	if (checked->unknown > 0)
		printf("not checked: %llu blobs whose indexes are not here; a mount or pull gets those\n",
		       (unsigned long long)checked->unknown);
	if (!report->arguments->quiet)
		printf("checked %llu chunks and %llu files, %s: %llu rotten\n", (unsigned long long)checked->chunks,
		       (unsigned long long)checked->objects, output_size(checked->bytes, size),
		       (unsigned long long)checked->rotten);
	return 0;
}

static int check(Report *report, CacheStore *cache, Error *error)
{
	FetchCheck options = { .rotten = on_rotten, .unsealed = on_unsealed, .progress = on_progress, .arg = report };
	FetchChecked checked = { 0 };
	if (!report->rotten || !report->unsealed)
		return error_set(error, -ENOMEM, "out of memory");
	output_progress_start(&report->progress, "checking", 0, report->arguments->quiet || report->arguments->json);
	int r = fetch_check(cache, &options, &checked, error);
	output_progress_end(&report->progress);
	if (r == 0)
		r = print_checked(report, &checked);
	if (r < 0 || checked.rotten == 0)
		return r;
	return error_set(error, -EBADMSG,
			 "%llu things in the cache were rotten, and are gone: they are got again when they are wanted",
			 (unsigned long long)checked.rotten);
}

int cache_action_verify(const CacheArguments *arguments, CacheStore *cache, Error *error)
{
	Report report = { .arguments = arguments, .rotten = json_array(), .unsealed = json_array() };
	int r = check(&report, cache, error);
	json_decref(report.rotten);
	json_decref(report.unsealed);
	return r;
}
