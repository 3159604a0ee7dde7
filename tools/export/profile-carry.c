#include "tools/export/profile-carry.h"

#include <string.h>
#include <sys/stat.h>

#include "fs/format/tree-paths.h"
#include "tools/export/image-view.h"
#include "tools/export/profile-files.h"
#include "tools/export/store-image.h"

/* Where a frame is in the new image. */
typedef struct Place {
	Digest digest;
	uint32_t layer, chunk;
} Place;

typedef struct Side {
	StoreImage image;
	ImageView view;
} Side;

typedef struct Carry {
	Side old, new;
	ProfileFiles files; /* of the old one */
	TreePaths *paths;   /* of the old one */
	Place *places;      /* by digest */
	size_t place_count;
	uint8_t **tried; /* by layer of the old one: a bit a chunk, since ranges may overlap as often as they like */
	uint8_t **added; /* the same of the new one */
	uint64_t left;   /* bytes of frames */
	Profile profile;
} Carry;

static void side_done(Side *side)
{
	image_view_done(&side->view);
	store_image_done(&side->image);
}

static void bits_free(uint8_t **bits, const Side *side)
{
	for (size_t i = 0; bits && i < side->view.layer_count; i++)
		free(bits[i]);
	free(bits);
}

static void carry_done(Carry *carry)
{
	bits_free(carry->tried, &carry->old);
	bits_free(carry->added, &carry->new);
	free(carry->places);
	profile_files_done(&carry->files);
	(void)tree_paths_free(carry->paths);
	profile_done(&carry->profile);
	side_done(&carry->old);
	side_done(&carry->new);
}

static int side_open(Store *store, const Digest *manifest, Side *side, Error *error)
{
	char text[DIGEST_TEXT_SIZE];
	int r = store_image_open(store, digest_text(manifest, text), &side->image, error);
	return r < 0 ? r : image_view_open(store, &side->image.manifest, &side->view, error);
}

static const ChunkTable *table_of(const Side *side, uint32_t layer)
{
	return &side->view.layers[layer].reader->chunks;
}

static int bits_new(const Side *side, uint8_t ***ret_bits)
{
	uint8_t **bits = calloc(side->view.layer_count + 1, sizeof(*bits));
	if (!bits)
		return -ENOMEM;
	for (uint32_t i = 0; i < side->view.layer_count; i++) {
		bits[i] = calloc((size_t)table_of(side, i)->count / 8 + 1, 1);
		if (!bits[i]) {
			bits_free(bits, side);
			return -ENOMEM;
		}
	}
	*ret_bits = bits;
	return 0;
}

/* Was it set before? */
static bool bit_set(uint8_t *bits, uint32_t number)
{
	uint8_t bit = (uint8_t)(1u << number % 8);
	bool before = bits[number / 8] & bit;
	bits[number / 8] |= bit;
	return before;
}

static int compare_places(const void *left, const void *right)
{
	return memcmp(((const Place *)left)->digest.bytes, ((const Place *)right)->digest.bytes, DIGEST_SIZE);
}

static int list_places(Carry *carry)
{
	size_t count = 0;
	for (uint32_t i = 0; i < carry->new.view.layer_count; i++)
		count += table_of(&carry->new, i)->count;
	carry->places = calloc(count + 1, sizeof(*carry->places));
	if (!carry->places)
		return -ENOMEM;
	for (uint32_t layer = 0; layer < carry->new.view.layer_count; layer++) {
		const ChunkTable *table = table_of(&carry->new, layer);
		for (uint32_t chunk = 0; chunk < table->count; chunk++) {
			Chunk found;
			chunk_table_get(table, chunk, &found);
			carry->places[carry->place_count++] = (Place){ found.digest, layer, chunk };
		}
	}
	qsort(carry->places, carry->place_count, sizeof(*carry->places), compare_places);
	return 0;
}

/* Errors: -EFBIG (the profile is full), -ENOMEM. */
static int add_chunk(Carry *carry, uint32_t layer, uint32_t chunk)
{
	Chunk found;
	if (bit_set(carry->added[layer], chunk))
		return 0;
	chunk_table_get(table_of(&carry->new, layer), chunk, &found);
	if (found.blob_size > carry->left)
		return -EFBIG;
	carry->left -= found.blob_size;
	return profile_add(&carry->profile, layer, chunk, 1);
}

/* The same part of the file with the same path in the new image, if there is one. */
static int add_part(Carry *carry, const ProfileFile *file, uint64_t from, uint64_t to)
{
	_cleanup_free_ char *path = NULL;
	uint32_t number;
	TreeInode inode;
	const Tree *tree = &carry->new.view.tree;
	int r = tree_paths_get(carry->paths, file->inode, &path);
	if (r < 0)
		return r == -ENOMEM ? r : 0;
	if (tree_paths_find(tree, path, &number) < 0)
		return 0;
	tree_inode(tree, number, &inode);
	if (!S_ISREG(inode.mode) || inode.flags & TREE_SPARSE || inode.layer >= carry->new.view.layer_count)
		return 0;
	if (to > inode.size)
		to = inode.size;
	if (from >= to)
		return 0;
	const ChunkTable *table = table_of(&carry->new, inode.layer);
	uint32_t first = chunk_table_find(table, inode.data + from),
		 last = chunk_table_find(table, inode.data + to - 1);
	for (uint32_t chunk = first; r == 0 && chunk <= last; chunk++)
		r = add_chunk(carry, inode.layer, chunk);
	return r;
}

