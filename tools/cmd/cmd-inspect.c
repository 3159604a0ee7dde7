/* imgfs inspect: what an image of the store is made of; an index as text, and back. */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "fs/format/chunk-table.h"
#include "fs/format/tree.h"
#include "tools/cmd/cmd-store.h"
#include "tools/cmd/inspect-config.h"
#include "tools/cmd/inspect-index.h"
#include "tools/cmd/output.h"
#include "tools/cmd/verbs.h"
#include "tools/export/store-image.h"

#define VERB "inspect"

enum { OPTION_JSON = VERB_OPTION_LONG, OPTION_DUMP, OPTION_LOAD };

const VerbOption cmd_inspect_options[] = {
	CMD_STORE_OPTION,
	{ "json", OPTION_JSON, NULL, "print one JSON object" },
	{ "dump", OPTION_DUMP, "FILE|DIGEST", "print the index of a blob (or an index image) as text" },
	{ "load", OPTION_LOAD, "FILE", "write the index image made from such text to standard output" },
	{ 0 },
};

typedef struct Arguments {
	const char *store;
	const char *dump;
	const char *load;
	const char *reference;
	bool json;
} Arguments;

typedef struct LayerFacts {
	uint32_t chunks;
	uint32_t inodes;
	uint64_t image_size; /* of the index, decompressed */
} LayerFacts;

static int read_facts(Store *store, const ManifestLayer *layer, LayerFacts *ret_facts, Error *error)
{
	_cleanup_free_ uint8_t *data = NULL;
	size_t size;
	Image image;
	ChunkTable table;
	Tree tree;
	int r = inspect_load_blob(store, &layer->blob, &data, &size, error);
	if (r == 0)
		r = image_open(data, size, &image, error);
	if (r == 0)
		r = chunk_table_open(&image, &table, error);
	if (r == 0)
		r = tree_open(&image, &tree, error);
	if (r < 0) {
		char hex[DIGEST_HEX_SIZE];
		return error_prefix(error, r, "blob %s", digest_hex(&layer->blob, hex));
	}
	*ret_facts = (LayerFacts){ .chunks = table.count, .inodes = tree.inode_count, .image_size = size };
	return 0;
}

static json_t *layer_json(const ManifestLayer *layer, const LayerFacts *facts)
{
	char diff_id[DIGEST_TEXT_SIZE], blob[DIGEST_TEXT_SIZE], index[DIGEST_TEXT_SIZE];
	return json_pack("{s:s, s:I, s:s, s:I, s:s, s:I, s:I, s:I, s:I, s:I}", "diffID",
			 digest_text(&layer->diff_id, diff_id), "tarBytes", (json_int_t)layer->tar_size, "blob",
			 digest_text(&layer->blob, blob), "blobBytes", (json_int_t)layer->blob_size, "index",
			 digest_text(&layer->index, index), "indexOffset", (json_int_t)layer->index_offset,
			 "indexBytes", (json_int_t)layer->index_size, "indexImageBytes", (json_int_t)facts->image_size,
			 "chunks", (json_int_t)facts->chunks, "inodes", (json_int_t)facts->inodes);
}

static void print_layer(size_t number, const ManifestLayer *layer, const LayerFacts *facts, const char *made_by)
{
	char text[DIGEST_TEXT_SIZE], tar[OUTPUT_SIZE_TEXT], blob[OUTPUT_SIZE_TEXT], index[OUTPUT_SIZE_TEXT],
		image[OUTPUT_SIZE_TEXT];
	printf("layer %zu\n", number);
	if (made_by) {
		char shown[101];
		printf("  made by   ");
		(void)snprintf(shown, sizeof(shown), "%s", made_by);
		(void)output_text(stdout, shown);
		printf("%s\n", strlen(made_by) >= sizeof(shown) ? "..." : "");
	}
	printf("  diffID    %s\n", digest_text(&layer->diff_id, text));
	printf("  blob      %s\n", digest_text(&layer->blob, text));
	printf("  sizes     %s of tar, %s of blob, %s of index (%s unpacked)\n", output_size(layer->tar_size, tar),
	       output_size(layer->blob_size, blob), output_size(layer->index_size, index),
	       output_size(facts->image_size, image));
	printf("  contents  %" PRIu32 " inodes, %" PRIu32 " chunks\n", facts->inodes, facts->chunks);
}

