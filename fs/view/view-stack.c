#include "fs/view/view-stack.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define WHITEOUT_PREFIX ".wh."
#define OPAQUE_MARKER   ".wh..wh..opq"

static const size_t prefix_size = sizeof(WHITEOUT_PREFIX) - 1;

void view_stack_set_done(ViewStackSet *set)
{
	free(set->sources);
	set->sources = NULL;
	set->count = set->capacity = 0;
}

ViewSource view_stack_at(const ViewStackSet *set, ViewStack stack, uint32_t index)
{
	return set->sources[stack.first + index];
}

static int push(ViewStackSet *set, ViewSource source)
{
	if (set->count == set->capacity) {
		size_t capacity = set->capacity ? 2 * set->capacity : 256;
		ViewSource *grown = reallocarray(set->sources, capacity, sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		set->sources = grown;
		set->capacity = capacity;
	}
	set->sources[set->count++] = source;
	return 0;
}

static void source_inode(const ViewStackSet *set, ViewSource source, TreeInode *ret_inode)
{
	tree_inode(&set->layers[source.layer], source.inode, ret_inode);
}

static bool source_lookup(const ViewStackSet *set, ViewSource directory, const char *name, size_t size,
			  ViewSource *ret_source)
{
	TreeInode inode;
	TreeDirent entry;
	source_inode(set, directory, &inode);
	if (tree_lookup(&set->layers[directory.layer], &inode, name, size, &entry) < 0)
		return false;
	*ret_source = (ViewSource){ .layer = directory.layer, .inode = entry.inode };
	return true;
}

static bool source_has(const ViewStackSet *set, ViewSource directory, const char *name, size_t size)
{
	ViewSource ignored;
	return source_lookup(set, directory, name, size, &ignored);
}

static bool source_whites_out(const ViewStackSet *set, ViewSource directory, TreeString name)
{
	char whiteout[FORMAT_NAME_MAX];
	if (prefix_size + name.size > sizeof(whiteout))
		return false; /* no layer can hold so long a name */
	memcpy(whiteout, WHITEOUT_PREFIX, prefix_size);
	memcpy(whiteout + prefix_size, name.data, name.size);
	return source_has(set, directory, whiteout, prefix_size + name.size);
}

static bool source_is_opaque(const ViewStackSet *set, ViewSource directory)
{
	return source_has(set, directory, OPAQUE_MARKER, sizeof(OPAQUE_MARKER) - 1);
}

/* A stack while it is collected, the highest source first. */
typedef struct Collection {
	ViewStack stack;
	bool opaque;    /* what comes now only says what the directory is */
	bool described; /* that is known */
} Collection;

static int collect(ViewStackSet *set, Collection *collection, ViewSource source, bool *ret_more)
{
	ViewStack *stack = &collection->stack;
	TreeInode inode;
	source_inode(set, source, &inode);
	*ret_more = false;
	/* Whatever is no directory ends the stack, and is part of it only when it is the highest. */
	if (stack->count > 0 && !S_ISDIR(inode.mode))
		return 0;
	bool own = !(inode.flags & TREE_IMPLIED);
	if (stack->count == 0 || (own && !collection->described))
		stack->self = source;
	collection->described = collection->described || own;
	if (!collection->opaque) {
		int r = push(set, source);
		if (r < 0)
			return r;
		stack->count++;
	}
	if (!S_ISDIR(inode.mode))
		return 0;
	collection->opaque = collection->opaque || source_is_opaque(set, source);
	*ret_more = !(collection->opaque && collection->described);
	return 0;
}

int view_stack_root(ViewStackSet *set, uint32_t layers, ViewStack *ret_stack)
{
	Collection collection = { .stack.first = set->count };
	bool more = true;
	for (uint32_t layer = layers; layer-- > 0 && more;) {
		int r = collect(set, &collection, (ViewSource){ .layer = layer, .inode = 0 }, &more);
		if (r < 0)
			return r;
	}
	*ret_stack = collection.stack;
	return 0;
}

bool view_name_is_whiteout(TreeString name)
{
	return name.size >= prefix_size && memcmp(name.data, WHITEOUT_PREFIX, prefix_size) == 0;
}

bool view_stack_decides(const ViewStackSet *set, ViewStack stack, uint32_t index, TreeString name)
{
	for (uint32_t i = 0; i < index; i++) {
		ViewSource source = view_stack_at(set, stack, i);
		if (source_has(set, source, name.data, name.size) || source_whites_out(set, source, name))
			return true;
	}
	return false;
}

int view_stack_child(ViewStackSet *set, ViewStack stack, uint32_t from, TreeString name, const uint32_t *here,
		     ViewStack *ret_stack)
{
	Collection collection = { .stack.first = set->count };
	for (uint32_t i = from; i < stack.count; i++) {
		ViewSource directory = view_stack_at(set, stack, i), found;
		bool known = here && i == from;
		if (known)
			found = (ViewSource){ .layer = directory.layer, .inode = *here };
		if (known || source_lookup(set, directory, name.data, name.size, &found)) {
			bool more;
			int r = collect(set, &collection, found, &more);
			if (r < 0)
				return r;
			if (!more)
				break;
		}
		if (source_whites_out(set, directory, name))
			break;
	}
	if (collection.stack.count == 0)
		return -ENOENT;
	*ret_stack = collection.stack;
	return 0;
}
