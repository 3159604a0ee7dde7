#include "fs/view/view-nodes.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

void view_nodes_done(ViewNodes *nodes)
{
	free(nodes->items);
	free(nodes->entries);
	*nodes = (ViewNodes){ 0 };
}

int view_nodes_add(ViewNodes *nodes, ViewNode node, uint32_t *ret_number)
{
	if (nodes->count == nodes->capacity) {
		if (nodes->capacity > UINT32_MAX / 2)
			return -EFBIG;
		uint32_t capacity = nodes->capacity ? 2 * nodes->capacity : 1024;
		ViewNode *grown = reallocarray(nodes->items, capacity, sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		nodes->items = grown;
		nodes->capacity = capacity;
	}
	nodes->items[nodes->count] = node;
	*ret_number = nodes->count++;
	return 0;
}

void view_nodes_begin_entries(ViewNodes *nodes, uint32_t node)
{
	nodes->items[node].first_entry = nodes->entry_count;
}

int view_nodes_add_entry(ViewNodes *nodes, TreeDirent entry)
{
	if (nodes->entry_count == nodes->entry_capacity) {
		size_t capacity = nodes->entry_capacity ? 2 * nodes->entry_capacity : 1024;
		TreeDirent *grown = reallocarray(nodes->entries, capacity, sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		nodes->entries = grown;
		nodes->entry_capacity = capacity;
	}
	nodes->entries[nodes->entry_count++] = entry;
	return 0;
}

static int compare_entries(const void *left, const void *right)
{
	return tree_compare_names(((const TreeDirent *)left)->name, ((const TreeDirent *)right)->name);
}

void view_nodes_end_entries(ViewNodes *nodes, uint32_t node)
{
	ViewNode *directory = &nodes->items[node];
	directory->entry_count = (uint32_t)(nodes->entry_count - directory->first_entry);
	/* A single source's entries are in order already. */
	if (directory->stack.count > 1)
		qsort(nodes->entries + directory->first_entry, directory->entry_count, sizeof(*nodes->entries),
		      compare_entries);
}

/* The lists that go with an inode, collected for the writer; their arrays are reused from inode to inode. */
typedef struct Extras {
	TreeExtras lists;
	TreeExtent *extents;
	TreeXattr *xattrs;
	size_t extent_capacity, xattr_capacity;
} Extras;

static void extras_done(Extras *extras)
{
	free(extras->extents);
	free(extras->xattrs);
}

static int extras_collect(Extras *extras, const Tree *tree, const TreeInode *inode)
{
	size_t extent_count = inode->flags & TREE_SPARSE ? inode->count : 0;
	size_t xattr_count = tree_xattr_count(tree, inode);
	if (extent_count > extras->extent_capacity) {
		TreeExtent *grown = reallocarray(extras->extents, extent_count, sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		extras->extents = grown;
		extras->extent_capacity = extent_count;
	}
	if (xattr_count > extras->xattr_capacity) {
		TreeXattr *grown = reallocarray(extras->xattrs, xattr_count, sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		extras->xattrs = grown;
		extras->xattr_capacity = xattr_count;
	}
	for (uint32_t i = 0; i < extent_count; i++)
		tree_extent(tree, inode, i, &extras->extents[i]);
	for (uint32_t i = 0; i < xattr_count; i++)
		tree_xattr(tree, inode, i, &extras->xattrs[i]);
	extras->lists = (TreeExtras){
		.extents = extras->extents,
		.extent_count = extent_count,
		.xattrs = extras->xattrs,
		.xattr_count = xattr_count,
	};
	if (S_ISLNK(inode->mode))
		extras->lists.target = tree_target(tree, inode);
	return 0;
}

static int write_node(const ViewNode *node, const Tree *layers, Extras *extras, TreeWriter *writer)
{
	const Tree *tree = &layers[node->source.layer];
	TreeInode inode;
	uint32_t number;
	tree_inode(tree, node->source.inode, &inode);
	int r = extras_collect(extras, tree, &inode);
	if (r < 0)
		return r;
	inode.nlink = node->nlink;
	inode.parent = node->parent;
	inode.layer = S_ISREG(inode.mode) ? node->source.layer : 0;
	return tree_writer_add_inode(writer, &inode, &extras->lists, &number);
}

int view_nodes_write(const ViewNodes *nodes, const Tree *layers, ImageWriter *image)
{
	_cleanup_(tree_writer_free_p) TreeWriter *writer = NULL;
	_cleanup_(extras_done) Extras extras = { 0 };
	int r = tree_writer_new(&writer);
	for (uint32_t i = 0; r == 0 && i < nodes->count; i++)
		r = write_node(&nodes->items[i], layers, &extras, writer);
	for (uint32_t i = 0; r == 0 && i < nodes->count; i++) {
		const ViewNode *node = &nodes->items[i];
		if (node->directory)
			r = tree_writer_add_entries(writer, i, nodes->entries + node->first_entry, node->entry_count);
	}
	return r < 0 ? r : tree_writer_finish(writer, image);
}
