/* imgfs ls: the images of the store. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "fs/format/manifest.h"
#include "tools/cmd/cmd-store.h"
#include "tools/cmd/output.h"
#include "tools/cmd/verbs.h"

#define VERB "ls"

enum { OPTION_JSON = VERB_OPTION_LONG };

const VerbOption cmd_ls_options[] = {
	CMD_STORE_OPTION,
	{ "json", OPTION_JSON, NULL, "print a JSON array" },
	{ 0 },
};

typedef struct Listing {
	Store *store;
	json_t *array; /* NULL: text */
	time_t now;
	size_t count;
} Listing;

/* What one line shows. */
typedef struct Row {
	char name[512];
	Digest manifest;
	Digest config;
	uint64_t tar_size, blob_size;
	size_t layer_count;
	time_t changed;
} Row;

static int print_row_json(Listing *listing, const Row *row)
{
	char manifest[DIGEST_TEXT_SIZE], config[DIGEST_TEXT_SIZE];
	json_t *object = json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:I}", "name", row->name, "manifest",
				   digest_text(&row->manifest, manifest), "imageID", digest_text(&row->config, config),
				   "layers", (json_int_t)row->layer_count, "tarBytes", (json_int_t)row->tar_size,
				   "blobBytes", (json_int_t)row->blob_size, "changed", (json_int_t)row->changed);
	return json_array_append_new(listing->array, object) < 0 ? -ENOMEM : 0;
}

static void print_row_text(const Listing *listing, const Row *row)
{
	char manifest[DIGEST_TEXT_SIZE], size[OUTPUT_SIZE_TEXT], age[OUTPUT_AGE_TEXT];
	printf("%-36s %.19s %8s %6zu  %s ago\n", row->name, digest_text(&row->manifest, manifest),
	       output_size(row->blob_size, size), row->layer_count, output_age(row->changed, listing->now, age));
}

/* A tag's manifest; one that is damaged costs its own line only. */
static int read_row(Store *store, const char *name, const char *tag, Row *row)
{
	_cleanup_free_ char *json = NULL;
	size_t size;
	Manifest manifest;
	Error error = { 0 };
	(void)snprintf(row->name, sizeof(row->name), "%s:%s", name, tag);
	int r = store_tag_get(store, name, tag, &json, &size);
	if (r == 0)
		r = digest_of(json, size, &row->manifest);
	if (r == 0)
		r = manifest_parse(json, size, &manifest, &error);
	if (r < 0) {
		fprintf(stderr, "imgfs ls: %s: its manifest cannot be read (%s); export the image again\n", row->name,
			error_text(&error, r));
		return r;
	}
	row->config = manifest.config;
	row->layer_count = manifest.layer_count;
	for (size_t i = 0; i < manifest.layer_count; i++) {
		row->tar_size += manifest.layers[i].tar_size;
		row->blob_size += manifest.layers[i].blob_size;
	}
	manifest_done(&manifest);
	return 0;
}

static int on_tag(void *arg, const char *name, const char *tag, time_t changed)
{
	Listing *listing = arg;
	Row row = { .changed = changed };
	if (read_row(listing->store, name, tag, &row) < 0)
		return 0;
	if (listing->array)
		return print_row_json(listing, &row);
	if (listing->count++ == 0)
		printf("%-36s %-19s %8s %6s  %s\n", "NAME", "MANIFEST", "SIZE", "LAYERS", "EXPORTED");
	print_row_text(listing, &row);
	return 0;
}

static int run(const char *path, bool json)
{
	_cleanup_(store_free_p) Store *store = NULL;
	Error error = { 0 };
	int r = cmd_store_open(path, false, &store, &error);
	if (r < 0)
		return verb_fail(VERB, r, &error);
	Listing listing = { .store = store, .now = time(NULL) };
	if (json && !(listing.array = json_array()))
		return verb_fail(VERB, -ENOMEM, NULL);
	r = store_tag_each(store, on_tag, &listing);
	if (r < 0) {
		json_decref(listing.array);
		(void)error_set(&error, r, "store %s: cannot list its images: %s", store_path(store),
				error_text(NULL, r));
		return verb_fail(VERB, r, &error);
	}
	if (json)
		r = output_json(listing.array);
	return r < 0 ? verb_fail(VERB, r, NULL) : VERB_SUCCESS;
}

int cmd_ls(int argc, char **argv)
{
	const char *path = NULL;
	bool json = false;
	for (int id; (id = verb_getopt(argc, argv, cmd_ls_options)) != -1;) {
		if (id == 's')
			path = optarg;
		else if (id == OPTION_JSON)
			json = true;
		else
			return VERB_USAGE;
	}
	if (optind < argc)
		return verb_usage_error(VERB, "it takes no argument such as %s", argv[optind]);
	return run(path, json);
}
