#include <string.h>
#include <sys/stat.h>

#include "tools/export/layer-tree-internal.h"

#define LINKS_MAX 40u /* as many as Linux follows: path_resolution(7) */
#define TEXT_MAX  (2 * FORMAT_TARGET_MAX)

TreeString layer_path_next(const char **path)
{
	const char *at = *path;
	TreeString component = { 0 };
	while (component.size == 0) {
		at += strspn(at, "/");
		if (*at == '\0')
			break;
		size_t size = strcspn(at, "/");
		if (size != 1 || at[0] != '.')
			component = (TreeString){ .data = at, .size = size };
		at += size;
	}
	*path = at;
	return component;
}

static bool has_more(const char *path)
{
	return layer_path_next(&path).size > 0;
}

typedef struct Walk {
	LayerTree *tree;
	bool create;
	uint32_t directory;
	const char *at; /* what is left of the path */
	size_t own;     /* bytes at its end that are the path's own; those before come from a symlink */
	unsigned links; /* followed so far */
	bool which;     /* text in use, once a symlink was followed */
	char texts[2][TEXT_MAX + 1];
	Error *error;
} Walk;

static int nowhere(const Walk *walk, const char *why, TreeString component)
{
	if (!walk->create)
		return -ENOENT;
	return error_set(walk->error, -EBADMSG, "a symlink among its parents %s (at %.*s)", why,
			 (int)(component.size < 100 ? component.size : 100), component.data);
}

/* Puts a symlink's target in front of what is left. */
static int follow(Walk *walk, const LayerNode *node, TreeString component)
{
	TreeString target = layer_node_target(walk->tree, node);
	size_t left = strlen(walk->at);
	if (++walk->links > LINKS_MAX)
		return nowhere(walk, "follows more than 40 others", component);
	if (target.size + left > TEXT_MAX)
		return nowhere(walk, "makes the path too long", component);
	if (walk->own > left)
		walk->own = left;
	char *text = walk->texts[walk->which];
	memcpy(text, target.data, target.size);
	memcpy(text + target.size, walk->at, left + 1);
	if (target.data[0] == '/')
		walk->directory = LAYER_ROOT;
	walk->which = !walk->which;
	walk->at = text;
	return 0;
}

/* Enters a component that another follows. */
static int enter(Walk *walk, TreeString component)
{
	LayerTree *tree = walk->tree;
	bool own = strlen(component.data) <= walk->own;
	if (component.size == 2 && memcmp(component.data, "..", 2) == 0) {
		walk->directory = tree->nodes[walk->directory].inode.parent;
		return 0;
	}
	const LayerName *name = layer_names_find(&tree->names, walk->directory, component.data, component.size);
	const LayerNode *node = name ? &tree->nodes[name->node] : NULL;
	if (node && S_ISDIR(node->inode.mode)) {
		walk->directory = name->node;
		return 0;
	}
	if (node && S_ISLNK(node->inode.mode))
		return follow(walk, node, component);
	if (!own)
		return nowhere(walk, node ? "leads through a file" : "leads to what the layer does not have",
			       component);
	if (!walk->create)
		return -ENOENT;
	return layer_node_new_directory(tree, walk->directory, component, &walk->directory);
}

int layer_path_walk(LayerTree *tree, const char *path, bool create, uint32_t *ret_directory, TreeString *ret_last,
		    Error *error)
{
	Walk walk;
	walk.tree = tree;
	walk.create = create;
	walk.directory = LAYER_ROOT;
	walk.at = path;
	walk.own = strlen(path);
	walk.links = 0;
	walk.which = false;
	walk.error = error;
	for (;;) {
		TreeString component = layer_path_next(&walk.at);
		if (!has_more(walk.at)) {
			/* In the path as it was given: the text of the walk goes with it. */
			component.data = component.size ? path + strlen(path) - strlen(component.data) : path;
			*ret_directory = walk.directory;
			*ret_last = component;
			return 0;
		}
		int r = enter(&walk, component);
		if (r < 0)
			return r;
	}
}

int layer_path_find(LayerTree *tree, const char *path, uint32_t *ret_node)
{
	uint32_t directory;
	TreeString last;
	int r = layer_path_walk(tree, path, false, &directory, &last, NULL);
	if (r < 0)
		return r;
	if (last.size == 0) {
		*ret_node = LAYER_ROOT;
		return 0;
	}
	const LayerName *name = layer_names_find(&tree->names, directory, last.data, last.size);
	if (!name)
		return -ENOENT;
	*ret_node = name->node;
	return 0;
}
