/* imgfs gc: frees what no tag of the store reaches. */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>

#include "tools/cmd/cmd-store.h"
#include "tools/cmd/output.h"
#include "tools/cmd/verbs.h"
#include "tools/export/store-gc.h"

#define VERB         "gc"
#define WAIT_DEFAULT 60 /* seconds */
#define WAIT_MAX     86400

enum { OPTION_DRY_RUN = VERB_OPTION_LONG, OPTION_JSON, OPTION_WAIT, OPTION_NO_WAIT };

const VerbOption cmd_gc_options[] = {
	CMD_STORE_OPTION,
	{ "dry-run", OPTION_DRY_RUN, NULL, "delete nothing, show what would go" },
	{ "wait", OPTION_WAIT, "SECONDS", "how long to wait for running exports; default 60" },
	{ "no-wait", OPTION_NO_WAIT, NULL, "fail at once when an export runs" },
	{ "json", OPTION_JSON, NULL, "print one JSON object" },
	{ 0 },
};

static void on_waiting(void *arg _unused_)
{
	fprintf(stderr, "imgfs gc: waiting for exports that run; new ones start after it\n");
}

static int print_json(const StoreGcResult *result, bool dry_run)
{
	return output_json(json_pack("{s:b, s:I, s:I, s:I, s:I, s:I, s:{s:I, s:I, s:I}}", "dryRun", dry_run,
				     "manifests", (json_int_t)result->manifests, "layers", (json_int_t)result->layers,
				     "frameLists", (json_int_t)result->frame_lists, "blobs", (json_int_t)result->blobs,
				     "bytes", (json_int_t)result->bytes, "kept", "tags", (json_int_t)result->kept_tags,
				     "objects", (json_int_t)result->kept_blobs, "bytes",
				     (json_int_t)result->kept_bytes));
}

static void print_text(const StoreGcResult *result, bool dry_run)
{
	char freed[OUTPUT_SIZE_TEXT], kept[OUTPUT_SIZE_TEXT];
	printf("%s %s: %" PRIu64 " manifests, %" PRIu64 " layers, %" PRIu64 " blobs, %" PRIu64 " lists of frames\n",
	       dry_run ? "would free" : "freed", output_size(result->bytes, freed), result->manifests, result->layers,
	       result->blobs, result->frame_lists);
	printf("kept %s: %" PRIu64 " objects that %" PRIu64 " tags reach\n", output_size(result->kept_bytes, kept),
	       result->kept_blobs, result->kept_tags);
}

static int run(const char *path, const StoreGcOptions *options, bool json)
{
	_cleanup_(store_free_p) Store *store = NULL;
	Error error = { 0 };
	StoreGcResult result;
	int r = cmd_store_open(path, false, &store, &error);
	if (r == 0)
		r = store_gc(store, options, &result, &error);
	if (r < 0)
		return verb_fail(VERB, r, &error);
	if (json) {
		r = print_json(&result, options->dry_run);
		return r < 0 ? verb_fail(VERB, r, NULL) : VERB_SUCCESS;
	}
	print_text(&result, options->dry_run);
	return VERB_SUCCESS;
}

int cmd_gc(int argc, char **argv)
{
	const char *path = NULL;
	bool json = false;
	unsigned long seconds;
	StoreGcOptions options = { .wait = WAIT_DEFAULT, .waiting = on_waiting };
	for (int id; (id = verb_getopt(argc, argv, cmd_gc_options)) != -1;) {
		switch (id) {
		case 's':
			path = optarg;
			break;
		case OPTION_DRY_RUN:
			options.dry_run = true;
			break;
		case OPTION_WAIT:
			if (verb_number(optarg, 0, WAIT_MAX, &seconds) < 0)
				return verb_usage_error(VERB, "--wait %s is no number of seconds up to %d", optarg,
							WAIT_MAX);
			options.wait = (unsigned)seconds;
			break;
		case OPTION_NO_WAIT:
			options.wait = 0;
			break;
		case OPTION_JSON:
			json = true;
			break;
		default:
			return VERB_USAGE;
		}
	}
	if (optind < argc)
		return verb_usage_error(VERB, "it takes no argument such as %s", argv[optind]);
	return run(path, &options, json);
}
