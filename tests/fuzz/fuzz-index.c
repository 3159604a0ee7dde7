/*
 * Any bytes as an index or view: opened, and if they open, everything is walked, and their text gives a tree of the
 * same text. Page sums are made right first, as no fuzzer guesses them.
 */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/format/chunk-table.h"
#include "fs/format/index-dump.h"
#include "fs/format/tree.h"
#include "tests/unit/format/fix-sums.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint8_t sink;

static void touch(TreeString string)
{
	for (size_t i = 0; i < string.size; i++)
		sink ^= (uint8_t)string.data[i];
}

static void walk_chunks(const ChunkTable *table)
{
	for (uint32_t i = 0; i < table->count; i++) {
		Chunk chunk;
		chunk_table_get(table, i, &chunk);
		assert(chunk_table_find(table, chunk.tar_offset) == i);
		assert(chunk_table_find(table, chunk.tar_offset + chunk.tar_size - 1) == i);
		assert(chunk_table_find_blob(table, chunk.blob_offset) == i);
	}
}

static void walk_directory(const Tree *tree, const TreeInode *directory)
{
	for (uint64_t i = directory->data; i < directory->data + directory->count; i++) {
		TreeDirent entry, found;
		tree_dirent(tree, i, &entry);
		touch(entry.name);
		assert(entry.inode < tree->inode_count);
		int r = tree_lookup(tree, directory, entry.name.data, entry.name.size, &found);
		assert(r == 0 && found.inode == entry.inode);
	}
}

static void walk_inode(const Tree *tree, uint32_t number)
{
	TreeInode inode;
	tree_inode(tree, number, &inode);
	if (S_ISDIR(inode.mode))
		walk_directory(tree, &inode);
	if (S_ISLNK(inode.mode) || inode.flags & TREE_LOWER_LINK)
		touch(tree_target(tree, &inode));
	for (uint32_t i = 0; inode.flags & TREE_SPARSE && i < inode.count; i++) {
		TreeExtent extent;
		tree_extent(tree, &inode, i, &extent);
		assert(extent.file_offset + extent.length <= inode.size);
	}
	for (uint32_t i = 0; i < tree_xattr_count(tree, &inode); i++) {
		TreeXattr xattr;
		tree_xattr(tree, &inode, i, &xattr);
		touch(xattr.name);
		touch(xattr.value);
	}
}

static char *dump(const Image *image, size_t *ret_size)
{
	char *text = NULL;
	FILE *file = open_memstream(&text, ret_size);
	assert(file);
	int r = index_dump_write(image, file);
	assert(r == 0);
	(void)fclose(file);
	return text;
}

static void check_dump(const Image *image)
{
	size_t size, text_size, again_size;
	uint8_t *rebuilt = NULL;
	Image image_again;
	char *text = dump(image, &text_size);
	FILE *file = fmemopen(text, text_size, "r");
	assert(file);
	int r = index_dump_read(file, &rebuilt, &size, NULL);
	assert(r == 0);
	(void)fclose(file);
	r = image_open(rebuilt, size, &image_again, NULL);
	assert(r == 0);
	char *again = dump(&image_again, &again_size);
	assert(text_size == again_size && memcmp(text, again, text_size) == 0);
	free(again);
	free(rebuilt);
	free(text);
}

static void walk(const Image *image)
{
	ChunkTable table = { 0 };
	Tree tree;
	if (tree_open(image, &tree, NULL) < 0)
		return;
	for (uint32_t i = 0; i < tree.inode_count; i++)
		walk_inode(&tree, i);
	for (uint32_t i = 0; i < tree.layer_count; i++) {
		Digest diff_id;
		tree_layer(&tree, i, &diff_id);
		sink ^= diff_id.bytes[0];
	}
	if (image->header.kind == FORMAT_KIND_INDEX) {
		if (chunk_table_open(image, &table, NULL) < 0)
			return;
		walk_chunks(&table);
	}
	check_dump(image);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size ? size : 1);
	Image image;
	if (!copy)
		return 0;
	memcpy(copy, data, size);
	fix_sums(copy, size);
	if (image_open(copy, size, &image, NULL) == 0)
		walk(&image);
	free(copy);
	return 0;
}
