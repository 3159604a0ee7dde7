#include "tools/export/image-diff.h"

#include <string.h>
#include <sys/stat.h>

#include "fs/format/buffer.h"
#include "tools/export/frame-moves.h"

#define ZIP_MAGIC "PK\003\004"

typedef struct Walk {
	const ImageView *left, *right;
	FrameMoves moves;
	ImageDiff diff;
	uint8_t *counted; /* a bit an inode of the right: what moves for it is in an entry */
	uint64_t attributed;
	Buffer path;
	Error *error;
} Walk;

/*
 * What of an archive's bytes moved without need. Each entry that differs may spoil two chunks beside its own bytes, and shifts the archive's
 * directory; what moved beyond twice that moved because times, order or compression changed.
 */
static uint64_t archive_waste(const DiffEntry *entry, size_t directory_size)
{
	const ZipDifference *zip = &entry->zip;
	uint64_t needed = zip->differ_bytes + (uint64_t)zip->differ * FORMAT_CHUNK_MAX + directory_size;
	if (zip->differ == 0)
		return entry->moved;
	return entry->moved > 2 * needed ? entry->moved - needed : 0;
}

void image_diff_done(ImageDiff *diff)
{
	for (size_t i = 0; i < diff->count; i++)
		free(diff->entries[i].path);
	free(diff->entries);
	*diff = (ImageDiff){ 0 };
}

/* Adds an entry for the path the walk is at. */
static int add_entry(Walk *walk, DiffEntry entry)
{
	ImageDiff *diff = &walk->diff;
	if (diff->count == diff->capacity) {
		size_t capacity = diff->capacity ? 2 * diff->capacity : 64;
		DiffEntry *entries = reallocarray(diff->entries, capacity, sizeof(*entries));
		if (!entries)
			return -ENOMEM;
		diff->entries = entries;
		diff->capacity = capacity;
	}
	entry.path = strndup(walk->path.size > 0 ? (const char *)walk->path.data : "", walk->path.size);
	if (!entry.path)
		return -ENOMEM;
	walk->attributed += entry.moved;
	diff->wasted += entry.wasted;
	diff->entries[diff->count++] = entry;
	return 0;
}

static uint64_t file_size(const TreeInode *inode)
{
	return S_ISREG(inode->mode) ? inode->size : 0;
}

/* What moves for an inode of the right image; a file with several names counts at the first. */
static uint64_t moved_for(Walk *walk, uint32_t number, const TreeInode *inode)
{
	uint8_t *byte = &walk->counted[number / 8], bit = (uint8_t)(1u << number % 8);
	if (!S_ISREG(inode->mode) || *byte & bit)
		return 0;
	*byte |= bit;
	return frame_moves_of(&walk->moves, inode);
}

/* A file of one image, to be read as an archive. */
typedef struct ArchiveFile {
	const ImageView *view;
	const TreeInode *inode;
} ArchiveFile;

static int read_archive(void *arg, uint64_t offset, void *buffer, size_t size, Error *error)
{
	const ArchiveFile *file = arg;
	return image_view_read(file->view, file->inode, offset, buffer, size, error);
}

/* The list of an archive. 1: the file is none, or no good one; negative: the store is at fault. */
static int list_archive(const ImageView *view, const TreeInode *inode, ZipList *ret_list, Error *error)
{
	char magic[4];
	ArchiveFile file = { .view = view, .inode = inode };
	Error wrong = { 0 };
	if (inode->size < sizeof(magic))
		return 1;
	int r = image_view_read(view, inode, 0, magic, sizeof(magic), error);
	if (r < 0)
		return r;
	if (memcmp(magic, ZIP_MAGIC, sizeof(magic)) != 0)
		return 1;
	r = zip_list_read(read_archive, &file, inode->size, ret_list, &wrong);
	/* Only reading leaves a sentence. */
	if (r < 0 && wrong.message[0])
		return error_set(error, r, "%s", wrong.message);
	return r == -EBADMSG || r == -EFBIG ? 1 : r;
}

