/* imgfs diff: what differs between two images, and what an update from the first to the second moves. */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "tools/cmd/cmd-store.h"
#include "tools/cmd/output.h"
#include "tools/cmd/verbs.h"
#include "tools/export/image-diff.h"
#include "tools/export/store-lock.h"

#define VERB  "diff"
#define LINES 20 /* of a list, without --all */

enum { OPTION_JSON = VERB_OPTION_LONG, OPTION_ALL };

const VerbOption cmd_diff_options[] = {
	CMD_STORE_OPTION,
	{ "all", OPTION_ALL, NULL, "list every file, not only what moves most" },
	{ "json", OPTION_JSON, NULL, "print one JSON object" },
	{ 0 },
};

typedef struct Arguments {
	const char *store;
	const char *left, *right;
	bool all;
	bool json;
} Arguments;

static const char *kind_name(DiffKind kind)
{
	switch (kind) {
	case DIFF_ADDED:
		return "added";
	case DIFF_REMOVED:
		return "removed";
	case DIFF_CHANGED:
		return "changed";
	case DIFF_METADATA:
		return "metadata";
	case DIFF_SAME:
		break;
	}
	return "same";
}

static const struct {
	unsigned field;
	const char *name;
} fields[] = {
	{ FILE_MODE, "mode" },
	{ FILE_OWNER, "owner" },
	{ FILE_TIME, "time" },
	{ FILE_XATTRS, "xattrs" },
};

static json_t *fields_json(unsigned set)
{
	json_t *array = json_array();
	for (size_t i = 0; i < ELEMENTS(fields); i++) {
		if (set & fields[i].field && json_array_append_new(array, json_string(fields[i].name)) < 0) {
			json_decref(array);
			return NULL;
		}
	}
	return array;
}

static json_t *entry_json(const DiffEntry *entry)
{
	json_t *object = json_pack("{s:o, s:s, s:I, s:I, s:I, s:I, s:o}", "path", output_path_json(entry->path), "kind",
				   kind_name(entry->kind), "oldBytes", (json_int_t)entry->old_size, "newBytes",
				   (json_int_t)entry->new_size, "movedBytes", (json_int_t)entry->moved, "wastedBytes",
				   (json_int_t)entry->wasted, "metadata", fields_json(entry->fields));
	if (object && entry->is_zip &&
	    json_object_set_new(object, "zip",
				json_pack("{s:I, s:I, s:b, s:b}", "entries", (json_int_t)entry->zip.entries, "differ",
					  (json_int_t)entry->zip.differ, "times", entry->zip.times_differ, "layout",
					  entry->zip.layout_differs)) < 0) {
		json_decref(object);
		return NULL;
	}
	return object;
}

static int print_json(const ImageDiff *diff)
{
	json_auto_t *files = json_array();
	for (size_t i = 0; i < diff->count; i++) {
		if (json_array_append_new(files, entry_json(&diff->entries[i])) < 0)
			return -ENOMEM;
	}
	uint64_t total = diff->frames + diff->indexes + diff->documents;
	return output_json(json_pack("{s:{s:I, s:I, s:I, s:I, s:I, s:I, s:I}, s:O}", "moved", "total",
				     (json_int_t)total, "frames", (json_int_t)diff->frames, "indexes",
				     (json_int_t)diff->indexes, "documents", (json_int_t)diff->documents, "wasted",
				     (json_int_t)diff->wasted, "otherFrames", (json_int_t)diff->other, "wholeLayers",
				     (json_int_t)diff->layers, "files", files));
}

static void print_fields(unsigned set)
{
	const char *before = "   ";
	for (size_t i = 0; i < ELEMENTS(fields); i++) {
		if (set & fields[i].field) {
			printf("%s%s", before, fields[i].name);
			before = ", ";
		}
	}
}

static void print_entry(const DiffEntry *entry)
{
	char moved[OUTPUT_SIZE_TEXT], size[OUTPUT_SIZE_TEXT];
	static const char signs[] = {
		[DIFF_ADDED] = '+', [DIFF_REMOVED] = '-', [DIFF_CHANGED] = '~', [DIFF_METADATA] = 'm', [DIFF_SAME] = '='
	};
	bool removed = entry->kind == DIFF_REMOVED;
	printf("  %c %8s %8s  ", signs[entry->kind], entry->moved ? output_size(entry->moved, moved) : "",
	       S_ISREG(entry->mode) ? output_size(removed ? entry->old_size : entry->new_size, size) : "");
	(void)output_text(stdout, entry->path[0] ? entry->path : "/");
	if (S_ISDIR(entry->mode) && entry->path[0])
		putchar('/');
	if (entry->is_zip)
		printf("   zip: %" PRIu32 " of %" PRIu32 " entries differ", entry->zip.differ, entry->zip.entries);
	if (entry->kind == DIFF_METADATA)
		print_fields(entry->fields);
	putchar('\n');
}

typedef bool Chooser(const DiffEntry *entry);

/* The entries that `wanted` chooses, the first of them unless all are wanted. */
static void print_entries(const ImageDiff *diff, Chooser *wanted, bool all)
{
	size_t shown = 0, left = 0;
	for (size_t i = 0; i < diff->count; i++) {
		const DiffEntry *entry = &diff->entries[i];
		if (!wanted(entry))
			continue;
		if (all || shown < LINES) {
			print_entry(entry);
			shown++;
		} else {
			left++;
		}
	}
	if (left > 0)
		printf("    and %zu more; --all lists them\n", left);
}