/* One layer after the other, onto the terminal or into `layers`. */
static int show_layers(Store *store, const Manifest *manifest, const json_t *config, json_t *layers, Error *error)
{
	for (size_t i = 0; i < manifest->layer_count; i++) {
		LayerFacts facts;
		int r = read_facts(store, &manifest->layers[i], &facts, error);
		if (r < 0)
			return r;
		if (!layers)
			print_layer(i + 1, &manifest->layers[i], &facts, inspect_created_by(config, i));
		else if (json_array_append_new(layers, layer_json(&manifest->layers[i], &facts)) < 0)
			return error_set(error, -ENOMEM, "out of memory for JSON");
	}
	return 0;
}

static int show_text(Store *store, const StoreImage *image, const json_t *names, const json_t *config, Error *error)
{
	char text[DIGEST_TEXT_SIZE];
	printf("manifest    %s\n", digest_text(&image->digest, text));
	printf("image ID    %s\n", digest_text(&image->manifest.config, text));
	inspect_print_config(names, config);
	return show_layers(store, &image->manifest, config, NULL, error);
}

static int show_json(Store *store, const StoreImage *image, json_t *names, json_t *config, Error *error)
{
	const Manifest *manifest = &image->manifest;
	char manifest_text[DIGEST_TEXT_SIZE], config_text[DIGEST_TEXT_SIZE];
	json_auto_t *layers = json_array();
	int r = layers ? show_layers(store, manifest, config, layers, error) : -ENOMEM;
	if (r < 0)
		return r;
	return output_json(json_pack("{s:s, s:s, s:O, s:I, s:O, s:O}", "manifest",
				     digest_text(&image->digest, manifest_text), "imageID",
				     digest_text(&manifest->config, config_text), "names", names, "configBytes",
				     (json_int_t)manifest->config_size, "config", config, "layers", layers));
}

static int show(Store *store, const Arguments *arguments, Error *error)
{
	_cleanup_(store_image_done) StoreImage image = { 0 };
	json_auto_t *names = NULL;
	json_auto_t *config = NULL;
	int r = store_image_open(store, arguments->reference, &image, error);
	if (r == 0)
		r = inspect_names(store, &image.digest, &names, error);
	if (r == 0)
		r = inspect_config(store, &image.manifest, &config, error);
	if (r < 0)
		return r;
	return arguments->json ? show_json(store, &image, names, config, error)
			       : show_text(store, &image, names, config, error);
}

static int parse(int argc, char **argv, Arguments *arguments)
{
	for (int id; (id = verb_getopt(argc, argv, cmd_inspect_options)) != -1;) {
		if (id == 's')
			arguments->store = optarg;
		else if (id == OPTION_JSON)
			arguments->json = true;
		else if (id == OPTION_DUMP)
			arguments->dump = optarg;
		else if (id == OPTION_LOAD)
			arguments->load = optarg;
		else
			return VERB_USAGE;
	}
	int operands = argc - optind;
	if ((arguments->dump != NULL) + (arguments->load != NULL) + operands != 1)
		return verb_usage_error(VERB, "wanted is one of NAME[:TAG], --dump and --load");
	if (operands == 0)
		return VERB_SUCCESS;
	Error error = { 0 };
	Reference reference;
	arguments->reference = argv[optind];
	return store_image_parse(arguments->reference, &reference, &error) < 0
		       ? verb_usage_error(VERB, "%s", error_text(&error, -EINVAL))
		       : VERB_SUCCESS;
}

int cmd_inspect(int argc, char **argv)
{
	Arguments arguments = { 0 };
	_cleanup_(store_free_p) Store *store = NULL;
	Error error = { 0 };
	Digest digest;
	if (parse(argc, argv, &arguments) != VERB_SUCCESS)
		return VERB_USAGE;
	/* Files need no store. */
	bool wants_store = arguments.reference || (arguments.dump && digest_from_text(arguments.dump, &digest) == 0);
	int r = wants_store ? cmd_store_open(arguments.store, false, &store, &error) : 0;
	if (r < 0)
		return verb_fail(VERB, r, &error);
	if (arguments.load)
		r = inspect_load(arguments.load, stdout, &error);
	else if (arguments.dump)
		r = inspect_dump(store, arguments.dump, stdout, &error);
	else
		r = show(store, &arguments, &error);
	return r < 0 ? verb_fail(VERB, r, &error) : VERB_SUCCESS;
}
