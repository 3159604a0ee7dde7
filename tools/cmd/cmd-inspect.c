/* imgfs inspect: what an image of the store is made of; an index as text, and back. */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "fs/format/chunk-table.h"
#include "fs/format/reference.h"
#include "fs/format/tree.h"
#include "tools/cmd/cmd-store.h"
#include "tools/cmd/inspect-index.h"
#include "tools/cmd/output.h"
#include "tools/cmd/verbs.h"

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

/* The bytes of the manifest that `text` names: NAME[:TAG][@DIGEST], or a digest alone. */
static int read_manifest(Store *store, const char *text, char **ret_json, size_t *ret_size, Error *error)
{
	Reference reference = { 0 };
	int r = 0;
	if (digest_from_text(text, &reference.digest) == 0)
		reference.has_digest = true;
	else
		r = reference_parse_local(text, &reference, error);
	if (r < 0)
		return r;
	r = reference.has_digest ? inspect_read_blob(store, &reference.digest, MANIFEST_SIZE_MAX, ret_json, ret_size)
				 : store_tag_get(store, reference.name, reference.tag, ret_json, ret_size);
	if (r == -ENOENT)
		return error_set(error, r, "store %s does not hold %s; `imgfs ls` lists what it holds",
				 store_path(store), text);
	if (r < 0)
		return error_set(error, r, "store %s: the manifest of %s cannot be read: %s", store_path(store), text,
				 error_text(NULL, r));
	return 0;
}

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

static void print_layer(size_t number, const ManifestLayer *layer, const LayerFacts *facts)
{
	char text[DIGEST_TEXT_SIZE], tar[OUTPUT_SIZE_TEXT], blob[OUTPUT_SIZE_TEXT], index[OUTPUT_SIZE_TEXT],
		image[OUTPUT_SIZE_TEXT];
	printf("layer %zu\n", number);
	printf("  diffID    %s\n", digest_text(&layer->diff_id, text));
	printf("  blob      %s\n", digest_text(&layer->blob, text));
	printf("  sizes     %s of tar, %s of blob, %s of index (%s unpacked)\n", output_size(layer->tar_size, tar),
	       output_size(layer->blob_size, blob), output_size(layer->index_size, index),
	       output_size(facts->image_size, image));
	printf("  contents  %" PRIu32 " inodes, %" PRIu32 " chunks\n", facts->inodes, facts->chunks);
}

/* One layer after the other, onto the terminal or into `layers`. */
static int show_layers(Store *store, const Manifest *manifest, json_t *layers, Error *error)
{
	for (size_t i = 0; i < manifest->layer_count; i++) {
		LayerFacts facts;
		int r = read_facts(store, &manifest->layers[i], &facts, error);
		if (r < 0)
			return r;
		if (!layers)
			print_layer(i + 1, &manifest->layers[i], &facts);
		else if (json_array_append_new(layers, layer_json(&manifest->layers[i], &facts)) < 0)
			return error_set(error, -ENOMEM, "out of memory for JSON");
	}
	return 0;
}

static int show_text(Store *store, const Digest *digest, const Manifest *manifest, Error *error)
{
	char text[DIGEST_TEXT_SIZE];
	printf("manifest    %s\n", digest_text(digest, text));
	printf("image ID    %s\n", digest_text(&manifest->config, text));
	return show_layers(store, manifest, NULL, error);
}

static int show_json(Store *store, const Digest *digest, const Manifest *manifest, Error *error)
{
	char manifest_text[DIGEST_TEXT_SIZE], config[DIGEST_TEXT_SIZE];
	json_t *layers = json_array();
	int r = layers ? show_layers(store, manifest, layers, error) : -ENOMEM;
	if (r < 0) {
		json_decref(layers);
		return r;
	}
	return output_json(json_pack("{s:s, s:s, s:I, s:o}", "manifest", digest_text(digest, manifest_text), "imageID",
				     digest_text(&manifest->config, config), "configBytes",
				     (json_int_t)manifest->config_size, "layers", layers));
}

static int show(Store *store, const Arguments *arguments, Error *error)
{
	_cleanup_free_ char *json = NULL;
	size_t size;
	Manifest manifest = { 0 };
	Digest digest;
	int r = read_manifest(store, arguments->reference, &json, &size, error);
	if (r == 0)
		r = digest_of(json, size, &digest);
	if (r == 0)
		r = manifest_parse(json, size, &manifest, error);
	if (r < 0)
		return r;
	r = arguments->json ? show_json(store, &digest, &manifest, error) : show_text(store, &digest, &manifest, error);
	manifest_done(&manifest);
	return r;
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
	if (operands == 1)
		arguments->reference = argv[optind];
	return VERB_SUCCESS;
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
