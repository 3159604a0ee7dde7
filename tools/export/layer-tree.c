#include "tools/export/layer-tree.h"

#include <string.h>
#include <sys/stat.h>

#include "tools/export/layer-tree-internal.h"

int layer_node_new(LayerTree *tree, uint32_t *ret_node)
{
	if (tree->node_count == tree->node_capacity) {
		if (tree->node_capacity > UINT32_MAX / 4)
			return -EFBIG;
		uint32_t capacity = tree->node_capacity ? tree->node_capacity + tree->node_capacity / 2 : 256;
		LayerNode *nodes = reallocarray(tree->nodes, capacity, sizeof(*nodes));
		if (!nodes)
			return -ENOMEM;
		tree->nodes = nodes;
		tree->node_capacity = capacity;
	}
	tree->nodes[tree->node_count] = (LayerNode){ .own_name = LAYER_NONE };
	*ret_node = tree->node_count++;
	return 0;
}

static void make_implied(LayerNode *node, uint32_t parent)
{
	node->inode = (TreeInode){ .mode = S_IFDIR | 0755, .flags = TREE_IMPLIED, .parent = parent };
}

int layer_node_new_directory(LayerTree *tree, uint32_t parent, TreeString name, uint32_t *ret_node)
{
	uint32_t node = 0;
	int r = layer_node_new(tree, &node);
	if (r == 0)
		r = layer_names_set(&tree->names, parent, name.data, name.size, node);
	if (r < 0)
		return r;
	make_implied(&tree->nodes[node], parent);
	const LayerName *own = layer_names_find(&tree->names, parent, name.data, name.size);
	tree->nodes[node].own_name = (uint32_t)(own - tree->names.names);
	*ret_node = node;
	return 0;
}

int layer_tree_new(LayerTree **ret_tree)
{
	_cleanup_(layer_tree_free_p) LayerTree *tree = calloc(1, sizeof(*tree));
	uint32_t root;
	if (!tree)
		return -ENOMEM;
	int r = layer_names_init(&tree->names);
	if (r == 0)
		r = layer_node_new(tree, &root);
	if (r < 0)
		return r;
	make_implied(&tree->nodes[LAYER_ROOT], LAYER_ROOT);
	*ret_tree = TAKE_PTR(tree);
	return 0;
}

LayerTree *layer_tree_free(LayerTree *tree)
{
	if (tree) {
		layer_names_done(&tree->names);
		free(tree->nodes);
		buffer_done(&tree->extents);
		buffer_done(&tree->xattrs);
		buffer_done(&tree->sets);
		buffer_done(&tree->digests);
		buffer_done(&tree->lower);
		free(tree);
	}
	return NULL;
}

bool layer_tree_wants_digest(const TarEntry *entry)
{
	return entry->typeflag == '0' && !entry->sparse && entry->size > 0 && entry->size < FORMAT_LARGE_FILE;
}

static bool same_string(const LayerTree *tree, uint32_t offset, uint32_t size, TreeString string)
{
	TreeString kept = layer_names_string(&tree->names, offset, size);
	return size == string.size && memcmp(kept.data, string.data, size) == 0;
}

static bool is_last_set(const LayerTree *tree, const TarEntry *entry)
{
	if (tree->sets.size == 0)
		return false;
	const LayerXattrSet *set = (const LayerXattrSet *)(tree->sets.data + tree->sets.size) - 1;
	const LayerXattr *kept = (const LayerXattr *)tree->xattrs.data + set->first;
	if (set->count != entry->xattr_count)
		return false;
	for (size_t i = 0; i < set->count; i++) {
		if (!same_string(tree, kept[i].name, kept[i].name_size, entry->xattrs[i].name) ||
		    !same_string(tree, kept[i].value, kept[i].value_size, entry->xattrs[i].value))
			return false;
	}
	return true;
}

