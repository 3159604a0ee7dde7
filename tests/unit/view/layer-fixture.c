#undef NDEBUG
#include <assert.h>
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/format/chunk-table.h"
#include "layer-fixture.h"

enum { TAR_SIZE = 1 << 20 };

static TreeString string(const char *text)
{
	return (TreeString){ .data = text, .size = text ? strlen(text) : 0 };
}

/* Is `path` directly in `directory` ("" is the root)? */
static bool is_in(const char *path, const char *directory)
{
	size_t size = strlen(directory);
	if (size > 0 && (strncmp(path, directory, size) != 0 || path[size] != '/'))
		return false;
	return !strchr(path + size + (size > 0), '/');
}

static const char *last_name(const char *path)
{
	const char *slash = strrchr(path, '/');
	return slash ? slash + 1 : path;
}

static int compare(const void *left, const void *right)
{
	return tree_compare_names(((const TreeDirent *)left)->name, ((const TreeDirent *)right)->name);
}

static uint32_t find(const LayerPath *paths, size_t count, const uint32_t *numbers, const char *path)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(paths[i].path, path) == 0)
			return numbers[i];
	abort(); /* no such path: the test is wrong */
}

static uint32_t names_of(const LayerPath *paths, size_t count, const LayerPath *of)
{
	uint32_t names = S_ISDIR(of->mode) ? 2 : 1;
	for (size_t i = 0; i < count; i++) {
		if (paths[i].same && strcmp(paths[i].same, of->path) == 0)
			names++;
		if (S_ISDIR(of->mode) && S_ISDIR(paths[i].mode) && is_in(paths[i].path, of->path))
			names++;
	}
	return names;
}

static uint32_t parent_of(const LayerPath *paths, size_t count, const uint32_t *numbers, const char *path)
{
	const char *slash = strrchr(path, '/');
	if (!slash)
		return 0;
	char directory[4096];
	memcpy(directory, path, (size_t)(slash - path));
	directory[slash - path] = '\0';
	return find(paths, count, numbers, directory);
}

static void add_inodes(TreeWriter *writer, const LayerPath *paths, size_t count, uint32_t *numbers)
{
	uint32_t number;
	LayerPath root = { .path = "", .mode = S_IFDIR | 0755 };
	TreeInode inode = { .mode = root.mode, .nlink = names_of(paths, count, &root) };
	assert(tree_writer_add_inode(writer, &inode, &(TreeExtras){ 0 }, &number) == 0 && number == 0);
	for (size_t i = 0; i < count; i++) {
		const LayerPath *path = &paths[i];
		if (path->same) {
			numbers[i] = find(paths, i, numbers, path->same);
			continue;
		}
		bool lower = path->mode == 0;
		inode = (TreeInode){
			.mode = path->mode,
			.nlink = names_of(paths, count, path),
			.flags = path->flags | (lower ? TREE_LOWER_LINK : 0),
			.size = S_ISREG(path->mode)   ? 100
				: S_ISLNK(path->mode) ? strlen(path->target)
						      : 0,
			.data = S_ISREG(path->mode) ? path->data : 0,
			.mtime_sec = (int64_t)path->data,
			.parent = S_ISDIR(path->mode) ? parent_of(paths, i, numbers, path->path) : 0,
		};
		TreeExtras extras = { .target = string(path->target) };
		assert(tree_writer_add_inode(writer, &inode, &extras, &numbers[i]) == 0);
	}
}

static void add_entries(TreeWriter *writer, const LayerPath *paths, size_t count, const uint32_t *numbers,
			const char *directory, uint32_t number)
{
	TreeDirent *entries = calloc(count + 1, sizeof(*entries));
	size_t used = 0;
	for (size_t i = 0; i < count; i++) {
		if (!is_in(paths[i].path, directory))
			continue;
		uint32_t mode = paths[i].mode;
		for (size_t j = 0; paths[i].same && j < i; j++)
			if (strcmp(paths[j].path, paths[i].same) == 0)
				mode = paths[j].mode;
		entries[used++] = (TreeDirent){
			.inode = numbers[i],
			.type = (uint8_t)IFTODT(mode),
			.name = string(last_name(paths[i].path)),
		};
	}
	qsort(entries, used, sizeof(*entries), compare);
	assert(tree_writer_add_entries(writer, number, entries, used) == 0);
	free(entries);
}

void layer_fixture_make(LayerFixture *layer, const LayerPath *paths, size_t count)
{
	ImageHeader header = { .kind = FORMAT_KIND_INDEX, .codec = FORMAT_CODEC_LZ4, .tar_size = 0, .chunks_size = 0 };
	ChunkTableWriter *chunks;
	ImageWriter *image;
	TreeWriter *writer;
	uint32_t *numbers = calloc(count + 1, sizeof(*numbers));
	Error error = { 0 };
	size_t size;

	assert(chunk_table_writer_new(&chunks) == 0);
	for (int i = 0; i < TAR_SIZE; i += FORMAT_CHUNK_MAX) {
		assert(chunk_table_writer_add(chunks, FORMAT_CHUNK_MAX, 1000, &(Digest){ 0 }) == 0);
		header.tar_size += FORMAT_CHUNK_MAX;
		header.chunks_size += 1000;
	}
	assert(image_writer_new(&header, &image) == 0);
	assert(chunk_table_writer_finish(chunks, image) == 0);
	assert(tree_writer_new(&writer) == 0);
	add_inodes(writer, paths, count, numbers);
	add_entries(writer, paths, count, numbers, "", 0);
	for (size_t i = 0; i < count; i++)
		if (S_ISDIR(paths[i].mode))
			add_entries(writer, paths, count, numbers, paths[i].path, numbers[i]);
	assert(tree_writer_finish(writer, image) == 0);
	assert(image_writer_finish(image, &layer->bytes, &size) == 0);

	assert(image_open(layer->bytes, size, &layer->image, &error) == 0);
	int r = tree_open(&layer->image, &layer->tree, &error);
	if (r < 0)
		fprintf(stderr, "fixture: %s\n", error_text(&error, r));
	assert(r == 0);
	chunk_table_writer_free(chunks);
	image_writer_free(image);
	tree_writer_free(writer);
	free(numbers);
}

void layer_fixture_done(LayerFixture *layer)
{
	free(layer->bytes);
}
