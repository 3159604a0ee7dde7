/* imgfs verify: reads every byte of images of the store and holds it against what names it. */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tools/cmd/cmd-store.h"
#include "tools/cmd/output.h"
#include "tools/cmd/verbs.h"
#include "tools/export/image-verify.h"
#include "tools/export/store-image.h"
#include "tools/export/store-lock.h"

#define VERB "verify"

enum { OPTION_JSON = VERB_OPTION_LONG, OPTION_ALL };

const VerbOption cmd_verify_options[] = {
	CMD_STORE_OPTION,
	{ "all", OPTION_ALL, NULL, "verify every tag of the store" },
	{ "json", OPTION_JSON, NULL, "print one JSON object" },
	{ "quiet", 'q', NULL, "print nothing but faults" },
	{ 0 },
};

typedef struct Arguments {
	const char *store;
	bool all;
	bool json;
	bool quiet;
} Arguments;

typedef struct Names {
	char **items;
	size_t count;
} Names;

/* What the hooks need. */
typedef struct Run {
	OutputProgress bar;
	uint64_t read;
	json_t *faults; /* NULL: text */
	bool no_memory;
} Run;

static void names_done(Names *names)
{
	for (size_t i = 0; i < names->count; i++)
		free(names->items[i]);
	free(names->items);
}

static int names_add(Names *names, const char *name, const char *tag)
{
	char **items = reallocarray(names->items, names->count + 1, sizeof(*items));
	if (!items)
		return -ENOMEM;
	names->items = items;
	int length =
		tag ? asprintf(&items[names->count], "%s:%s", name, tag) : asprintf(&items[names->count], "%s", name);
	if (length < 0)
		return -ENOMEM;
	names->count++;
	return 0;
}

static int on_tag(void *arg, const char *name, const char *tag, time_t changed _unused_)
{
	return names_add(arg, name, tag);
}

static void on_progress(void *arg, uint64_t bytes)
{
	Run *run = arg;
	run->read += bytes;
	output_progress_update(&run->bar, run->read);
}

static int add_digest(json_t *object, const char *key, const Digest *digest)
{
	char text[DIGEST_TEXT_SIZE];
	return digest ? json_object_set_new(object, key, json_string(digest_text(digest, text))) : 0;
}

static int add_fault(json_t *faults, const VerifyFault *fault)
{
	json_auto_t *object = json_pack("{s:s, s:s}", "image", fault->image, "fault", fault->what);
	bool bad = !object || add_digest(object, fault->diff_id ? "blob" : "object", fault->object) < 0 ||
		   add_digest(object, "diffID", fault->diff_id) < 0;
	if (fault->layer > 0)
		bad = bad || json_object_set_new(object, "layer", json_integer(fault->layer)) < 0;
	if (fault->chunk >= 0)
		bad = bad || json_object_set_new(object, "chunk", json_integer(fault->chunk)) < 0 ||
		      json_object_set_new(object, "offset", json_integer((json_int_t)fault->offset)) < 0;
	return bad || json_array_append(faults, object) < 0 ? -ENOMEM : 0;
}

static void print_fault(const VerifyFault *fault)
{
	char text[DIGEST_TEXT_SIZE];
	printf("%s: ", fault->image);
	if (fault->layer > 0)
		printf("layer %" PRIu32 " (%.19s), blob %s", fault->layer, digest_text(fault->diff_id, text),
		       fault->object ? "" : "unknown");
	if (fault->object)
		printf("%s", digest_text(fault->object, text));
	if (fault->chunk >= 0)
		printf(", chunk %" PRId64 " at offset %" PRIu64, fault->chunk, fault->offset);
	printf("%s%s\n", fault->object || fault->layer > 0 ? ": " : "", fault->what);
}

static void on_fault(void *arg, const VerifyFault *fault)
{
	Run *run = arg;
	if (run->faults) {
		run->no_memory |= add_fault(run->faults, fault) < 0;
		return;
	}
	output_progress_clear(&run->bar);
	print_fault(fault);
}

