/*
 * The tar reader and the layer's tree. The first four bytes of the input choose how the rest, a tar, is handed out;
 * whatever the tar is, the pieces must account for its bytes, entries must not depend on how it was handed out, and a
 * tree made of them must be valid.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "tools/export/layer-tree.h"
#include "tools/export/tar-header.h"
#include "tools/export/tar-reader.h"

#define SEED_SIZE 4

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define check(condition)                                                   \
	do {                                                               \
		if (!(condition)) {                                        \
			fprintf(stderr, "%d: " #condition "\n", __LINE__); \
			abort();                                           \
		}                                                          \
	} while (0)

/* A mutated header with a wrong checksum would get nowhere. */
static void repair_checksums(uint8_t *tar, size_t size)
{
	for (size_t at = 0; at + TAR_BLOCK <= size; at += TAR_BLOCK) {
		uint8_t *block = tar + at;
		char text[8];
		unsigned sum = 0;
		if (memcmp(block + 257, "ustar", 5) != 0)
			continue;
		memset(block + 148, ' ', 8);
		for (size_t i = 0; i < TAR_BLOCK; i++)
			sum += block[i];
		snprintf(text, sizeof(text), "%06o", sum & 0777777u);
		memcpy(block + 148, text, 7);
	}
}

static void hash_bytes(XXH64_state_t *hash, const void *data, size_t size)
{
	(void)XXH64_update(hash, &size, sizeof(size));
	(void)XXH64_update(hash, size ? data : "", size);
}

static void hash_entry(XXH64_state_t *hash, const TarEntry *entry, uint64_t end)
{
	const uint64_t numbers[] = {
		entry->header_offset, entry->data_offset, entry->data_size,    (uint64_t)entry->typeflag,
		entry->mode,          entry->uid,         entry->gid,          (uint64_t)entry->mtime_sec,
		entry->mtime_nsec,    entry->size,        entry->device_major, entry->device_minor,
		entry->sparse,
	};
	hash_bytes(hash, numbers, sizeof(numbers));
	hash_bytes(hash, entry->name, entry->name_size);
	hash_bytes(hash, entry->target, entry->target_size);
	hash_bytes(hash, entry->extents, entry->extent_count * sizeof(TreeExtent));
	for (size_t i = 0; i < entry->xattr_count; i++) {
		hash_bytes(hash, entry->xattrs[i].name.data, entry->xattrs[i].name.size);
		hash_bytes(hash, entry->xattrs[i].value.data, entry->xattrs[i].value.size);
	}
	check(strlen(entry->name) == entry->name_size && entry->name_size > 0);
	check(strlen(entry->target) == entry->target_size);
	for (size_t i = 0; i < entry->extent_count; i++) {
		const TreeExtent *extent = &entry->extents[i];
		check(extent->length > 0 && extent->file_offset + extent->length <= entry->size);
		check(extent->tar_offset >= entry->data_offset && extent->tar_offset + extent->length <= end);
	}
}

/* How the tar is handed out, and what came of it. */
typedef struct Pass {
	uint32_t seed;
	size_t least, most; /* bytes a window */
	LayerTree *tree;    /* entries go here until one is refused, unless NULL */
	XXH64_state_t *hash;
} Pass;

static size_t window_size(Pass *pass, size_t left)
{
	pass->seed = pass->seed * 1664525 + 1013904223;
	size_t size = pass->least + (pass->seed >> 8) % (pass->most - pass->least + 1);
	return size < left ? size : left;
}

static void add_entry(Pass *pass, const TarEntry *entry)
{
	static const Digest content;
	hash_entry(pass->hash, entry, entry->data_offset + entry->data_size);
	if (!pass->tree)
		return;
	int r = layer_tree_add(pass->tree, entry, &content, NULL);
	check(r == 0 || r == -EBADMSG);
	if (r < 0)
		pass->tree = layer_tree_free(pass->tree);
}

