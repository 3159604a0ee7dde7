#include "fs/format/tree-paths.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

struct TreePaths {
	const Tree *tree;
	uint32_t *parents; /* by inode */
	uint64_t *entries; /* by inode: number of the entry that names it first, and 1; 0: nothing does */
};

static void enter_directory(TreePaths *paths, uint32_t number, const TreeInode *directory)
{
	for (uint64_t i = directory->data; i < directory->data + directory->count; i++) {
		TreeDirent entry;
		tree_dirent(paths->tree, i, &entry);
		if (paths->entries[entry.inode] != 0)
			continue;
		paths->entries[entry.inode] = i + 1;
		paths->parents[entry.inode] = number;
	}
}

int tree_paths_new(const Tree *tree, TreePaths **ret_paths)
{
	_cleanup_(tree_paths_free_p) TreePaths *paths = calloc(1, sizeof(*paths));
	if (!paths)
		return -ENOMEM;
	paths->tree = tree;
	paths->parents = calloc((size_t)tree->inode_count + 1, sizeof(*paths->parents));
	paths->entries = calloc((size_t)tree->inode_count + 1, sizeof(*paths->entries));
	if (!paths->parents || !paths->entries)
		return -ENOMEM;
	for (uint32_t i = 0; i < tree->inode_count; i++) {
		TreeInode inode;
		tree_inode(tree, i, &inode);
		if (S_ISDIR(inode.mode))
			enter_directory(paths, i, &inode);
	}
	*ret_paths = TAKE_PTR(paths);
	return 0;
}

TreePaths *tree_paths_free(TreePaths *paths)
{
	if (paths) {
		free(paths->parents);
		free(paths->entries);
		free(paths);
	}
	return NULL;
}

/* Its name, or an empty one for the root. */
static TreeString name_of(const TreePaths *paths, uint32_t inode)
{
	TreeDirent entry = { .name = { "", 0 } };
	if (inode != 0)
		tree_dirent(paths->tree, paths->entries[inode] - 1, &entry);
	return entry.name;
}

int tree_paths_get(const TreePaths *paths, uint32_t inode, char **ret_path)
{
	if (inode >= paths->tree->inode_count || (inode != 0 && paths->entries[inode] == 0))
		return -ENOENT;
	size_t length = inode == 0 ? 1 : 0;
	/* Following parents leads to the root: tree_open() has made sure. */
	for (uint32_t at = inode; at != 0; at = paths->parents[at])
		length += name_of(paths, at).size + 1;
	char *path = malloc(length + 1);
	if (!path)
		return -ENOMEM;
	path[0] = '/';
	path[length] = '\0';
	for (uint32_t at = inode; at != 0; at = paths->parents[at]) {
		TreeString name = name_of(paths, at);
		length -= name.size;
		memcpy(path + length, name.data, name.size);
		path[--length] = '/';
	}
	*ret_path = path;
	return 0;
}

int tree_paths_find(const Tree *tree, const char *path, uint32_t *ret_inode)
{
	uint32_t number = 0;
	while (*path) {
		path += strspn(path, "/");
		size_t length = strcspn(path, "/");
		if (length == 0)
			break;
		TreeInode inode;
		TreeDirent entry;
		tree_inode(tree, number, &inode);
		if (!S_ISDIR(inode.mode))
			return -ENOTDIR;
		int r = tree_lookup(tree, &inode, path, length, &entry);
		if (r < 0)
			return r;
		number = entry.inode;
		path += length;
	}
	*ret_inode = number;
	return 0;
}