static int compare_archives(const FilePair *pair, DiffEntry *entry, Error *error)
{
	ZipList left = { 0 }, right = { 0 };
	int r = list_archive(pair->left, &pair->left_inode, &left, error);
	if (r == 0)
		r = list_archive(pair->right, &pair->right_inode, &right, error);
	if (r == 0)
		r = zip_list_compare(&left, &right, &entry->zip);
	if (r == 0) {
		entry->is_zip = true;
		entry->wasted = archive_waste(entry, right.directory_size);
	}
	zip_list_done(&left);
	zip_list_done(&right);
	return r < 0 ? r : 0;
}

static bool same_target(const FilePair *pair)
{
	TreeString left = tree_target(&pair->left->tree, &pair->left_inode);
	TreeString right = tree_target(&pair->right->tree, &pair->right_inode);
	return left.size == right.size && memcmp(left.data, right.data, left.size) == 0;
}

/* Is what two inodes of one type hold the same? Directories' entries do not count. */
static int same_content(const FilePair *pair, Error *error)
{
	switch (pair->left_inode.mode & S_IFMT) {
	case S_IFREG:
		return file_compare_content(pair, error);
	case S_IFLNK:
		return same_target(pair);
	case S_IFCHR:
	case S_IFBLK:
		return pair->left_inode.data == pair->right_inode.data;
	default:
		return 1;
	}
}

static int compare_inodes(Walk *walk, const FilePair *pair, uint32_t right_number)
{
	DiffEntry entry = { .mode = pair->right_inode.mode,
			    .old_size = file_size(&pair->left_inode),
			    .new_size = file_size(&pair->right_inode),
			    .moved = moved_for(walk, right_number, &pair->right_inode) };
	int same = same_content(pair, walk->error);
	if (same < 0)
		return same;
	entry.fields = file_compare_metadata(pair);
	entry.kind = !same ? DIFF_CHANGED : entry.fields ? DIFF_METADATA : DIFF_SAME;
	entry.wasted = same ? entry.moved : 0;
	if (!same && S_ISREG(entry.mode)) {
		int r = compare_archives(pair, &entry, walk->error);
		if (r < 0)
			return r;
	}
	if (entry.kind == DIFF_SAME && entry.moved == 0)
		return 0;
	return add_entry(walk, entry);
}

/*
 * Goes one name deeper; returns the length to go back to, or a negative errno. Symlinks in a tar can lead deeper than any path names, and
 * each level takes of the stack.
 */
static int64_t path_push(Walk *walk, TreeString name)
{
	Buffer *path = &walk->path;
	size_t before = path->size;
	if (before + 1 + name.size > FORMAT_TARGET_MAX)
		return error_set(walk->error, -ENAMETOOLONG,
				 "a path of more than %u bytes, in %.100s; images that have one are not compared",
				 FORMAT_TARGET_MAX, (const char *)path->data);
	int r = before > 0 ? buffer_append(path, "/", 1) : 0;
	if (r == 0)
		r = buffer_append(path, name.data, name.size);
	return r < 0 ? r : (int64_t)before;
}

/* What is in one image alone, with all that is below it. */
static int add_tree(Walk *walk, const Tree *tree, uint32_t number, DiffKind kind)
{
	TreeInode inode;
	tree_inode(tree, number, &inode);
	DiffEntry entry = { .kind = kind, .mode = inode.mode };
	if (kind == DIFF_ADDED) {
		entry.new_size = file_size(&inode);
		entry.moved = moved_for(walk, number, &inode);
	} else {
		entry.old_size = file_size(&inode);
	}
	int r = add_entry(walk, entry);
	for (uint64_t i = 0; S_ISDIR(inode.mode) && i < inode.count && r == 0; i++) {
		TreeDirent child;
		tree_dirent(tree, inode.data + i, &child);
		int64_t before = path_push(walk, child.name);
		if (before < 0)
			return (int)before;
		r = add_tree(walk, tree, child.inode, kind);
		walk->path.size = (size_t)before;
	}
	return r;
}

static int walk_pair(Walk *walk, uint32_t left, uint32_t right);

