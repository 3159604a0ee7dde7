/* The end of a layer's tree: what is still named, in which order, and the sections of the index. */
#include <dirent.h>
#include <string.h>
#include <sys/stat.h>

#include "tools/export/layer-tree-internal.h"

typedef struct Finish {
	LayerTree *tree;
	TreeWriter *writer;
	uint32_t *numbers; /* per node: its inode in the index, or LAYER_NONE; until they are given out, 0 where it is
			      alive */
	uint32_t *order;   /* names, those of a directory together */
	uint32_t *ends;    /* per node: behind its names in `order` */
} Finish;

static bool is_directory(const LayerTree *tree, uint32_t node)
{
	return S_ISDIR(tree->nodes[node].inode.mode);
}

/*
 * Counts the names of every node that are reached from the root. A directory comes after its parent, and is gone if
 * its name means something else by now.
 */
static void count_links(Finish *finish)
{
	const LayerTree *tree = finish->tree;
	for (uint32_t i = 0; i < tree->node_count; i++) {
		LayerNode *node = &tree->nodes[i];
		bool directory = is_directory(tree, i);
		bool alive = directory && (i == LAYER_ROOT || (tree->names.names[node->own_name].node == i &&
							       finish->numbers[node->inode.parent] != LAYER_NONE));
		finish->numbers[i] = alive ? 0 : LAYER_NONE;
		node->inode.nlink = alive ? 2 : 0;
	}
	for (uint32_t i = 0; i < tree->names.count; i++) {
		const LayerName *name = &tree->names.names[i];
		if (finish->numbers[name->directory] == LAYER_NONE)
			continue;
		if (is_directory(tree, name->node)) {
			tree->nodes[name->directory].inode.nlink++;
		} else {
			tree->nodes[name->node].inode.nlink++;
			finish->numbers[name->node] = 0;
		}
	}
}

/* Halves the way for whoever comes next: a tar can have a chain of as many links as it has entries. */
static uint32_t follow(uint32_t *targets, uint32_t node)
{
	while (targets[node] != node) {
		targets[node] = targets[targets[node]];
		node = targets[node];
	}
	return node;
}

/* Looks once more for the targets of hard links. A link that comes back to itself stays one to a lower layer. */
static int find_late_targets(LayerTree *tree, uint32_t *targets, const uint32_t *links, size_t count, Error *error)
{
	char path[FORMAT_TARGET_MAX + 1];
	for (uint32_t i = 0; i < tree->node_count; i++)
		targets[i] = i;
	for (size_t i = 0; i < count; i++) {
		uint32_t found = 0, link = links[i];
		TreeString target = layer_node_target(tree, &tree->nodes[link]);
		memcpy(path, target.data, target.size);
		path[target.size] = '\0';
		int r = tree->nodes[link].inode.nlink ? layer_path_find(tree, path, &found) : -ENOENT;
		if (r == -ENOENT)
			continue;
		if (r < 0)
			return r;
		if (is_directory(tree, found))
			return error_set(error, -EBADMSG,
					 "a hard link of the layer's tar names directory %.200s; the layer is corrupt, "
					 "build or pull the image again",
					 path);
		found = follow(targets, found);
		if (found != link)
			targets[link] = found;
	}
	return 0;
}

static int resolve_late_links(Finish *finish, Error *error)
{
	LayerTree *tree = finish->tree;
	size_t count = tree->lower.size / sizeof(uint32_t);
	if (count == 0)
		return 0;
	_cleanup_free_ uint32_t *targets = calloc(tree->node_count, sizeof(*targets));
	if (!targets)
		return -ENOMEM;
	int r = find_late_targets(tree, targets, (const uint32_t *)tree->lower.data, count, error);
	if (r < 0)
		return r;
	for (uint32_t i = 0; i < tree->names.count; i++) {
		LayerName *name = &tree->names.names[i];
		if (tree->nodes[name->node].inode.flags & TREE_LOWER_LINK)
			name->node = follow(targets, name->node);
	}
	count_links(finish);
	return 0;
}

static int add_inode(Finish *finish, const LayerNode *node, uint32_t *ret_number)
{
	const LayerTree *tree = finish->tree;
	TreeInode inode = node->inode;
	TreeExtras extras = { 0 };
	TreeXattr *xattrs = NULL;
	_cleanup_free_ void *owned = NULL;
	if (S_ISLNK(inode.mode) || inode.flags & TREE_LOWER_LINK)
		extras.target = layer_node_target(tree, node);
	if (inode.flags & TREE_SPARSE && inode.count > 0) {
		extras.extents = (const TreeExtent *)tree->extents.data + inode.data;
		extras.extent_count = inode.count;
	}
	if (inode.xattr) {
		const LayerXattrSet *set = (const LayerXattrSet *)tree->sets.data + inode.xattr - 1;
		const LayerXattr *from = (const LayerXattr *)tree->xattrs.data + set->first;
		owned = xattrs = calloc(set->count, sizeof(*xattrs));
		if (!xattrs)
			return -ENOMEM;
		for (uint32_t i = 0; i < set->count; i++) {
			xattrs[i].name = layer_names_string(&tree->names, from[i].name, from[i].name_size);
			xattrs[i].value = layer_names_string(&tree->names, from[i].value, from[i].value_size);
		}
		extras.xattrs = xattrs;
		extras.xattr_count = set->count;
	}
	if (S_ISDIR(inode.mode))
		inode.parent = finish->numbers[inode.parent];
	return tree_writer_add_inode(finish->writer, &inode, &extras, ret_number);
}

