/* A path in the merged tree of some layers. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/view/view-stack.h"

#define LINKS_MAX 40u /* as many as Linux follows: path_resolution(7) */
#define TEXT_MAX  (2 * FORMAT_TARGET_MAX)

typedef struct Walk {
	ViewStackSet *set;
	ViewStack *trail; /* the directories on the way, the root first */
	size_t depth, capacity;
	TreeString left; /* of the path */
	unsigned links;  /* followed so far */
	size_t followed; /* bytes of their targets: so the longest walk of many, in an image made to take long, is no longer than some paths */
	bool which; /* text to use next: what is left may lie in the other one */
	char texts[2][TEXT_MAX];
} Walk;

/* The next component, "." left out; size 0 at the end. Moves `left` behind it. */
static TreeString next(TreeString *left)
{
	while (left->size > 0) {
		const char *slash = memchr(left->data, '/', left->size);
		TreeString name = { .data = left->data, .size = slash ? (size_t)(slash - left->data) : left->size };
		size_t behind = name.size + (slash ? 1 : 0);
		left->data += behind;
		left->size -= behind;
		if (name.size > 0 && !(name.size == 1 && name.data[0] == '.'))
			return name;
	}
	return (TreeString){ 0 };
}

static int enter(Walk *walk, ViewStack directory)
{
	if (walk->depth == walk->capacity) {
		size_t capacity = walk->capacity ? 2 * walk->capacity : 16;
		ViewStack *grown = reallocarray(walk->trail, capacity, sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		walk->trail = grown;
		walk->capacity = capacity;
	}
	walk->trail[walk->depth++] = directory;
	return 0;
}

/* Puts a symlink's target in front of what is left. */
static int follow(Walk *walk, TreeString target)
{
	walk->followed += target.size;
	if (++walk->links > LINKS_MAX || walk->followed > TEXT_MAX || target.size + 1 + walk->left.size > TEXT_MAX)
		return -ELOOP;
	char *text = walk->texts[walk->which];
	memcpy(text, target.data, target.size);
	text[target.size] = '/';
	memcpy(text + target.size + 1, walk->left.data, walk->left.size);
	walk->left = (TreeString){ .data = text, .size = target.size + 1 + walk->left.size };
	walk->which = !walk->which;
	if (text[0] == '/')
		walk->depth = 1;
	return 0;
}

/* Goes one component further. 1: that was the last, and `ret_source` is what it names. */
static int step(Walk *walk, ViewSource *ret_source)
{
	ViewStack here = walk->trail[walk->depth - 1], stack;
	TreeString name = next(&walk->left), left = walk->left;
	bool last = next(&left).size == 0;
	TreeInode inode;
	if (name.size == 0)
		return -EISDIR;
	if (name.size == 2 && memcmp(name.data, "..", 2) == 0) {
		walk->depth -= walk->depth > 1;
		return 0;
	}
	walk->set->count = here.first + here.count; /* what was left behind is of no more use */
	int r = view_stack_child(walk->set, here, 0, name, NULL, &stack);
	if (r < 0)
		return r;
	ViewSource source = view_stack_at(walk->set, stack, 0);
	const Tree *tree = &walk->set->layers[source.layer];
	tree_inode(tree, source.inode, &inode);
	if (S_ISDIR(inode.mode))
		return enter(walk, stack);
	if (!last)
		return S_ISLNK(inode.mode) ? follow(walk, tree_target(tree, &inode)) : -ENOTDIR;
	*ret_source = source;
	return 1;
}

int view_stack_walk(ViewStackSet *set, uint32_t layers, TreeString path, ViewSource *ret_source)
{
	size_t mark = set->count; /* the stacks of the walk are dropped at its end */
	ViewStack stack;
	Walk walk;
	walk.set = set;
	walk.trail = NULL;
	walk.depth = walk.capacity = 0;
	walk.left = path;
	walk.links = 0;
	walk.followed = 0;
	walk.which = false;
	int r = view_stack_root(set, layers, &stack);
	if (r == 0)
		r = enter(&walk, stack);
	while (r == 0)
		r = step(&walk, ret_source);
	free(walk.trail);
	set->count = mark;
	return r < 0 ? r : 0;
}
