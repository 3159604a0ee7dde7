/* imgfs import: an image of the store back into a form that every engine loads. */
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "tools/cmd/cmd-store.h"
#include "tools/cmd/output.h"
#include "tools/cmd/verbs.h"
#include "tools/export/image-import.h"
#include "tools/export/import-file.h"
#include "tools/export/store-lock.h"

#define VERB           "import"
#define DOCKER_ARCHIVE "docker-archive:"
#define OCI_LAYOUT     "oci:"

const VerbOption cmd_import_options[] = {
	CMD_STORE_OPTION,
	{ "tag", 't', "NAME[:TAG]", "what a docker archive calls the image; default: its name in the store" },
	{ "quiet", 'q', NULL, "print nothing but errors" },
	{ 0 },
};

typedef struct Arguments {
	const char *store;
	const char *reference;
	bool has_tag;
	Reference tag;
	bool quiet;
	bool oci;
	char *path; /* "-": standard output */
	char *name; /* in an OCI layout; NULL: the image's tag */
} Arguments;

typedef struct Transfer {
	OutputProgress bar;
	uint64_t written;
} Transfer;

static void on_progress(void *arg, uint64_t bytes)
{
	Transfer *transfer = arg;
	transfer->written += bytes;
	output_progress_update(&transfer->bar, transfer->written);
}

static int write_archive(Store *store, const StoreImage *image, const ImportOptions *options, const char *path,
			 Error *error)
{
	_cleanup_(import_file_done) ImportFile file = IMPORT_FILE_NULL;
	if (strcmp(path, "-") == 0)
		return import_docker_archive(store, image, options, STDOUT_FILENO, error);
	int r = import_file_open(AT_FDCWD, path, &file, error);
	if (r == 0)
		r = import_docker_archive(store, image, options, file.fd, error);
	return r == 0 ? import_file_publish(&file, error) : r;
}

/* What the image is called where it goes; malloc'ed. Errors: -ENOMEM; NULL is an image without a name. */
static int choose_name(const Arguments *arguments, const StoreImage *image, char **ret_name)
{
	const Reference *reference = arguments->has_tag ? &arguments->tag : &image->reference;
	char *name = NULL;
	int length = 0;
	if (arguments->oci && (arguments->name || reference->tag[0]))
		length = asprintf(&name, "%s", arguments->name ?: reference->tag);
	else if (!arguments->oci && reference->name[0] && reference->tag[0])
		length = asprintf(&name, "%s:%s", reference->name, reference->tag);
	if (length < 0)
		return -ENOMEM;
	*ret_name = name;
	return 0;
}

static int import_image(Store *store, const StoreImage *image, const Arguments *arguments, Error *error)
{
	Transfer transfer = { 0 };
	_cleanup_free_ char *name = NULL;
	uint64_t total = 0;
	int r = choose_name(arguments, image, &name);
	if (r < 0)
		return r;
	for (size_t i = 0; i < image->manifest.layer_count; i++)
		total += image->manifest.layers[i].tar_size;
	ImportOptions options = { .name = name, .progress = on_progress, .progress_arg = &transfer };
	output_progress_start(&transfer.bar, "importing", total, arguments->quiet);
	r = arguments->oci ? import_oci_layout(store, image, &options, arguments->path, error)
			   : write_archive(store, image, &options, arguments->path, error);
	output_progress_end(&transfer.bar);
	if (r < 0 || arguments->quiet || strcmp(arguments->path, "-") == 0)
		return r;
	char text[DIGEST_TEXT_SIZE], size[OUTPUT_SIZE_TEXT];
	printf("%s%s%s\n", arguments->path, name ? ": " : "", name ?: "");
	printf("  manifest  %s\n", digest_text(&image->digest, text));
	printf("  image ID  %s\n", digest_text(&image->manifest.config, text));
	printf("  layers    %zu, %s of tar\n", image->manifest.layer_count, output_size(transfer.written, size));
	return 0;
}