/* A name that one or both images have in a directory; NULL: this one has not. */
static int walk_name(Walk *walk, const TreeDirent *left, const TreeDirent *right)
{
	int64_t before = path_push(walk, left ? left->name : right->name);
	int r;
	if (before < 0)
		return (int)before;
	if (left && right)
		r = walk_pair(walk, left->inode, right->inode);
	else if (left)
		r = add_tree(walk, &walk->left->tree, left->inode, DIFF_REMOVED);
	else
		r = add_tree(walk, &walk->right->tree, right->inode, DIFF_ADDED);
	walk->path.size = (size_t)before;
	return r;
}

static int walk_entries(Walk *walk, const TreeInode *left, const TreeInode *right)
{
	uint64_t i = 0, j = 0;
	int r = 0;
	while (r == 0 && (i < left->count || j < right->count)) {
		TreeDirent one, other;
		int order = i == left->count ? 1 : j == right->count ? -1 : 0;
		if (order <= 0)
			tree_dirent(&walk->left->tree, left->data + i, &one);
		if (order >= 0)
			tree_dirent(&walk->right->tree, right->data + j, &other);
		if (order == 0)
			order = tree_compare_names(one.name, other.name);
		r = walk_name(walk, order <= 0 ? &one : NULL, order >= 0 ? &other : NULL);
		i += order <= 0;
		j += order >= 0;
	}
	return r;
}

static int walk_pair(Walk *walk, uint32_t left, uint32_t right)
{
	FilePair pair = { .left = walk->left, .right = walk->right };
	tree_inode(&walk->left->tree, left, &pair.left_inode);
	tree_inode(&walk->right->tree, right, &pair.right_inode);
	if ((pair.left_inode.mode & S_IFMT) != (pair.right_inode.mode & S_IFMT)) {
		int r = add_tree(walk, &walk->left->tree, left, DIFF_REMOVED);
		return r == 0 ? add_tree(walk, &walk->right->tree, right, DIFF_ADDED) : r;
	}
	int r = compare_inodes(walk, &pair, right);
	if (r == 0 && S_ISDIR(pair.left_inode.mode))
		r = walk_entries(walk, &pair.left_inode, &pair.right_inode);
	return r;
}

static int compare_entries(const void *left, const void *right)
{
	const DiffEntry *first = left, *second = right;
	if (first->moved != second->moved)
		return first->moved > second->moved ? -1 : 1;
	int order = strcmp(first->path, second->path);
	return order ? order : first->kind < second->kind ? -1 : first->kind > second->kind;
}

static int run(Walk *walk)
{
	walk->counted = calloc(walk->right->tree.inode_count / 8 + 1, 1);
	int r = walk->counted ? frame_moves_new(walk->left, walk->right, &walk->moves) : -ENOMEM;
	if (r == 0)
		r = walk_pair(walk, 0, 0);
	if (r == 0 && walk->diff.count > 0)
		qsort(walk->diff.entries, walk->diff.count, sizeof(*walk->diff.entries), compare_entries);
	walk->diff.frames = walk->moves.frames;
	walk->diff.indexes = walk->moves.indexes;
	walk->diff.layers = walk->moves.layers;
	walk->diff.other = walk->moves.frames - walk->attributed;
	frame_moves_done(&walk->moves);
	buffer_done(&walk->path);
	free(walk->counted);
	return r;
}

int image_diff(Store *store, const StoreImage *left, const StoreImage *right, ImageDiff *ret_diff, Error *error)
{
	ImageView left_view = { 0 }, right_view = { 0 };
	Walk walk = { .left = &left_view, .right = &right_view, .error = error };
	int r = image_view_open(store, &left->manifest, &left_view, error);
	if (r == 0)
		r = image_view_open(store, &right->manifest, &right_view, error);
	if (r == 0) {
		r = run(&walk);
		if (r == -ENOMEM)
			(void)error_set(error, r, "out of memory to compare images");
	}
	image_view_done(&left_view);
	image_view_done(&right_view);
	if (r < 0) {
		image_diff_done(&walk.diff);
		return r;
	}
	if (!digest_equal(&left->digest, &right->digest))
		walk.diff.documents = right->json_size;
	if (!digest_equal(&left->manifest.config, &right->manifest.config))
		walk.diff.documents += right->manifest.config_size;
	*ret_diff = walk.diff;
	return 0;
}