/* Nodes are in the order of the tar; those that are alive get the numbers from 0 on. */
static int add_inodes(Finish *finish, Buffer *digests)
{
	const LayerTree *tree = finish->tree;
	for (uint32_t i = 0; i < tree->node_count; i++) {
		const LayerNode *node = &tree->nodes[i];
		if (finish->numbers[i] == LAYER_NONE)
			continue;
		int r = add_inode(finish, node, &finish->numbers[i]);
		if (r == 0 && tree_is_packed(&node->inode))
			r = buffer_append(digests, tree->digests.data + node->digest * sizeof(Digest), sizeof(Digest));
		if (r < 0)
			return r;
	}
	return 0;
}

/* Puts the names of each directory that is alive together: ends[d] is where its names end, ends[d - 1] where they
 * begin. */
static void group_names(Finish *finish)
{
	const LayerNames *names = &finish->tree->names;
	uint32_t *ends = finish->ends, sum = 0;
	for (uint32_t i = 0; i < names->count; i++)
		ends[names->names[i].directory]++;
	for (uint32_t i = 0; i < finish->tree->node_count; i++) {
		uint32_t count = ends[i];
		ends[i] = sum;
		sum += count;
	}
	for (uint32_t i = 0; i < names->count; i++)
		finish->order[ends[names->names[i].directory]++] = i;
}

static int compare_dirents(const void *left, const void *right)
{
	const TreeDirent *one = left, *other = right;
	return tree_compare_names(one->name, other->name);
}

static int add_entries(Finish *finish, uint32_t directory, uint32_t first, uint32_t count)
{
	const LayerTree *tree = finish->tree;
	_cleanup_free_ TreeDirent *entries = calloc(count, sizeof(*entries));
	if (!entries)
		return -ENOMEM;
	for (uint32_t i = 0; i < count; i++) {
		const LayerName *name = &tree->names.names[finish->order[first + i]];
		entries[i] = (TreeDirent){
			.inode = finish->numbers[name->node],
			.type = (uint8_t)IFTODT(tree->nodes[name->node].inode.mode),
			.name = layer_names_string(&tree->names, name->offset, name->size),
		};
	}
	qsort(entries, count, sizeof(*entries), compare_dirents);
	return tree_writer_add_entries(finish->writer, finish->numbers[directory], entries, count);
}

static int add_directories(Finish *finish)
{
	uint32_t first = 0;
	group_names(finish);
	for (uint32_t i = 0; i < finish->tree->node_count; i++) {
		uint32_t end = finish->ends[i];
		if (end > first && finish->numbers[i] != LAYER_NONE) {
			int r = add_entries(finish, i, first, end - first);
			if (r < 0)
				return r;
		}
		first = end;
	}
	return 0;
}

static int write_sections(Finish *finish, ImageWriter *image)
{
	_cleanup_(buffer_done) Buffer digests = { 0 };
	int r = add_inodes(finish, &digests);
	if (r == 0)
		r = add_directories(finish);
	if (r == 0)
		r = tree_writer_finish(finish->writer, image);
	if (r == 0)
		r = image_writer_take(image, FORMAT_SECTION_PACKED_DIGESTS, 0, &digests);
	return r;
}

int layer_tree_finish(LayerTree *tree, ImageWriter *image, Error *error)
{
	_cleanup_(tree_writer_free_p) TreeWriter *writer = NULL;
	_cleanup_free_ uint32_t *numbers = calloc(tree->node_count, sizeof(*numbers));
	_cleanup_free_ uint32_t *ends = calloc(tree->node_count, sizeof(*ends));
	_cleanup_free_ uint32_t *order = calloc(tree->names.count + 1, sizeof(*order));
	if (!numbers || !ends || !order)
		return -ENOMEM;
	int r = tree_writer_new(&writer);
	if (r < 0)
		return r;
	Finish finish = { .tree = tree, .writer = writer, .numbers = numbers, .order = order, .ends = ends };
	count_links(&finish);
	r = resolve_late_links(&finish, error);
	if (r < 0)
		return r;
	layer_names_seal(&tree->names);
	r = write_sections(&finish, image);
	if (r == -EFBIG)
		return error_set(error, r, "the layer's tree is larger than an index can hold; split the layer");
	return r;
}
