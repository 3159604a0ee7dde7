/* Layers for the tests of views, from lists of paths. */
#pragma once

#include <stdint.h>

#include "fs/format/tree.h"

/* A path without leading slash; directories stand before what is in them. */
typedef struct LayerPath {
	const char *path;
	uint32_t mode;      /* type and bits; 0 with `target`: a hard link to a lower layer */
	const char *target; /* of a symlink or a lower hard link */
	const char *same;   /* another name of this earlier path */
	uint32_t flags;     /* TREE_IMPLIED */
	uint64_t data;      /* tells files apart: the offset of the data, or the mtime of a directory */
} LayerPath;

typedef struct LayerFixture {
	uint8_t *bytes;
	Image image;
	Tree tree;
} LayerFixture;

/* Builds the index image of a layer of `count` paths; asserts on failure. */
void layer_fixture_make(LayerFixture *layer, const LayerPath *paths, size_t count);
void layer_fixture_done(LayerFixture *layer);
