#include "tools/export/image-view.h"

#include <string.h>
#include <sys/stat.h>

#include "fs/view/view.h"

void image_view_done(ImageView *view)
{
	for (size_t i = 0; i < view->layer_count && view->layers; i++) {
		(void)layer_reader_free(view->layers[i].reader);
		free(view->layers[i].packed);
	}
	free(view->layers);
	free(view->data);
	*view = (ImageView){ 0 };
}

static int compare_packed(const void *left, const void *right)
{
	const PackedDigest *first = left, *second = right;
	return first->offset < second->offset ? -1 : first->offset > second->offset;
}

/* Digests stand in the order of inodes; a view knows the offset of the data. */
static int load_packed(const Tree *tree, ImageViewLayer *layer)
{
	const ImageSection *section = &layer->reader->image.sections[FORMAT_SECTION_PACKED_DIGESTS];
	size_t count = section->size / DIGEST_SIZE, used = 0;
	if (!section->present || count == 0)
		return 0;
	PackedDigest *packed = calloc(count, sizeof(*packed));
	if (!packed)
		return -ENOMEM;
	for (uint32_t i = 0; i < tree->inode_count && used < count; i++) {
		TreeInode inode;
		tree_inode(tree, i, &inode);
		if (!tree_is_packed(&inode))
			continue;
		packed[used] = (PackedDigest){ .offset = inode.data, .digest = section->data + used * DIGEST_SIZE };
		used++;
	}
	qsort(packed, used, sizeof(*packed), compare_packed);
	layer->packed = packed;
	layer->packed_count = used;
	return 0;
}

static int open_layer(Store *store, const ManifestLayer *layer, ImageViewLayer *ret_layer, Tree *ret_tree, Error *error)
{
	char text[DIGEST_TEXT_SIZE];
	int r = layer_reader_open(store, layer, &ret_layer->reader, error);
	if (r == 0)
		r = tree_open(&ret_layer->reader->image, ret_tree, error);
	if (r == 0)
		r = load_packed(ret_tree, ret_layer);
	return r < 0 ? error_prefix(error, r, "store %s: blob %s", store_path(store), digest_text(&layer->blob, text))
		     : 0;
}

static int merge(ImageView *view, const Tree *trees, const Manifest *manifest, Error *error)
{
	size_t size;
	_cleanup_free_ Digest *diff_ids = calloc(view->layer_count, sizeof(*diff_ids));
	if (!diff_ids)
		return error_set(error, -ENOMEM, "out of memory for a view");
	for (size_t i = 0; i < view->layer_count; i++)
		diff_ids[i] = manifest->layers[i].diff_id;
	int r = view_build(trees, diff_ids, view->layer_count, &view->data, &size, error);
	if (r == 0)
		r = image_open(view->data, size, &view->image, error);
	return r == 0 ? tree_open(&view->image, &view->tree, error) : r;
}

int image_view_open(Store *store, const Manifest *manifest, ImageView *ret_view, Error *error)
{
	ImageView view = { .layer_count = manifest->layer_count };
	if (manifest->layer_count == 0)
		return error_set(error, -EBADMSG, "the image has no layers, so there is nothing to compare");
	_cleanup_free_ Tree *trees = calloc(manifest->layer_count, sizeof(*trees));
	view.layers = calloc(manifest->layer_count, sizeof(*view.layers));
	int r = trees && view.layers ? 0 : error_set(error, -ENOMEM, "out of memory for an image");
	for (size_t i = 0; i < manifest->layer_count && r == 0; i++)
		r = open_layer(store, &manifest->layers[i], &view.layers[i], &trees[i], error);
	if (r == 0)
		r = merge(&view, trees, manifest, error);
	if (r < 0) {
		image_view_done(&view);
		return r;
	}
	/* What was opened points into what it was opened on, which has moved. */
	*ret_view = view;
	ret_view->tree.image = &ret_view->image;
	return 0;
}

int image_view_extents(const ImageView *view, const TreeInode *inode, ImageViewVisitor *visit, void *arg)
{
	TreeExtent extent = { .tar_offset = inode->data, .length = inode->size };
	if (!(inode->flags & TREE_SPARSE))
		return inode->size > 0 ? visit(arg, &extent) : 0;
	int r = 0;
	for (uint32_t i = 0; i < inode->count && r == 0; i++) {
		tree_extent(&view->tree, inode, i, &extent);
		r = visit(arg, &extent);
	}
	return r;
}

typedef struct Read {
	LayerReader *reader;
	uint64_t offset, end; /* of what is wanted of the file */
	uint8_t *buffer;
	Error *error;
} Read;

static int read_extent(void *arg, const TreeExtent *extent)
{
	const Read *wanted = arg;
	uint64_t extent_end = extent->file_offset + extent->length;
	uint64_t from = extent->file_offset > wanted->offset ? extent->file_offset : wanted->offset;
	uint64_t to = extent_end < wanted->end ? extent_end : wanted->end;
	if (from >= to)
		return 0;
	return layer_reader_read(wanted->reader, extent->tar_offset + (from - extent->file_offset),
				 wanted->buffer + (from - wanted->offset), (size_t)(to - from), wanted->error);
}

int image_view_read(const ImageView *view, const TreeInode *inode, uint64_t offset, void *buffer, size_t size,
		    Error *error)
{
	Read wanted = { .reader = view->layers[inode->layer].reader,
			.offset = offset,
			.end = offset + size,
			.buffer = buffer,
			.error = error };
	if (!(inode->flags & TREE_SPARSE))
		return image_view_extents(view, inode, read_extent, &wanted);
	int r = 0;
	memset(buffer, 0, size);
	for (uint32_t i = tree_first_extent(&view->tree, inode, offset); i < inode->count && r == 0; i++) {
		TreeExtent extent;
		tree_extent(&view->tree, inode, i, &extent);
		if (extent.file_offset >= wanted.end)
			break;
		r = read_extent(&wanted, &extent);
	}
	return r;
}

uint64_t image_view_next_data(const ImageView *view, const TreeInode *inode, uint64_t offset)
{
	TreeExtent extent;
	if (!(inode->flags & TREE_SPARSE))
		return offset;
	uint32_t next = tree_first_extent(&view->tree, inode, offset);
	if (next == inode->count)
		return inode->size;
	tree_extent(&view->tree, inode, next, &extent);
	return extent.file_offset > offset ? extent.file_offset : offset;
}

int image_view_packed(const ImageView *view, const TreeInode *inode, Digest *ret_digest)
{
	const ImageViewLayer *layer = &view->layers[inode->layer];
	PackedDigest key = { .offset = inode->data };
	if (!tree_is_packed(inode) || layer->packed_count == 0)
		return -ENOENT;
	const PackedDigest *found =
		bsearch(&key, layer->packed, layer->packed_count, sizeof(*layer->packed), compare_packed);
	if (!found)
		return -ENOENT;
	memcpy(ret_digest->bytes, found->digest, DIGEST_SIZE);
	return 0;
}