static int run(const Arguments *arguments)
{
	_cleanup_(store_free_p) Store *store = NULL;
	_cleanup_close_ int hold = -1;
	_cleanup_(store_image_done) StoreImage image = { 0 };
	Error error = { 0 };
	int r = cmd_store_open(arguments->store, false, &store, &error);
	if (r == 0)
		r = store_hold(store, &hold, &error);
	if (r == 0)
		r = store_image_open(store, arguments->reference, &image, &error);
	if (r == 0)
		r = import_image(store, &image, arguments, &error);
	return r < 0 ? verb_fail(VERB, r, &error) : VERB_SUCCESS;
}

/* DIR[:TAG]: a directory that exists may hold colons; else the last colon stands before the tag. */
static int parse_layout(const char *text, Arguments *arguments)
{
	arguments->path = strdup(text);
	if (!arguments->path)
		return verb_fail(VERB, -ENOMEM, NULL);
	char *colon = strrchr(arguments->path, ':');
	if (!colon || strchr(colon, '/') || access(arguments->path, F_OK) == 0)
		return VERB_SUCCESS;
	if (!reference_tag_valid(colon + 1))
		return verb_usage_error(VERB, "%s: \"%s\" is no tag", text, colon + 1);
	*colon = '\0';
	arguments->name = strdup(colon + 1);
	return arguments->name ? VERB_SUCCESS : verb_fail(VERB, -ENOMEM, NULL);
}

static int parse_destination(const char *text, Arguments *arguments)
{
	if (strncmp(text, OCI_LAYOUT, strlen(OCI_LAYOUT)) == 0) {
		arguments->oci = true;
		int status = parse_layout(text + strlen(OCI_LAYOUT), arguments);
		if (status != VERB_SUCCESS)
			return status;
	} else if (strncmp(text, DOCKER_ARCHIVE, strlen(DOCKER_ARCHIVE)) == 0) {
		arguments->path = strdup(text + strlen(DOCKER_ARCHIVE));
		if (!arguments->path)
			return verb_fail(VERB, -ENOMEM, NULL);
	}
	if (!arguments->path || !arguments->path[0])
		return verb_usage_error(
			VERB,
			"\"%s\" is no place for an image; the forms are docker-archive:FILE (- is standard "
			"output) and oci:DIR[:TAG]",
			text);
	if (!arguments->oci && strcmp(arguments->path, "-") == 0 && isatty(STDOUT_FILENO))
		return verb_usage_error(
			VERB, "standard output is a terminal; pipe it: imgfs import %s docker-archive:- | docker load",
			arguments->reference);
	return VERB_SUCCESS;
}

static int parse(int argc, char **argv, Arguments *arguments)
{
	Error error = { 0 };
	Reference reference;
	for (int id; (id = verb_getopt(argc, argv, cmd_import_options)) != -1;) {
		if (id == 's')
			arguments->store = optarg;
		else if (id == 'q')
			arguments->quiet = true;
		else if (id != 't')
			return VERB_USAGE;
		else if (store_image_parse(optarg, &arguments->tag, &error) < 0 || arguments->tag.has_digest)
			return verb_usage_error(VERB, "--tag %s: it wants NAME[:TAG]", optarg);
		else
			arguments->has_tag = true;
	}
	if (argc - optind != 2)
		return verb_usage_error(VERB,
					"wanted are the name of an image, and docker-archive:FILE or oci:DIR[:TAG]");
	arguments->reference = argv[optind];
	if (store_image_parse(argv[optind], &reference, &error) < 0)
		return verb_usage_error(VERB, "%s", error_text(&error, -EINVAL));
	return parse_destination(argv[optind + 1], arguments);
}

int cmd_import(int argc, char **argv)
{
	Arguments arguments = { 0 };
	int status = parse(argc, argv, &arguments);
	if (status == VERB_SUCCESS)
		status = run(&arguments);
	free(arguments.path);
	free(arguments.name);
	return status;
}
