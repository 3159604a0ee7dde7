/* imgfs export: an image from where it was built into the store. */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "fs/format/frame.h"
#include "fs/format/reference.h"
#include "tools/cmd/cmd-store.h"
#include "tools/cmd/output.h"
#include "tools/cmd/verbs.h"
#include "tools/export/export-image.h"
#include "tools/image/image-open.h"

#define VERB     "export"
#define JOBS_MAX 256

enum { OPTION_LEVEL = VERB_OPTION_LONG, OPTION_FAST, OPTION_REPRODUCIBLE, OPTION_VERIFY, OPTION_JSON, OPTION_PLATFORM };

const VerbOption cmd_export_options[] = {
	CMD_STORE_OPTION,
	{ "tag", 't', "NAME[:TAG]", "what to call the image; default: what its source calls it" },
	{ "platform", OPTION_PLATFORM, "OS/ARCH",
	  "which image of an index, as in linux/arm64/v8; default: this machine's" },
	{ "level", OPTION_LEVEL, "N", "LZ4 level, 1 or 3 to 12; default: 1, and 5 or 6 where it pays" },
	{ "fast", OPTION_FAST, NULL, "the same as --level 1" },
	{ "jobs", 'j', "N", "threads that compress; default: one a processor" },
	{ "reproducible", OPTION_REPRODUCIBLE, NULL, "reuse nothing of the store: the same blobs on every build host" },
	{ "verify", OPTION_VERIFY, NULL, "read the layers that the store has already, and write rotten ones anew" },
	{ "json", OPTION_JSON, NULL, "print one JSON object" },
	{ "quiet", 'q', NULL, "print nothing but errors" },
	{ 0 },
};

typedef struct Arguments {
	const char *store;
	ExportOptions export;
	Platform platform;
	bool json;
	bool quiet;
} Arguments;

/* What is counted while the source is read. */
typedef struct Transfer {
	OutputProgress bar;
	uint64_t read;
	bool quiet;
} Transfer;

static int parse_level(const char *text, int *ret_level)
{
	unsigned long level;
	/* liblz4's HC levels begin with 3. */
	if (verb_number(text, 1, 12, &level) < 0 || level == 2)
		return verb_usage_error(VERB, "--level %s is none of 1 and 3 to 12", text);
	*ret_level = (int)level;
	return VERB_SUCCESS;
}

static int parse_option(int id, Arguments *arguments)
{
	unsigned long number;
	switch (id) {
	case 's':
		arguments->store = optarg;
		break;
	case 't': {
		Error error = { 0 };
		Reference reference;
		/* Before a store is made. */
		if (reference_parse_local(optarg, &reference, &error) < 0)
			return verb_usage_error(VERB, "--tag %s: %s", optarg, error.message);
		if (reference.has_digest)
			return verb_usage_error(VERB, "--tag %s has a digest; a tag is NAME:TAG", optarg);
		arguments->export.tag = optarg;
		break;
	}
	case OPTION_LEVEL:
		return parse_level(optarg, &arguments->export.level);
	case OPTION_PLATFORM: {
		Error error = { 0 };
		if (platform_parse(optarg, &arguments->platform, &error) < 0)
			return verb_usage_error(VERB, "--platform %s", error.message);
		arguments->export.platform = &arguments->platform;
		break;
	}
	case OPTION_FAST:
		arguments->export.level = FRAME_FAST;
		break;
	case 'j':
		if (verb_number(optarg, 1, JOBS_MAX, &number) < 0)
			return verb_usage_error(VERB, "--jobs %s is no number from 1 to %d", optarg, JOBS_MAX);
		arguments->export.jobs = (unsigned)number;
		break;
	case OPTION_REPRODUCIBLE:
		arguments->export.reproducible = true;
		break;
	case OPTION_VERIFY:
		arguments->export.verify = true;
		break;
	case OPTION_JSON:
		arguments->json = true;
		break;
	case 'q':
		arguments->quiet = true;
		break;
	default:
		return VERB_USAGE;
	}
	return VERB_SUCCESS;
}

static void on_progress(void *arg, uint64_t done, uint64_t total)
{
	Transfer *transfer = arg;
	transfer->read = done;
	transfer->bar.total = total;
	output_progress_update(&transfer->bar, done);
}

static void on_notice(void *arg, const char *sentence)
{
	const Transfer *transfer = arg;
	if (!transfer->quiet)
		fprintf(stderr, "imgfs export: %s\n", sentence);
}

static json_t *tags_json(const ExportResult *result)
{
	json_t *tags = json_array();
	for (size_t i = 0; i < result->tag_count && tags; i++) {
		char text[512];
		(void)snprintf(text, sizeof(text), "%s:%s", result->tags[i].name, result->tags[i].tag);
		if (json_array_append_new(tags, json_string(text)) < 0) {
			json_decref(tags);
			tags = NULL;
		}
	}
	return tags;
}