/* Keeps a list of xattrs; files that follow one another often have the same. */
static int keep_xattrs(LayerTree *tree, const TarEntry *entry, uint32_t *ret_xattr)
{
	int r = 0;
	LayerXattrSet set = { .first = (uint32_t)(tree->xattrs.size / sizeof(LayerXattr)),
			      .count = (uint32_t)entry->xattr_count };
	if (entry->xattr_count > 0 && !is_last_set(tree, entry)) {
		for (size_t i = 0; r == 0 && i < entry->xattr_count; i++) {
			const TreeXattr *from = &entry->xattrs[i];
			LayerXattr xattr = { .name_size = (uint32_t)from->name.size,
					     .value_size = (uint32_t)from->value.size };
			r = layer_names_keep(&tree->names, from->name.data, from->name.size, &xattr.name);
			if (r == 0)
				r = layer_names_keep(&tree->names, from->value.data, from->value.size, &xattr.value);
			if (r == 0)
				r = buffer_append(&tree->xattrs, &xattr, sizeof(xattr));
		}
		if (r == 0)
			r = buffer_append(&tree->sets, &set, sizeof(set));
	}
	if (r == 0)
		*ret_xattr = entry->xattr_count > 0 ? (uint32_t)(tree->sets.size / sizeof(set)) : 0;
	return r;
}

static uint32_t type_bits(const TarEntry *entry)
{
	switch (entry->typeflag) {
	case '0':
		return S_IFREG;
	case '2':
		return S_IFLNK;
	case '3':
		return S_IFCHR;
	case '4':
		return S_IFBLK;
	case '5':
		return S_IFDIR;
	case '6':
		return S_IFIFO;
	default:
		return 0; /* of a lower hard link nobody knows the type */
	}
}

/* What all types have; a directory keeps its place. */
static int set_metadata(LayerTree *tree, uint32_t number, const TarEntry *entry)
{
	uint32_t xattr = 0;
	int r = keep_xattrs(tree, entry, &xattr);
	if (r < 0)
		return r;
	TreeInode *inode = &tree->nodes[number].inode;
	inode->mode = type_bits(entry) | entry->mode;
	inode->uid = entry->uid;
	inode->gid = entry->gid;
	inode->mtime_sec = entry->mtime_sec;
	inode->mtime_nsec = entry->mtime_nsec;
	inode->flags &= ~(uint32_t)TREE_IMPLIED;
	inode->xattr = xattr;
	return 0;
}

static int set_target(LayerTree *tree, uint32_t number, const char *target, size_t size)
{
	uint32_t offset = 0;
	int r = layer_names_keep(&tree->names, target, size, &offset);
	if (r < 0)
		return r;
	tree->nodes[number].inode.data = offset;
	tree->nodes[number].inode.count = (uint32_t)size;
	return 0;
}

static int set_file(LayerTree *tree, uint32_t number, const TarEntry *entry, const Digest *content)
{
	LayerNode *node = &tree->nodes[number];
	node->inode.size = entry->size;
	node->inode.data = entry->data_offset;
	if (entry->sparse) {
		node->inode.flags |= TREE_SPARSE;
		node->inode.data = tree->extents.size / sizeof(TreeExtent);
		node->inode.count = (uint32_t)entry->extent_count;
		return buffer_append(&tree->extents, entry->extents, entry->extent_count * sizeof(TreeExtent));
	}
	if (!layer_tree_wants_digest(entry))
		return 0;
	node->digest = (uint32_t)(tree->digests.size / sizeof(Digest));
	return buffer_append(&tree->digests, content, sizeof(*content));
}

static int set_content(LayerTree *tree, uint32_t number, const TarEntry *entry, const Digest *content)
{
	TreeInode *inode = &tree->nodes[number].inode;
	switch (entry->typeflag) {
	case '0':
		return set_file(tree, number, entry, content);
	case '2':
		inode->size = entry->target_size;
		return set_target(tree, number, entry->target, entry->target_size);
	case '3':
	case '4':
		inode->data = (uint64_t)entry->device_major << 32 | entry->device_minor;
		return 0;
	default:
		return 0;
	}
}

/* Where the entry's name goes; its parents are there afterwards. */
static int find_place(LayerTree *tree, const TarEntry *entry, uint32_t *ret_parent, TreeString *ret_name, Error *error)
{
	uint32_t parent = 0;
	TreeString name = { 0 };
	int r = layer_path_walk(tree, entry->name, true, &parent, &name, error);
	if (r < 0)
		return r;
	if (name.size == 0 && entry->typeflag != '5')
		return error_set(error, -EBADMSG, "it takes the place of the root but is no directory");
	*ret_parent = parent;
	*ret_name = name;
	return 0;
}

