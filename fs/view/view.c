/*
 * The merge works on stacks of sources: the directories of single layers that make up one merged directory, highest first.
 * Directories are walked breadth first from the root's stack, so siblings get neighbouring inode numbers.
 */
#include "fs/view/view.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/view/view-nodes.h"
#include "fs/view/view-stack.h"

#define NO_NODE UINT32_MAX

typedef struct Merge {
	ViewStackSet stacks;
	ViewNodes nodes;
	uint32_t **seen; /* per layer, per inode: its node, or NO_NODE; names of one inode meet in one node */
	Error *error;
} Merge;

int view_chain_id(const Digest *diff_ids, size_t count, Digest *ret_chain_id)
{
	if (count == 0)
		return -EINVAL;
	Digest chain = diff_ids[0];
	for (size_t i = 1; i < count; i++) {
		char text[2 * DIGEST_TEXT_SIZE];
		digest_text(&chain, text);
		text[DIGEST_TEXT_SIZE - 1] = ' ';
		digest_text(&diff_ids[i], text + DIGEST_TEXT_SIZE);
		int r = digest_of(text, strlen(text), &chain);
		if (r < 0)
			return r;
	}
	*ret_chain_id = chain;
	return 0;
}

/* The node of a layer's inode that is no directory; made when this is its first name. */
static int node_of_file(Merge *merge, ViewSource file, uint32_t *ret_node)
{
	uint32_t *slot = &merge->seen[file.layer][file.inode];
	if (*slot == NO_NODE) {
		int r = view_nodes_add(&merge->nodes, (ViewNode){ .source = file }, slot);
		if (r < 0)
			return r;
	}
	merge->nodes.items[*slot].nlink++;
	*ret_node = *slot;
	return 0;
}

static int node_of_directory(Merge *merge, ViewStack stack, uint32_t parent, uint32_t *ret_node)
{
	ViewNode node = { .source = stack.self, .stack = stack, .parent = parent, .nlink = 2, .directory = true };
	return view_nodes_add(&merge->nodes, node, ret_node);
}

static int lower_link_error(const Merge *merge, ViewSource link, TreeString target)
{
	return error_set(merge->error, -EBADMSG,
			 "layer %u holds a hard link to \"%.*s\", which no layer below it has as a file; such an image "
			 "cannot be unpacked either, build it without that link",
			 link.layer + 1, (int)(target.size > 500 ? 500 : target.size), target.data);
}

/* Follows a hard link into the layers below its own. Each step goes down, so this ends. */
static int resolve_lower_link(Merge *merge, ViewSource *source)
{
	for (;;) {
		const Tree *tree = &merge->stacks.layers[source->layer];
		TreeInode inode;
		tree_inode(tree, source->inode, &inode);
		if (!(inode.flags & TREE_LOWER_LINK))
			return S_ISDIR(inode.mode) ? -EISDIR : 0;

		TreeString target = tree_target(tree, &inode);
		ViewSource found;
		int r = source->layer == 0 ? -ENOENT : view_stack_walk(&merge->stacks, source->layer, target, &found);
		if (r == -ENOENT || r == -ENOTDIR || r == -EISDIR || r == -ELOOP)
			return lower_link_error(merge, *source, target);
		if (r < 0)
			return r;
		*source = found;
	}
}

/* Adds the merged child `name` of `parent` to its entries. */
static int add_child(Merge *merge, uint32_t parent, TreeString name, ViewStack hits)
{
	ViewSource top = view_stack_at(&merge->stacks, hits, 0);
	const Tree *tree = &merge->stacks.layers[top.layer];
	TreeInode inode;
	tree_inode(tree, top.inode, &inode);

	uint32_t node;
	int r;
	if (S_ISDIR(inode.mode)) {
		r = node_of_directory(merge, hits, parent, &node);
		merge->nodes.items[parent].nlink++;
	} else {
		r = resolve_lower_link(merge, &top);
		if (r == 0)
			r = node_of_file(merge, top, &node);
		if (r == 0)
			tree_inode(&merge->stacks.layers[top.layer], top.inode, &inode);
	}
	if (r < 0)
		return r;
	return view_nodes_add_entry(&merge->nodes,
				    (TreeDirent){ .inode = node, .type = (uint8_t)IFTODT(inode.mode), .name = name });
}

