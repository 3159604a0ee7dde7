/* Private to the room: index images and views as files of the cache, checked when they are opened. */
#pragma once

#include "fs/base/fd.h"
#include "fs/cache/cache-store.h"
#include "fs/format/chunk-table.h"
#include "fs/format/manifest.h"
#include "fs/format/tree.h"

/* An index that is open. Must not move in memory: its parts point at each other. */
typedef struct FetchIndex {
	int fd;
	FdMap map;
	Image image;
	ChunkTable table;
	Tree tree;
	bool has_tree; /* and so all of the image is in the map; else the chunk table alone */
} FetchIndex;

void fetch_index_close(FetchIndex *index); /* safe on a zeroed one: then the descriptor is no descriptor */

/*
 * Opens the index of a layer from the cache and checks it against the manifest, but for its tree. Errors: -ENOENT, -EBADMSG (rotten,
 * or not what the manifest says), -EPROTONOSUPPORT.
 */
int fetch_index_open(CacheStore *cache, const ManifestLayer *layer, FetchIndex *ret_index, Error *error) _must_check_;

/* Does a layer's blob have a seal, and all of its `count` chunks? */
bool fetch_layer_is_sealed(int present_fd, int seal_fd, const Digest *diff_id, uint32_t count);

/* Reads the rest of the image and opens the tree as well, unless it is open. Errors: image_open()'s, tree_open()'s, read's. */
int fetch_index_open_tree(FetchIndex *index, Error *error) _must_check_;

/*
 * Takes an index as it stands in the blob, verifies it, puts it into the cache, and opens it, tree included.
 * Errors: -EBADMSG, -EPROTONOSUPPORT, -EFBIG, -ENOMEM, or cache_store_put()'s.
 */
int fetch_index_add(CacheStore *cache, const ManifestLayer *layer, const uint8_t *data, size_t size,
		    FetchIndex *ret_index, Error *error) _must_check_;

/* The chain ID of an image's layers, lowest first, at least one. Errors: -ENOMEM. */
int fetch_view_chain(const Manifest *manifest, Digest *ret_chain_id) _must_check_;

/* Opens the view of a chain from the cache. Errors: -ENOENT (not there, or rotten). */
int fetch_view_find(CacheStore *cache, const Digest *chain_id, int *ret_fd) _must_check_;

/* Builds it from the indexes, whatever the cache has. Errors: tree_open()'s, view_build()'s, cache_store_put()'s, with a sentence. */
int fetch_view_build(CacheStore *cache, const Manifest *manifest, FetchIndex *indexes, const Digest *chain_id,
		     int *ret_fd, Error *error) _must_check_;