static int print_json(Run *run, const Names *names, const VerifyCounts *counts)
{
	json_t *images = json_array();
	for (size_t i = 0; i < names->count && images; i++)
		run->no_memory |= json_array_append_new(images, json_string(names->items[i])) < 0;
	if (run->no_memory) {
		json_decref(images);
		return -ENOMEM;
	}
	return output_json(json_pack("{s:o, s:b, s:I, s:I, s:I, s:I, s:O}", "images", images, "whole",
				     counts->faults == 0, "layers", (json_int_t)counts->layers, "chunks",
				     (json_int_t)counts->chunks, "blobBytes", (json_int_t)counts->blob_bytes,
				     "tarBytes", (json_int_t)counts->tar_bytes, "faults", run->faults));
}

static void print_text(const Names *names, const VerifyCounts *counts)
{
	char blobs[OUTPUT_SIZE_TEXT], tars[OUTPUT_SIZE_TEXT];
	if (names->count == 1)
		printf("%s", names->items[0]);
	else
		printf("%zu images", names->count);
	if (counts->faults > 0)
		printf(": %" PRIu64 " fault%s", counts->faults, counts->faults > 1 ? "s" : "");
	else
		printf(": whole");
	printf("; %" PRIu64 " layers, %" PRIu64 " chunks, %s of blobs, %s of tar read\n", counts->layers,
	       counts->chunks, output_size(counts->blob_bytes, blobs), output_size(counts->tar_bytes, tars));
}

static int verify_names(Store *store, const Names *names, Run *run, bool quiet, VerifyCounts *ret_counts, Error *error)
{
	VerifyHooks hooks = { .fault = on_fault, .progress = on_progress, .arg = run };
	_cleanup_(verify_free_p) Verify *verify = NULL;
	uint64_t total = 0;
	int r = verify_new(store, &hooks, &verify);
	for (size_t i = 0; i < names->count && r == 0; i++)
		total += verify_estimate(verify, names->items[i]);
	output_progress_start(&run->bar, "verifying", total, quiet);
	for (size_t i = 0; i < names->count && r == 0; i++)
		r = verify_image(verify, names->items[i], error);
	output_progress_end(&run->bar);
	if (r == 0)
		*ret_counts = verify_counts(verify);
	return r;
}

static int run_verb(const Arguments *arguments, Names *names)
{
	_cleanup_(store_free_p) Store *store = NULL;
	_cleanup_close_ int hold = -1;
	Error error = { 0 };
	Run run = { 0 };
	VerifyCounts counts = { 0 };
	int r = cmd_store_open(arguments->store, false, &store, &error);
	if (r == 0)
		r = store_hold(store, &hold, &error);
	if (r == 0 && arguments->all)
		r = store_tag_each(store, on_tag, names);
	json_auto_t *faults = arguments->json ? json_array() : NULL;
	run.faults = faults;
	if (r == 0)
		r = verify_names(store, names, &run, arguments->quiet, &counts, &error);
	if (r < 0)
		return verb_fail(VERB, r, &error);
	if (arguments->json)
		r = print_json(&run, names, &counts);
	else if (!arguments->quiet)
		print_text(names, &counts);
	if (r < 0)
		return verb_fail(VERB, r, NULL);
	return counts.faults > 0 ? VERB_CORRUPT : VERB_SUCCESS;
}

static int parse(int argc, char **argv, Arguments *arguments, Names *names)
{
	for (int id; (id = verb_getopt(argc, argv, cmd_verify_options)) != -1;) {
		if (id == 's')
			arguments->store = optarg;
		else if (id == OPTION_ALL)
			arguments->all = true;
		else if (id == OPTION_JSON)
			arguments->json = true;
		else if (id == 'q')
			arguments->quiet = true;
		else
			return VERB_USAGE;
	}
	if (arguments->all ? optind < argc : optind == argc)
		return verb_usage_error(VERB, "wanted is either --all, or the names of images");
	for (int i = optind; i < argc; i++) {
		Reference reference;
		Error error = { 0 };
		if (store_image_parse(argv[i], &reference, &error) < 0)
			return verb_usage_error(VERB, "%s", error_text(&error, -EINVAL));
		if (names_add(names, argv[i], NULL) < 0)
			return verb_fail(VERB, -ENOMEM, NULL);
	}
	return VERB_SUCCESS;
}

int cmd_verify(int argc, char **argv)
{
	Arguments arguments = { 0 };
	Names names = { 0 };
	int status = parse(argc, argv, &arguments, &names);
	if (status == VERB_SUCCESS)
		status = run_verb(&arguments, &names);
	names_done(&names);
	return status;
}
