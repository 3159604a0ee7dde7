/* imgfs ls: the images of the store. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "fs/format/manifest.h"
#include "tools/cmd/cmd-store.h"
#include "tools/cmd/output.h"
#include "tools/cmd/verbs.h"
#include "tools/export/digest-set.h"

#define VERB "ls"

enum { OPTION_JSON = VERB_OPTION_LONG };

const VerbOption cmd_ls_options[] = {
	CMD_STORE_OPTION,
	{ "json", OPTION_JSON, NULL, "print a JSON array" },
	{ 0 },
};

/* What one line shows. */
typedef struct Row {
	char *name;
	Digest manifest;
	Digest config;
	uint64_t tar_size, stored_size;
	size_t layer_count;
	time_t changed;
} Row;

typedef struct Listing {
	Store *store;
	Row *rows;
	size_t count, capacity;
	DigestSet blobs; /* of all layers */
} Listing;

static void listing_done(Listing *listing)
{
	for (size_t i = 0; i < listing->count; i++)
		free(listing->rows[i].name);
	free(listing->rows);
	digest_set_done(&listing->blobs);
}

static int fill_row(Listing *listing, const char *json, size_t size, Row *row, Error *error)
{
	Manifest manifest = { 0 };
	int r = digest_of(json, size, &row->manifest);
	if (r == 0)
		r = manifest_parse(json, size, &manifest, error);
	row->config = manifest.config;
	row->layer_count = manifest.layer_count;
	row->stored_size = size + manifest.config_size;
	for (size_t i = 0; i < manifest.layer_count && r == 0; i++) {
		row->tar_size += manifest.layers[i].tar_size;
		row->stored_size += manifest.layers[i].blob_size;
		r = digest_set_add(&listing->blobs, &manifest.layers[i].blob);
	}
	if (r == 0)
		r = digest_set_add(&listing->blobs, &row->config);
	if (r == 0)
		r = digest_set_add(&listing->blobs, &row->manifest);
	manifest_done(&manifest);
	return r;
}

static int add_row(Listing *listing, const Row *row)
{
	if (listing->count == listing->capacity) {
		size_t capacity = listing->capacity ? 2 * listing->capacity : 32;
		Row *rows = reallocarray(listing->rows, capacity, sizeof(*rows));
		if (!rows)
			return -ENOMEM;
		listing->rows = rows;
		listing->capacity = capacity;
	}
	listing->rows[listing->count++] = *row;
	return 0;
}

/* A tag whose manifest is damaged costs its own line only. */
static int on_tag(void *arg, const char *name, const char *tag, time_t changed)
{
	Listing *listing = arg;
	_cleanup_free_ char *json = NULL;
	_cleanup_free_ char *full = NULL;
	size_t size;
	Row row = { .changed = changed };
	Error error = { 0 };
	if (asprintf(&full, "%s:%s", name, tag) < 0) {
		full = NULL;
		return -ENOMEM;
	}
	int r = store_tag_get(listing->store, name, tag, &json, &size);
	if (r == -ENOENT) /* removed meanwhile */
		return 0;
	if (r == 0)
		r = fill_row(listing, json, size, &row, &error);
	if (r == -ENOMEM)
		return r;
	if (r < 0) {
		fprintf(stderr, "imgfs ls: %s: its manifest cannot be read (%s); export the image again\n", full,
			error_text(&error, r));
		return 0;
	}
	row.name = full;
	r = add_row(listing, &row);
	if (r == 0)
		full = NULL;
	return r;
}

static int print_json(const Listing *listing)
{
	json_t *array = json_array();
	for (size_t i = 0; i < listing->count; i++) {
		char manifest[DIGEST_TEXT_SIZE], config[DIGEST_TEXT_SIZE];
		const Row *row = &listing->rows[i];
		json_t *object =
			json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:I}", "name", row->name, "manifest",
				  digest_text(&row->manifest, manifest), "imageID", digest_text(&row->config, config),
				  "layers", (json_int_t)row->layer_count, "tarBytes", (json_int_t)row->tar_size,
				  "storedBytes", (json_int_t)row->stored_size, "changed", (json_int_t)row->changed);
		if (json_array_append_new(array, object) < 0) {
			json_decref(array);
			return -ENOMEM;
		}
	}
	return output_json(array);
}

/* What the listed images take together, each object counted once. */
static uint64_t stored_together(Listing *listing)
{
	uint64_t total = 0;
	digest_set_seal(&listing->blobs);
	for (size_t i = 0; i < listing->blobs.count; i++) {
		_cleanup_close_ int fd = -1;
		uint64_t size;
		if (store_blob_open(listing->store, &listing->blobs.items[i], &fd, &size) == 0)
			total += size;
	}
	return total;
}

static void print_text(Listing *listing)
{
	char manifest[DIGEST_TEXT_SIZE], config[DIGEST_TEXT_SIZE], tar[OUTPUT_SIZE_TEXT], stored[OUTPUT_SIZE_TEXT],
		age[OUTPUT_AGE_TEXT];
	time_t now = time(NULL);
	int width = (int)strlen("NAME");
	for (size_t i = 0; i < listing->count; i++) {
		int length = (int)strlen(listing->rows[i].name);
		width = length > width ? length : width;
	}
	if (listing->count == 0)
		return;
	printf("%-*s  %-19s  %-19s %6s %8s %8s  %s\n", width, "NAME", "MANIFEST", "IMAGE ID", "LAYERS", "TAR", "STORED",
	       "AGE");
	for (size_t i = 0; i < listing->count; i++) {
		const Row *row = &listing->rows[i];
		printf("%-*s  %.19s  %.19s %6zu %8s %8s  %s\n", width, row->name, digest_text(&row->manifest, manifest),
		       digest_text(&row->config, config), row->layer_count, output_size(row->tar_size, tar),
		       output_size(row->stored_size, stored), output_age(row->changed, now, age));
	}
	printf("total: %zu image%s, %s stored, what they share counted once\n", listing->count,
	       listing->count == 1 ? "" : "s", output_size(stored_together(listing), stored));
}

static int run(const char *path, bool json)
{
	_cleanup_(store_free_p) Store *store = NULL;
	_cleanup_(listing_done) Listing listing = { 0 };
	Error error = { 0 };
	int r = cmd_store_open(path, false, &store, &error);
	if (r < 0)
		return verb_fail(VERB, r, &error);
	listing.store = store;
	r = store_tag_each(store, on_tag, &listing);
	if (r < 0) {
		(void)error_set(&error, r, "store %s: cannot list its images: %s", store_path(store),
				error_text(NULL, r));
		return verb_fail(VERB, r, &error);
	}
	if (json)
		r = print_json(&listing);
	else
		print_text(&listing);
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