static size_t count_entries(const ImageDiff *diff, Chooser *wanted, uint64_t *ret_wasted)
{
	size_t count = 0;
	*ret_wasted = 0;
	for (size_t i = 0; i < diff->count; i++) {
		if (!wanted(&diff->entries[i]))
			continue;
		count++;
		*ret_wasted += diff->entries[i].wasted;
	}
	return count;
}

static bool is_difference(const DiffEntry *entry)
{
	return entry->kind <= DIFF_CHANGED;
}

static bool is_metadata(const DiffEntry *entry)
{
	return entry->kind == DIFF_METADATA;
}

static bool is_same_archive(const DiffEntry *entry)
{
	return entry->wasted > 0 && entry->kind == DIFF_CHANGED;
}

static bool is_same_content(const DiffEntry *entry)
{
	return entry->wasted > 0 && entry->kind != DIFF_CHANGED;
}

static void print_waste(const ImageDiff *diff, bool all)
{
	char text[OUTPUT_SIZE_TEXT];
	uint64_t wasted;
	size_t count = count_entries(diff, is_same_archive, &wasted);
	if (diff->wasted == 0)
		return;
	printf("moved for nothing: %s\n", output_size(diff->wasted, text));
	if (count > 0) {
		printf("  %s in %zu zip archive%s (jars) with the same entries but for few or none, by name, size and "
		       "CRC: their "
		       "times,\n    order, directories or compression differ\n",
		       output_size(wasted, text), count, count == 1 ? "" : "s");
		print_entries(diff, is_same_archive, all);
		printf("    make archives reproducible: jar --date=..., sorted lists of files; in Gradle "
		       "preserveFileTimestamps = "
		       "false\n    and reproducibleFileOrder = true; in Maven project.build.outputTimestamp\n");
	}
	count = count_entries(diff, is_same_content, &wasted);
	if (count > 0) {
		printf("  %s in %zu file%s of the same content: they were cut otherwise, or share a chunk with what "
		       "changed\n",
		       output_size(wasted, text), count, count == 1 ? "" : "s");
		print_entries(diff, is_same_content, all);
		printf("    keep the times and the order of files in a layer as they were where the files are the "
		       "same\n");
	}
}

static void print_text(const ImageDiff *diff, const Arguments *arguments)
{
	char total[OUTPUT_SIZE_TEXT], frames[OUTPUT_SIZE_TEXT], indexes[OUTPUT_SIZE_TEXT], documents[OUTPUT_SIZE_TEXT],
		layers[OUTPUT_SIZE_TEXT];
	size_t counts[DIFF_SAME + 1] = { 0 };
	for (size_t i = 0; i < diff->count; i++)
		counts[diff->entries[i].kind]++;
	printf("an update from %s to %s moves %s\n", arguments->left, arguments->right,
	       output_size(diff->frames + diff->indexes + diff->documents, total));
	printf("  %s of content, %s of indexes, %s of manifest and config; whole layers would be %s\n",
	       output_size(diff->frames, frames), output_size(diff->indexes, indexes),
	       output_size(diff->documents, documents), output_size(diff->layers, layers));
	printf("files: %zu changed, %zu added, %zu removed, %zu with other metadata only\n", counts[DIFF_CHANGED],
	       counts[DIFF_ADDED], counts[DIFF_REMOVED], counts[DIFF_METADATA]);
	if (counts[DIFF_CHANGED] + counts[DIFF_ADDED] + counts[DIFF_REMOVED] > 0)
		printf("       MOVED     SIZE  FILE\n");
	print_entries(diff, is_difference, arguments->all);
	if (arguments->all)
		print_entries(diff, is_metadata, true);
	if (diff->other > 0)
		printf("    %8s           headers of the tars, and what no file shows\n",
		       output_size(diff->other, total));
	print_waste(diff, arguments->all);
}

static int run(const Arguments *arguments)
{
	_cleanup_(store_free_p) Store *store = NULL;
	_cleanup_close_ int hold = -1;
	_cleanup_(store_image_done) StoreImage left = { 0 };
	_cleanup_(store_image_done) StoreImage right = { 0 };
	_cleanup_(image_diff_done) ImageDiff diff = { 0 };
	Error error = { 0 };
	int r = cmd_store_open(arguments->store, false, &store, &error);
	if (r == 0)
		r = store_hold(store, &hold, &error);
	if (r == 0)
		r = store_image_open(store, arguments->left, &left, &error);
	if (r == 0)
		r = store_image_open(store, arguments->right, &right, &error);
	if (r == 0)
		r = image_diff(store, &left, &right, &diff, &error);
	if (r < 0)
		return verb_fail(VERB, r, &error);
	if (!arguments->json) {
		print_text(&diff, arguments);
		return VERB_SUCCESS;
	}
	r = print_json(&diff);
	return r < 0 ? verb_fail(VERB, r, NULL) : VERB_SUCCESS;
}

int cmd_diff(int argc, char **argv)
{
	Arguments arguments = { 0 };
	for (int id; (id = verb_getopt(argc, argv, cmd_diff_options)) != -1;) {
		if (id == 's')
			arguments.store = optarg;
		else if (id == OPTION_ALL)
			arguments.all = true;
		else if (id == OPTION_JSON)
			arguments.json = true;
		else
			return VERB_USAGE;
	}
	if (argc - optind != 2)
		return verb_usage_error(VERB, "wanted are the names of two images");
	arguments.left = argv[optind];
	arguments.right = argv[optind + 1];
	for (int i = 0; i < 2; i++) {
		Reference reference;
		Error error = { 0 };
		if (store_image_parse(argv[optind + i], &reference, &error) < 0)
			return verb_usage_error(VERB, "%s", error_text(&error, -EINVAL));
	}
	return run(&arguments);
}
