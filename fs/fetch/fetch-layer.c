#include "fs/fetch/fetch-layer.h"

#include <errno.h>
#include <string.h>

#include "fs/cache/cache-index.h"
#include "fs/format/blob.h"
#include "fs/view/view.h"

void fetch_index_close(FetchIndex *index)
{
	if (index->map.data) {
		close_p(&index->fd);
		fd_unmap(&index->map);
	}
	*index = (FetchIndex){ .fd = -1 };
}

/* The index speaks of itself; that must be what the manifest says of it. */
static int check_index(const FetchIndex *index, const ManifestLayer *layer, Error *error)
{
	const ImageHeader *header = &index->image.header;
	char text[DIGEST_TEXT_SIZE];
	const char *wrong = NULL;
	if (header->kind != FORMAT_KIND_INDEX || header->codec != FORMAT_CODEC_LZ4)
		wrong = "it is of another kind";
	else if (!digest_equal(&header->id, &layer->diff_id))
		wrong = "it is of another layer";
	else if (header->tar_size != index->table.tar_size || (layer->tar_size && header->tar_size != layer->tar_size))
		wrong = "the length of the layer is another";
	else if (header->chunks_size != layer->index_offset || index->table.blob_size != layer->index_offset)
		wrong = "the length of the chunks is another";
	if (!wrong)
		return 0;
	return error_set(error, -EBADMSG, "the index of layer %s does not fit the manifest: %s; export the image again",
			 digest_text(&layer->diff_id, text), wrong);
}

int fetch_index_open(CacheStore *cache, const ManifestLayer *layer, FetchIndex *ret_index, Error *error)
{
	_cleanup_close_ int fd = -1;
	int r = cache_store_get(cache, CACHE_INDEX, &layer->index, &fd);
	if (r < 0)
		return error_set(error, r, "cannot open an index in the cache: %s", error_text(NULL, r));
	FdMap map;
	Image image;
	r = cache_index_load(fd, &map, &image, error);
	if (r < 0)
		return r;
	FetchIndex *index = ret_index;
	*index = (FetchIndex){ .fd = TAKE_FD(fd), .map = map, .image = image };
	r = chunk_table_open(&index->image, &index->table, error);
	if (r == 0)
		r = check_index(index, layer, error);
	if (r < 0)
		fetch_index_close(index);
	return r;
}

/* What was read first may have been another file's, and is relied on. */
static bool is_laid_out_alike(const Image *one, const Image *other)
{
	bool alike = digest_equal(&one->header.id, &other->header.id);
	for (size_t i = 0; i < ELEMENTS(one->sections); i++)
		alike = alike && one->sections[i].present == other->sections[i].present &&
			one->sections[i].data == other->sections[i].data &&
			one->sections[i].size == other->sections[i].size;
	return alike;
}

int fetch_index_open_tree(FetchIndex *index, Error *error)
{
	if (index->has_tree)
		return 0;
	int r = fd_load_part(index->fd, &index->map, 0, index->map.size);
	if (r == 0)
		r = fd_load_end(&index->map);
	if (r < 0)
		return error_set(error, r, "cannot read an index in the cache: %s", strerror(-r));
	Image image;
	r = image_open(index->map.data, index->map.size, &image, error);
	if (r == 0 && !is_laid_out_alike(&image, &index->image))
		r = error_set(error, -EBADMSG, "an index in the cache has changed");
	if (r == 0)
		r = chunk_table_open(&index->image, &index->table, error);
	if (r == 0)
		r = tree_open(&index->image, &index->tree, error);
	index->has_tree = r == 0;
	return r;
}

int fetch_index_add(CacheStore *cache, const ManifestLayer *layer, const uint8_t *data, size_t size,
		    FetchIndex *ret_index, Error *error)
{
	char text[DIGEST_TEXT_SIZE];
	Digest digest;
	int r = digest_of(data, size, &digest);
	if (r < 0)
		return error_set(error, r, "out of memory");
	if (!digest_equal(&digest, &layer->index))
		return error_set(error, -EBADMSG,
				 "the index of layer %s is not the one the manifest names: the blob is corrupt",
				 digest_text(&layer->diff_id, text));
	_cleanup_free_ uint8_t *image = NULL;
	size_t image_size;
	r = blob_index_decode(data, size, &image, &image_size, error);
	if (r == 0)
		r = cache_store_put(cache, CACHE_INDEX, &layer->index, image, image_size, error);
	if (r == 0)
		r = fetch_index_open(cache, layer, ret_index, error);
	if (r < 0)
		return r;
	r = fetch_index_open_tree(ret_index, error);
	if (r < 0)
		fetch_index_close(ret_index);
	return r;
}

/* Is this file the view of that chain, and sound? */
static bool view_is_sound(int fd, const Digest *chain_id)
{
	FdMap map = { 0 };
	if (fd_load(fd, &map) < 0 || !map.data)
		return false;
	Image image;
	Tree tree;
	bool sound = image_open(map.data, map.size, &image, NULL) == 0 && image.header.kind == FORMAT_KIND_VIEW &&
		     digest_equal(&image.header.id, chain_id) && tree_open(&image, &tree, NULL) == 0;
	fd_unmap(&map);
	return sound;
}

static int diff_ids_of(const Manifest *manifest, Digest **ret_diff_ids)
{
	Digest *diff_ids = calloc(manifest->layer_count, sizeof(*diff_ids));
	if (!diff_ids)
		return -ENOMEM;
	for (size_t i = 0; i < manifest->layer_count; i++)
		diff_ids[i] = manifest->layers[i].diff_id;
	*ret_diff_ids = diff_ids;
	return 0;
}

int fetch_view_chain(const Manifest *manifest, Digest *ret_chain_id)
{
	_cleanup_free_ Digest *diff_ids = NULL;
	int r = diff_ids_of(manifest, &diff_ids);
	return r < 0 ? r : view_chain_id(diff_ids, manifest->layer_count, ret_chain_id);
}

int fetch_view_find(CacheStore *cache, const Digest *chain_id, int *ret_fd)
{
	_cleanup_close_ int fd = -1;
	if (cache_store_get(cache, CACHE_VIEW, chain_id, &fd) < 0 || !view_is_sound(fd, chain_id))
		return -ENOENT;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int fetch_view_build(CacheStore *cache, const Manifest *manifest, FetchIndex *indexes, const Digest *chain_id,
		     int *ret_fd, Error *error)
{
	size_t count = manifest->layer_count, size;
	_cleanup_free_ Tree *trees = calloc(count, sizeof(*trees));
	_cleanup_free_ Digest *diff_ids = NULL;
	if (!trees || diff_ids_of(manifest, &diff_ids) < 0)
		return error_set(error, -ENOMEM, "out of memory");
	for (size_t i = 0; i < count; i++) {
		char text[DIGEST_TEXT_SIZE];
		int r = fetch_index_open_tree(&indexes[i], error);
		if (r < 0)
			return error_prefix(error, r, "index of layer %s", digest_text(&diff_ids[i], text));
		trees[i] = indexes[i].tree;
	}
	_cleanup_free_ uint8_t *view = NULL;
	int r = view_build(trees, diff_ids, count, &view, &size, error);
	if (r == 0)
		r = cache_store_put(cache, CACHE_VIEW, chain_id, view, size, error);
	if (r < 0)
		return r;
	r = cache_store_get(cache, CACHE_VIEW, chain_id, ret_fd);
	return r < 0 ? error_set(error, r, "the view just built is gone from the cache: %s; try again",
				 error_text(NULL, r))
		     : 0;
}