static int add_directory(LayerTree *tree, const TarEntry *entry, Error *error)
{
	uint32_t parent, number = LAYER_ROOT;
	TreeString name;
	int r = find_place(tree, entry, &parent, &name, error);
	if (r < 0)
		return r;
	if (name.size > 0) {
		const LayerName *known = layer_names_find(&tree->names, parent, name.data, name.size);
		if (known && S_ISDIR(tree->nodes[known->node].inode.mode))
			number = known->node;
		else
			r = layer_node_new_directory(tree, parent, name, &number);
	}
	return r < 0 ? r : set_metadata(tree, number, entry);
}

static int add_other(LayerTree *tree, const TarEntry *entry, const Digest *content, Error *error)
{
	uint32_t parent, number = 0;
	TreeString name;
	int r = find_place(tree, entry, &parent, &name, error);
	if (r == 0)
		r = layer_node_new(tree, &number);
	if (r == 0)
		r = set_metadata(tree, number, entry);
	if (r == 0)
		r = set_content(tree, number, entry, content);
	return r < 0 ? r : layer_names_set(&tree->names, parent, name.data, name.size, number);
}

static bool same_path(const char *left, const char *right)
{
	for (;;) {
		TreeString one = layer_path_next(&left), other = layer_path_next(&right);
		if (one.size != other.size ||
		    memcmp(one.size ? one.data : "", other.size ? other.data : "", one.size) != 0)
			return false;
		if (one.size == 0)
			return true;
	}
}

/* A node for a target that is not there; perhaps it comes yet. */
static int new_lower_link(LayerTree *tree, const TarEntry *entry, uint32_t *ret_node)
{
	char path[FORMAT_TARGET_MAX + 1];
	size_t size = 0;
	const char *at = entry->target;
	for (TreeString part; (part = layer_path_next(&at)).size > 0; size += part.size) {
		if (size > 0)
			path[size++] = '/';
		memcpy(path + size, part.data, part.size);
	}
	uint32_t number = 0;
	int r = layer_node_new(tree, &number);
	if (r == 0)
		r = set_metadata(tree, number, entry);
	if (r == 0)
		r = set_target(tree, number, path, size);
	if (r == 0)
		r = buffer_append(&tree->lower, &number, sizeof(number));
	if (r < 0)
		return r;
	tree->nodes[number].inode.flags |= TREE_LOWER_LINK;
	*ret_node = number;
	return 0;
}

static int add_link(LayerTree *tree, const TarEntry *entry, Error *error)
{
	uint32_t number = 0, parent;
	TreeString name;
	if (same_path(entry->name, entry->target))
		return 0;
	/* Before the entry's own parents are made, which might take the target's place. */
	int r = layer_path_find(tree, entry->target, &number);
	if (r == -ENOENT)
		r = new_lower_link(tree, entry, &number);
	if (r < 0)
		return r;
	if (S_ISDIR(tree->nodes[number].inode.mode))
		return error_set(error, -EBADMSG, "it is a hard link to directory %.100s", entry->target);
	r = find_place(tree, entry, &parent, &name, error);
	return r < 0 ? r : layer_names_set(&tree->names, parent, name.data, name.size, number);
}

int layer_tree_add(LayerTree *tree, const TarEntry *entry, const Digest *content, Error *error)
{
	Error reason;
	int r;
	reason.message[0] = '\0';
	if (entry->typeflag == '1')
		r = add_link(tree, entry, &reason);
	else if (entry->typeflag == '5')
		r = add_directory(tree, entry, &reason);
	else
		r = add_other(tree, entry, content, &reason);
	if (r == -EBADMSG)
		return error_set(
			error, r,
			"tar entry %.200s, at byte %llu: %.400s; the layer is corrupt, build or pull the image again",
			entry->name, (unsigned long long)entry->header_offset, reason.message);
	if (r == -EFBIG)
		return error_set(error, r,
				 "tar entry %.200s: the layer has more names than an index can hold; split the layer",
				 entry->name);
	return r;
}
