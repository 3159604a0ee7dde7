#include "tools/export/profile-files.h"

#include <sys/stat.h>

void profile_files_done(ProfileFiles *files)
{
	free(files->items);
	*files = (ProfileFiles){ 0 };
}

static size_t count_stretches(const Tree *view)
{
	size_t count = 0;
	for (uint32_t i = 0; i < view->inode_count; i++) {
		TreeInode inode;
		tree_inode(view, i, &inode);
		if (S_ISREG(inode.mode))
			count += inode.flags & TREE_SPARSE ? inode.count : 1;
	}
	return count;
}

static void add_file(ProfileFiles *files, const Tree *view, uint32_t number, const TreeInode *inode)
{
	if (!(inode->flags & TREE_SPARSE)) {
		if (inode->size > 0)
			files->items[files->count++] =
				(ProfileFile){ inode->layer, number, inode->data, inode->size, 0 };
		return;
	}
	for (uint32_t i = 0; i < inode->count; i++) {
		TreeExtent extent;
		tree_extent(view, inode, i, &extent);
		files->items[files->count++] =
			(ProfileFile){ inode->layer, number, extent.tar_offset, extent.length, extent.file_offset };
	}
}

static int compare(const void *left, const void *right)
{
	const ProfileFile *one = left, *other = right;
	if (one->layer != other->layer)
		return one->layer < other->layer ? -1 : 1;
	if (one->tar_offset != other->tar_offset)
		return one->tar_offset < other->tar_offset ? -1 : 1;
	return one->inode < other->inode ? -1 : one->inode > other->inode;
}

int profile_files_list(const Tree *view, ProfileFiles *ret_files)
{
	ProfileFiles files = { .items = calloc(count_stretches(view) + 1, sizeof(*files.items)) };
	if (!files.items)
		return -ENOMEM;
	for (uint32_t i = 0; i < view->inode_count; i++) {
		TreeInode inode;
		tree_inode(view, i, &inode);
		if (S_ISREG(inode.mode))
			add_file(&files, view, i, &inode);
	}
	qsort(files.items, files.count, sizeof(*files.items), compare);
	*ret_files = files;
	return 0;
}

size_t profile_files_find(const ProfileFiles *files, uint32_t layer, uint64_t tar_offset)
{
	size_t low = 0, high = files->count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		const ProfileFile *file = &files->items[middle];
		if (file->layer < layer || (file->layer == layer && file->tar_offset + file->length <= tar_offset))
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}