/* A chunk that the new image has not: what of files is in it. */
static int add_files(Carry *carry, uint32_t layer, const Chunk *chunk)
{
	uint64_t end = chunk->tar_offset + chunk->tar_size;
	int r = 0;
	for (size_t i = profile_files_find(&carry->files, layer, chunk->tar_offset); r == 0 && i < carry->files.count;
	     i++) {
		const ProfileFile *file = &carry->files.items[i];
		if (file->layer != layer || file->tar_offset >= end)
			break;
		uint64_t from = file->tar_offset > chunk->tar_offset ? file->tar_offset : chunk->tar_offset;
		uint64_t file_end = file->tar_offset + file->length, to = file_end < end ? file_end : end;
		r = add_part(carry, file, file->file_offset + (from - file->tar_offset),
			     file->file_offset + (to - file->tar_offset));
	}
	return r;
}

static int carry_chunk(Carry *carry, uint32_t layer, uint32_t number)
{
	Place wanted;
	Chunk chunk;
	if (bit_set(carry->tried[layer], number))
		return 0;
	chunk_table_get(table_of(&carry->old, layer), number, &chunk);
	wanted.digest = chunk.digest;
	const Place *place = bsearch(&wanted, carry->places, carry->place_count, sizeof(wanted), compare_places);
	return place ? add_chunk(carry, place->layer, place->chunk) : add_files(carry, layer, &chunk);
}

static int carry_ranges(Carry *carry, const Profile *old)
{
	int r = 0;
	for (size_t i = 0; r == 0 && i < old->count; i++) {
		const ProfileRange *range = &old->ranges[i];
		if (range->layer >= carry->old.view.layer_count)
			continue;
		uint32_t count = table_of(&carry->old, range->layer)->count;
		for (uint32_t j = 0; r == 0 && j < range->count && range->first + j < count; j++)
			r = carry_chunk(carry, range->layer, range->first + j);
	}
	return r == -EFBIG ? 0 : r;
}

static int open_both(Store *store, const Profile *old, const Digest *new_manifest, Carry *carry, Error *error)
{
	int r = side_open(store, &old->manifest, &carry->old, error);
	if (r == 0)
		r = side_open(store, new_manifest, &carry->new, error);
	if (r < 0)
		return r;
	r = profile_files_list(&carry->old.view.tree, &carry->files);
	if (r == 0)
		r = tree_paths_new(&carry->old.view.tree, &carry->paths);
	if (r == 0)
		r = list_places(carry);
	if (r == 0)
		r = bits_new(&carry->old, &carry->tried);
	if (r == 0)
		r = bits_new(&carry->new, &carry->added);
	return r < 0 ? error_set(error, r, "out of memory to carry a start-up profile over") : 0;
}

int profile_carry(Store *store, const Profile *old, const Digest *new_manifest, Profile *ret_profile, Error *error)
{
	_cleanup_(carry_done) Carry carry = {
		.left = PROFILE_BYTES_MAX,
		.profile = { .manifest = *new_manifest,
			     .milliseconds = old->milliseconds,
			     .flags = old->flags | PROFILE_CARRIED },
	};
	int r = open_both(store, old, new_manifest, &carry, error);
	if (r < 0)
		return r;
	r = carry_ranges(&carry, old);
	if (r < 0)
		return error_set(error, r, "the start-up profile cannot be carried over: %s", error_text(NULL, r));
	if (carry.profile.count == 0)
		return error_set(error, -ENODATA, "nothing of the start-up profile is in the new image");
	*ret_profile = carry.profile;
	carry.profile = (Profile){ 0 };
	return 0;
}

/* The image of the repository to carry from: what was found so far. */
typedef struct Search {
	Store *store;
	const char *name, *tag;
	const Digest *new_manifest;
	Profile profile;
	time_t changed;
	bool exact;
} Search;

static int read_profile(Store *store, const Digest *manifest, Profile *ret_profile)
{
	_cleanup_free_ uint8_t *data = NULL;
	size_t size;
	int r = store_profile_get(store, manifest, &data, &size);
	return r < 0 ? r : profile_decode(data, size, ret_profile, NULL);
}

static int visit(void *arg, const char *name, const char *tag, time_t changed)
{
	Search *search = arg;
	_cleanup_free_ char *json = NULL;
	size_t size;
	Digest manifest;
	Profile profile = { 0 };
	bool exact = strcmp(tag, search->tag) == 0;
	if (strcmp(name, search->name) != 0 || (!exact && (search->exact || changed < search->changed)))
		return 0;
	int r = store_tag_get(search->store, name, tag, &json, &size);
	if (r == 0)
		r = digest_of(json, size, &manifest);
	if (r == 0 && digest_equal(&manifest, search->new_manifest))
		return 0;
	if (r == 0)
		r = read_profile(search->store, &manifest, &profile);
	if (r < 0)
		return r == -ENOMEM ? r : 0;
	profile_done(&search->profile);
	search->profile = profile;
	search->changed = changed;
	search->exact = exact;
	return 0;
}

int profile_carry_tag(Store *store, const char *name, const char *tag, const Digest *new_manifest, Error *error)
{
	_cleanup_(profile_done) Profile new = { 0 };
	_cleanup_(profile_done) Profile present = { 0 };
	Search search = { .store = store, .name = name, .tag = tag, .new_manifest = new_manifest };
	if (read_profile(store, new_manifest, &present) == 0)
		return 0;
	int r = store_tag_each(store, visit, &search);
	if (r == 0 && search.profile.count > 0) {
		r = profile_carry(store, &search.profile, new_manifest, &new, error);
		if (r == 0)
			r = store_profile_put(store, &new, false, error);
		r = r == -ENODATA ? 0 : r < 0 ? r : 1;
	}
	profile_done(&search.profile);
	return r;
}
