#include "tools/export/export-links.h"

#include "tools/export/image-view.h"

static bool has_lower_link(const Tree *tree)
{
	for (uint32_t i = 0; i < tree->inode_count; i++) {
		TreeInode inode;
		tree_inode(tree, i, &inode);
		if (inode.flags & TREE_LOWER_LINK)
			return true;
	}
	return false;
}

static int layer_has_lower_link(Store *store, const ManifestLayer *layer, bool *ret_has, Error *error)
{
	_cleanup_(layer_reader_free_p) LayerReader *reader = NULL;
	char text[DIGEST_TEXT_SIZE];
	Tree tree;
	int r = layer_reader_open(store, layer, &reader, error);
	if (r == 0)
		r = tree_open(&reader->image, &tree, error);
	if (r < 0)
		return error_prefix(error, r, "store %s: blob %s", store_path(store), digest_text(&layer->blob, text));
	*ret_has = has_lower_link(&tree);
	return 0;
}

int export_check_links(Store *store, const Manifest *manifest, Error *error)
{
	ImageView view;
	bool found = false;
	for (size_t i = 0; i < manifest->layer_count && !found; i++) {
		int r = layer_has_lower_link(store, &manifest->layers[i], &found, error);
		if (r < 0)
			return r;
	}
	if (!found)
		return 0;
	int r = image_view_open(store, manifest, &view, error);
	if (r == 0)
		image_view_done(&view);
	return r;
}
