/*
 * The tree of a layer while its tar is being read: entries go in one by one, as extraction into an empty directory
 * would take them, and sections 4 to 10 of the index come out. Some 120 bytes an entry beside its strings. One owner,
 * no locking.
 *
 * Rules (docs/format.md sections 3.2 and 3.3 say what is written):
 * - Names lose leading "/", "." components, doubled and trailing slashes. What is left empty is the root, which must be
 *   a directory.
 * - The last entry of a name wins. A directory's entry over a directory replaces its metadata only; any other
 *   replacement of a directory drops what is below it.
 * - Missing parents become implied directories, as does anything but a directory or a symlink in a parent's place. A
 *   symlink there is followed within the layer: absolute targets start at its root, ".." ends at it, 40 at most.
 * - A hard link means what its target's name means at that moment, else at the end of the layer, else a file of a lower
 *   layer. One to its own name says nothing.
 */
#pragma once

#include <stdint.h>

#include "fs/base/digest.h"
#include "fs/base/error.h"
#include "fs/format/image.h"
#include "tools/export/tar-reader.h"

typedef struct LayerTree LayerTree;

int layer_tree_new(LayerTree **ret_tree) _must_check_;
LayerTree *layer_tree_free(LayerTree *tree);
DEFINE_CLEANUP(LayerTree, layer_tree_free);

/* Does the index want the digest of this entry's content? */
bool layer_tree_wants_digest(const TarEntry *entry);

/*
 * Adds an entry, complete (so after the data of a sparse one). `content`: SHA-256 of its data, where
 * layer_tree_wants_digest(), else NULL. Errors: -EBADMSG (a hard link to a directory, a parent that leads nowhere, a
 * root that is no directory; the sentence names the entry), -EFBIG, -ENOMEM. The tree is of no use then.
 */
int layer_tree_add(LayerTree *tree, const TarEntry *entry, const Digest *content, Error *error) _must_check_;

/* Adds the sections to `image`; the tree can take no more entries then. Errors: as above. */
int layer_tree_finish(LayerTree *tree, ImageWriter *image, Error *error) _must_check_;