static int print_json(const ExportResult *result, uint64_t read)
{
	char manifest[DIGEST_TEXT_SIZE], config[DIGEST_TEXT_SIZE];
	return output_json(json_pack(
		"{s:o, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b}", "tags", tags_json(result), "manifest",
		digest_text(&result->manifest, manifest), "imageID", digest_text(&result->config, config), "layers",
		(json_int_t)result->layer_count, "layersNew", (json_int_t)result->layers_new, "layersReused",
		(json_int_t)(result->layer_count - result->layers_new), "tarBytes", (json_int_t)result->tar_size,
		"bytesRead", (json_int_t)read, "bytesStored", (json_int_t)result->stored_size, "chunks",
		(json_int_t)result->chunk_count, "chunksReused", (json_int_t)result->chunks_reused, "profileCarried",
		result->profile_carried));
}

static void print_text(const ExportResult *result, uint64_t read)
{
	char digest[DIGEST_TEXT_SIZE], tar[OUTPUT_SIZE_TEXT], in[OUTPUT_SIZE_TEXT], stored[OUTPUT_SIZE_TEXT];
	for (size_t i = 0; i < result->tag_count; i++)
		printf("%s:%s\n", result->tags[i].name, result->tags[i].tag);
	printf("  manifest  %s\n", digest_text(&result->manifest, digest));
	printf("  image ID  %s\n", digest_text(&result->config, digest));
	printf("  layers    %zu (%zu new, %zu reused), %s of tar\n", result->layer_count, result->layers_new,
	       result->layer_count - result->layers_new, output_size(result->tar_size, tar));
	printf("  bytes     %s read, %s stored", output_size(read, in), output_size(result->stored_size, stored));
	if (result->chunks_reused > 0)
		printf("; %" PRIu64 " of %" PRIu64 " chunks taken from the store", result->chunks_reused,
		       result->chunk_count);
	printf("\n");
	if (result->profile_carried)
		printf("  profile   carried over from the version before\n");
}

/* -EINVAL is about what was written as SOURCE or --tag. */
static int fail(int code, const Error *error)
{
	int status = verb_fail(VERB, code, error);
	return code == -EINVAL ? VERB_USAGE : status;
}

static int run(const char *name, const Arguments *arguments)
{
	_cleanup_(image_source_free_p) ImageSource *source = NULL;
	_cleanup_(store_free_p) Store *store = NULL;
	Error error = { 0 };
	Transfer transfer = { .quiet = arguments->quiet };
	ExportOptions options = arguments->export;
	ExportResult result;
	int r = image_open_source(name, options.platform, &source, &error);
	if (r < 0)
		return fail(image_open_hint(name, r, &error), &error);
	r = cmd_store_open(arguments->store, true, &store, &error);
	if (r < 0)
		return fail(r, &error);

	options.progress = on_progress;
	options.notice = on_notice;
	options.arg = &transfer;
	output_progress_start(&transfer.bar, "exporting", 0, arguments->quiet);
	r = export_image(source, store, &options, &result, &error);
	output_progress_end(&transfer.bar);
	if (r == -ENOENT || r == -ECONNREFUSED)
		(void)image_open_hint(name, r, &error);
	if (r < 0)
		return fail(r, &error);

	for (size_t i = 0; i < result.tag_count && !arguments->quiet; i++) {
		if (result.tags[i].given)
			fprintf(stderr, "imgfs export: %s is called %s:%s in the store, without its registry host\n",
				result.tags[i].given, result.tags[i].name, result.tags[i].tag);
	}
	if (arguments->json)
		r = print_json(&result, transfer.read);
	else if (!arguments->quiet)
		print_text(&result, transfer.read);
	export_result_done(&result);
	return r < 0 ? verb_fail(VERB, r, NULL) : VERB_SUCCESS;
}

int cmd_export(int argc, char **argv)
{
	Arguments arguments = { .export = { .level = FRAME_ADAPTIVE } };
	long processors = sysconf(_SC_NPROCESSORS_ONLN);
	arguments.export.jobs = processors > 0 && processors <= JOBS_MAX ? (unsigned)processors : 0;
	for (int id; (id = verb_getopt(argc, argv, cmd_export_options)) != -1;) {
		if (parse_option(id, &arguments) != VERB_SUCCESS)
			return VERB_USAGE;
	}
	if (optind == argc)
		return verb_usage_error(VERB, "SOURCE is missing: docker-archive:FILE[:REF], oci:DIR[:REF], "
					      "oci-archive:FILE[:REF], docker-daemon:REF, or - for standard input");
	if (optind + 1 < argc)
		return verb_usage_error(VERB, "there is one SOURCE too many: %s", argv[optind + 1]);
	return run(argv[optind], &arguments);
}