/* Adds what source `index` of the stack brings: names that no higher source has or hides. */
static int merge_source(Merge *merge, uint32_t parent, ViewStack stack, uint32_t index)
{
	ViewSource source = view_stack_at(&merge->stacks, stack, index);
	const Tree *tree = &merge->stacks.layers[source.layer];
	TreeInode directory;
	tree_inode(tree, source.inode, &directory);

	for (uint32_t i = 0; i < directory.count; i++) {
		TreeDirent entry;
		tree_dirent(tree, directory.data + i, &entry);
		if (view_name_is_whiteout(entry.name) || view_stack_decides(&merge->stacks, stack, index, entry.name))
			continue;
		ViewStack hits;
		int r = view_stack_child(&merge->stacks, stack, index, entry.name, &entry.inode, &hits);
		if (r == 0)
			r = add_child(merge, parent, entry.name, hits);
		if (r < 0)
			return r;
	}
	return 0;
}

static int merge_directories(Merge *merge)
{
	for (uint32_t node = 0; node < merge->nodes.count; node++) {
		if (!merge->nodes.items[node].directory)
			continue;
		ViewStack stack = merge->nodes.items[node].stack;
		view_nodes_begin_entries(&merge->nodes, node);
		for (uint32_t i = 0; i < stack.count; i++) {
			int r = merge_source(merge, node, stack, i);
			if (r < 0)
				return r;
		}
		view_nodes_end_entries(&merge->nodes, node);
	}
	return 0;
}

static int merge_init(Merge *merge, const Tree *layers, size_t count, Error *error)
{
	*merge = (Merge){ .stacks = { .layers = layers, .layer_count = (uint32_t)count }, .error = error };
	merge->seen = calloc(count, sizeof(*merge->seen));
	if (!merge->seen)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		merge->seen[i] = malloc(layers[i].inode_count * sizeof(**merge->seen));
		if (!merge->seen[i])
			return -ENOMEM;
		memset(merge->seen[i], 0xff, layers[i].inode_count * sizeof(**merge->seen));
	}
	return 0;
}

static void merge_done(Merge *merge)
{
	for (size_t i = 0; merge->seen && i < merge->stacks.layer_count; i++)
		free(merge->seen[i]);
	free(merge->seen);
	view_stack_set_done(&merge->stacks);
	view_nodes_done(&merge->nodes);
}

static int write_view(Merge *merge, const Digest *diff_ids, const Digest *chain_id, uint8_t **ret_image,
		      size_t *ret_size)
{
	_cleanup_(image_writer_free_p) ImageWriter *image = NULL;
	int r = image_writer_new(&(ImageHeader){ .kind = FORMAT_KIND_VIEW, .id = *chain_id }, &image);
	if (r == 0)
		r = view_nodes_write(&merge->nodes, merge->stacks.layers, image);
	if (r == 0)
		r = image_writer_add(image, FORMAT_SECTION_LAYERS, FORMAT_SECTION_MANDATORY, diff_ids,
				     merge->stacks.layer_count * sizeof(*diff_ids));
	return r < 0 ? r : image_writer_finish(image, ret_image, ret_size);
}

int view_build(const Tree *layers, const Digest *diff_ids, size_t count, uint8_t **ret_image, size_t *ret_size,
	       Error *error)
{
	Digest chain_id;
	if (count == 0 || count > UINT16_MAX)
		return error_set(error, -EBADMSG, "an image of %zu layers cannot be mounted: 1 to %u can", count,
				 UINT16_MAX);
	int r = view_chain_id(diff_ids, count, &chain_id);
	if (r < 0)
		return r;

	_cleanup_(merge_done) Merge merge;
	ViewStack root_stack;
	uint32_t root_node;
	r = merge_init(&merge, layers, count, error);
	if (r == 0)
		r = view_stack_root(&merge.stacks, (uint32_t)count, &root_stack);
	if (r == 0)
		r = node_of_directory(&merge, root_stack, 0, &root_node);
	if (r == 0)
		r = merge_directories(&merge);
	if (r == 0)
		r = write_view(&merge, diff_ids, &chain_id, ret_image, ret_size);
	return r;
}
