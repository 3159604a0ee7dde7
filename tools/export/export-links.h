/* Hard links from a layer to the layers below it: whether they lead anywhere is known only once an image is complete. */
#pragma once

#include "fs/format/manifest.h"
#include "tools/export/store.h"

/*
 * Merges the layers of an image in the store if one of them has such a link, as a mount will. Blocks on the disk: it reads the layers' indexes.
 * Errors carry a sentence: view_build()'s (-EBADMSG: a link's target is in no layer below), layer_reader_open()'s, which name the blob at fault.
 */
int export_check_links(Store *store, const Manifest *manifest, Error *error) _must_check_;