static int run(Pass *pass, const uint8_t *tar, size_t size)
{
	_cleanup_(tar_reader_free_p) TarReader *reader = NULL;
	uint64_t data_left = 0;
	int r = 0;
	check(tar_reader_new(&reader) == 0);
	const TarEntry *entry = tar_reader_entry(reader);
	for (size_t at = 0, count = 0; at < size; at += count) {
		TarPiece piece = TAR_OTHER;
		Error error = { 0 };
		size_t window = window_size(pass, size - at);
		_cleanup_free_ uint8_t *exact = malloc(window);
		check(exact);
		memcpy(exact, tar + at, window);
		r = tar_reader_feed(reader, exact, window, &count, &piece, &error);
		check(r == 0 || r == -EBADMSG || r == -EOPNOTSUPP);
		check((r < 0) == (error.message[0] != '\0'));
		if (r < 0)
			return r;
		check(count >= 1 && count <= window);
		check(data_left == 0 || piece == TAR_DATA);
		if (piece == TAR_ENTRY) {
			check(entry->data_offset == at + count && entry->header_offset < at + count);
			data_left = entry->data_size;
		} else if (piece == TAR_DATA) {
			check(count <= data_left);
			data_left -= count;
		}
		if ((piece == TAR_ENTRY || piece == TAR_DATA) && data_left == 0)
			add_entry(pass, entry);
	}
	r = tar_reader_end(reader, NULL);
	check(r == 0 || r == -EBADMSG);
	check(r < 0 || data_left == 0);
	return r;
}

static void check_tree(LayerTree *tree, size_t size)
{
	_cleanup_(image_writer_free_p) ImageWriter *writer = NULL;
	ImageHeader header = { .kind = FORMAT_KIND_INDEX, .codec = FORMAT_CODEC_LZ4, .tar_size = size };
	_cleanup_free_ uint8_t *data = NULL;
	size_t data_size = 0;
	Image image;
	Tree opened;
	check(image_writer_new(&header, &writer) == 0);
	int r = layer_tree_finish(tree, writer, NULL);
	check(r == 0 || r == -EBADMSG);
	if (r < 0)
		return;
	check(image_writer_finish(writer, &data, &data_size) == 0);
	check(image_open(data, data_size, &image, NULL) == 0);
	check(tree_open(&image, &opened, NULL) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static XXH64_state_t *hash;
	if (size < SEED_SIZE)
		return 0;
	hash = hash ?: XXH64_createState();
	check(hash);
	_cleanup_free_ uint8_t *tar = malloc(size - SEED_SIZE + 1);
	check(tar);
	memcpy(tar, data + SEED_SIZE, size - SEED_SIZE);
	size -= SEED_SIZE;
	if (data[0] & 1)
		repair_checksums(tar, size);
	uint32_t seed;
	memcpy(&seed, data, sizeof(seed));

	LayerTree *tree = NULL;
	check(layer_tree_new(&tree) == 0);
	Pass whole = { .seed = seed, .least = size + 1, .most = size + 1, .tree = tree, .hash = hash };
	(void)XXH64_reset(hash, 0);
	int r = run(&whole, tar, size);
	XXH64_hash_t expected = XXH64_digest(hash);
	if (r == 0 && whole.tree)
		check_tree(whole.tree, size);
	layer_tree_free(whole.tree);

	Pass pieces = { .seed = seed, .least = TAR_LOOKAHEAD, .most = TAR_LOOKAHEAD + data[1] * 8, .hash = hash };
	(void)XXH64_reset(hash, 0);
	check(run(&pieces, tar, size) == r);
	check(XXH64_digest(hash) == expected);

	/* Smaller windows than a caller should offer may read hard links otherwise, but nothing worse. */
	Pass crumbs = { .seed = seed, .least = 1, .most = 1 + data[2], .hash = hash };
	(void)run(&crumbs, tar, size);
	return 0;
}
