#include <string.h>

#include "fs/base/bytes.h"
#include "fs/mount/mount-image.h"

uint32_t mount_image_read_size(const TreeInode *inode, uint64_t offset, uint32_t size)
{
	if (offset >= inode->size)
		return 0;
	uint64_t left = inode->size - offset;
	return left < size ? (uint32_t)left : size;
}

static int read_tar(const MountLayer *layer, FetchReader *reader, uint64_t tar_offset, uint64_t size, void *buffer,
		    MountMissing *ret_missing)
{
	/* A view does not know how long the tars are, so its offsets are only checked here. */
	if (!range_within(tar_offset, size, layer->chunks.tar_size))
		return -EIO;
	int r = fetch_read(layer->blob, reader, tar_offset, size, buffer);
	if (r == -EAGAIN)
		*ret_missing = (MountMissing){ .blob = layer->blob, .tar_offset = tar_offset, .size = size };
	return r;
}

static int read_sparse(const MountImage *image, FetchReader *reader, const TreeInode *inode, uint64_t offset,
		       uint32_t size, void *buffer, MountMissing *ret_missing)
{
	uint64_t end = offset + size;
	memset(buffer, 0, size);
	for (uint32_t i = tree_first_extent(&image->tree, inode, offset); i < inode->count; i++) {
		TreeExtent extent;
		tree_extent(&image->tree, inode, i, &extent);
		if (extent.file_offset >= end)
			break;
		uint64_t from = extent.file_offset > offset ? extent.file_offset : offset;
		uint64_t extent_end = extent.file_offset + extent.length;
		uint64_t to = extent_end < end ? extent_end : end;
		int r = read_tar(image->layers[inode->layer], reader, extent.tar_offset + (from - extent.file_offset),
				 to - from, (uint8_t *)buffer + (from - offset), ret_missing);
		if (r < 0)
			return r;
	}
	return 0;
}

/* The data of a sparse file stand together in its tar, so that what lies between two extents of it is of the file, too. */
static bool sparse_range(const Tree *tree, const TreeInode *inode, uint64_t offset, uint64_t end, uint64_t *ret_from,
			 uint64_t *ret_to)
{
	bool any = false;
	for (uint32_t i = tree_first_extent(tree, inode, offset); i < inode->count; i++) {
		TreeExtent extent;
		tree_extent(tree, inode, i, &extent);
		if (extent.file_offset >= end)
			break;
		uint64_t skip = extent.file_offset < offset ? offset - extent.file_offset : 0;
		uint64_t until = extent.length < end - extent.file_offset ? extent.length : end - extent.file_offset;
		if (!any)
			*ret_from = extent.tar_offset + skip;
		*ret_to = extent.tar_offset + until;
		any = true;
	}
	return any;
}

bool mount_image_chunks(const MountImage *image, const TreeInode *inode, uint64_t offset, uint32_t size,
			MountChunks *ret_chunks)
{
	uint64_t from = inode->data + offset, to = from + size;
	if (size == 0 || inode->layer >= image->layer_count)
		return false;
	if (inode->flags & TREE_SPARSE && !sparse_range(&image->tree, inode, offset, offset + size, &from, &to))
		return false;
	const ChunkTable *table = &image->layers[inode->layer]->chunks;
	if (to <= from || to > table->tar_size)
		return false;
	ret_chunks->layer = inode->layer;
	ret_chunks->count = chunk_table_find_range(table, from, to, &ret_chunks->first);
	return true;
}

int mount_image_read(const MountImage *image, FetchReader *reader, const TreeInode *inode, uint64_t offset,
		     uint32_t size, void *buffer, MountMissing *ret_missing)
{
	if (size == 0)
		return 0;
	if (inode->layer >= image->layer_count)
		return -EIO;
	if (inode->flags & TREE_SPARSE)
		return read_sparse(image, reader, inode, offset, size, buffer, ret_missing);
	if (inode->data > UINT64_MAX - offset)
		return -EIO;
	const MountLayer *layer = image->layers[inode->layer];
	int r = read_tar(layer, reader, inode->data + offset, size, buffer, ret_missing);
	if (inode->size <= layer->chunks.tar_size && (r == 0 || r == -EAGAIN))
		fetch_read_ahead(layer->blob, inode->data + offset, size, inode->data + inode->size, r == -EAGAIN);
	return r;
}
