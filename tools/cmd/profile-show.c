#include "tools/cmd/profile-show.h"

#include <stdio.h>

#include "tools/cmd/output.h"
#include "tools/export/image-view.h"
#include "tools/export/profile-files.h"

/* The image that a profile is of. */
typedef struct Shown {
	StoreImage image;
	ImageView view;
	ProfileFiles files;
	TreePaths *paths;
	uint8_t *seen; /* a bit an inode */
	uint64_t bytes, chunks;
	json_t *list;
} Shown;

static void shown_done(Shown *shown)
{
	free(shown->seen);
	(void)tree_paths_free(shown->paths);
	profile_files_done(&shown->files);
	image_view_done(&shown->view);
	store_image_done(&shown->image);
	json_decref(shown->list);
}

static int open_image(Store *store, const Profile *profile, Shown *shown, Error *error)
{
	char text[DIGEST_TEXT_SIZE];
	int r = store_image_open(store, digest_text(&profile->manifest, text), &shown->image, error);
	if (r == 0)
		r = image_view_open(store, &shown->image.manifest, &shown->view, error);
	if (r < 0)
		return r;
	r = profile_files_list(&shown->view.tree, &shown->files);
	if (r == 0)
		r = tree_paths_new(&shown->view.tree, &shown->paths);
	shown->seen = calloc((size_t)shown->view.tree.inode_count / 8 + 1, 1);
	return r < 0 || !shown->seen ? error_set(error, -ENOMEM, "out of memory") : 0;
}

/* Files of a chunk that were not named before, in the order of the tar. */
static int add_files(Shown *shown, uint32_t layer, const Chunk *chunk)
{
	uint64_t end = chunk->tar_offset + chunk->tar_size;
	for (size_t i = profile_files_find(&shown->files, layer, chunk->tar_offset); i < shown->files.count; i++) {
		const ProfileFile *file = &shown->files.items[i];
		_cleanup_free_ char *path = NULL;
		if (file->layer != layer || file->tar_offset >= end)
			break;
		uint8_t *byte = &shown->seen[file->inode / 8], bit = (uint8_t)(1u << file->inode % 8);
		if (*byte & bit || tree_paths_get(shown->paths, file->inode, &path) < 0)
			continue;
		*byte |= bit;
		if (json_array_append_new(shown->list, output_path_json(path)) < 0)
			return -ENOMEM;
	}
	return 0;
}

static int add_range(Shown *shown, const ProfileRange *range)
{
	if (range->layer >= shown->view.layer_count)
		return 0;
	const ChunkTable *table = &shown->view.layers[range->layer].reader->chunks;
	for (uint32_t i = 0; i < range->count && range->first + i < table->count; i++) {
		Chunk chunk;
		chunk_table_get(table, range->first + i, &chunk);
		shown->bytes += chunk.blob_size;
		shown->chunks++;
		int r = add_files(shown, range->layer, &chunk);
		if (r < 0)
			return r;
	}
	return 0;
}

static void print_text(const Profile *profile, const Shown *shown)
{
	char text[DIGEST_TEXT_SIZE], size[OUTPUT_SIZE_TEXT];
	size_t i;
	json_t *path;
	printf("start-up profile of %s\n  %s, %.1f s from the first read to the last, %zu ranges\n",
	       digest_text(&profile->manifest, text),
	       profile->flags & PROFILE_CARRIED ? "carried over from another version" : "recorded with this image",
	       profile->milliseconds / 1000.0, profile->count);
	if (!shown->paths) {
		printf("  the image is not in the store, so its files are not known\n");
		return;
	}
	printf("  %llu chunks, %s to fetch, of these files:\n", (unsigned long long)shown->chunks,
	       output_size(shown->bytes, size));
	json_array_foreach(shown->list, i, path)
	{
		printf("    ");
		(void)output_text(stdout, json_string_value(path));
		printf("\n");
	}
}

static int print_json(const Profile *profile, const Shown *shown)
{
	char text[DIGEST_TEXT_SIZE];
	json_t *ranges = json_array();
	for (size_t i = 0; ranges && i < profile->count; i++) {
		const ProfileRange *range = &profile->ranges[i];
		if (json_array_append_new(ranges, json_pack("[I, I, I]", (json_int_t)range->layer,
							    (json_int_t)range->first, (json_int_t)range->count)) < 0) {
			json_decref(ranges);
			return -ENOMEM;
		}
	}
	json_t *root = json_pack("{s:s, s:b, s:I, s:o}", "manifest", digest_text(&profile->manifest, text), "carried",
				 profile->flags & PROFILE_CARRIED, "milliseconds", (json_int_t)profile->milliseconds,
				 "ranges", ranges);
	if (root && shown->paths &&
	    json_object_update_new(root, json_pack("{s:I, s:I, s:O}", "chunks", (json_int_t)shown->chunks, "bytes",
						   (json_int_t)shown->bytes, "files", shown->list)) < 0) {
		json_decref(root);
		return -ENOMEM;
	}
	return output_json(root);
}

int profile_show(const Profile *profile, Store *store, bool json, Error *error)
{
	_cleanup_(shown_done) Shown shown = { .list = json_array() };
	int r = shown.list ? 0 : error_set(error, -ENOMEM, "out of memory");
	if (r == 0 && store) {
		r = open_image(store, profile, &shown, error);
		/* Of an image that is elsewhere the numbers are all there is to say. */
		if (r == -ENOENT && !shown.paths)
			r = 0;
	}
	for (size_t i = 0; r == 0 && shown.paths && i < profile->count; i++)
		r = add_range(&shown, &profile->ranges[i]);
	if (r == 0 && json)
		r = print_json(profile, &shown);
	else if (r == 0)
		print_text(profile, &shown);
	return r < 0 && error->message[0] == '\0' ? error_set(error, r, "out of memory") : r;
}
