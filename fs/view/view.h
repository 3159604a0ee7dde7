/*
 * A view: the merged tree of a chain of layers, with whiteouts, opaque directories, replaced types and hard links resolved
 * (OCI image-spec 1.1, layer.md). Pure computation over indexes; the result is an image of kind FORMAT_KIND_VIEW.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "fs/base/digest.h"
#include "fs/base/error.h"
#include "fs/format/tree.h"

/* The chain ID of diffIDs, lowest first, count at least 1 (OCI image-spec 1.1, config.md "Layer ChainID"). */
int view_chain_id(const Digest *diff_ids, size_t count, Digest *ret_chain_id) _must_check_;

/*
 * Merges `count` (1 to 65,535) trees of indexes, lowest first. The same trees give the same bytes. A lower hard link whose target no layer
 * holds is an error that names it. `ret_image` is malloc'ed, the caller's. Errors: -EBADMSG, -EFBIG, -ENOMEM.
 */
int view_build(const Tree *layers, const Digest *diff_ids, size_t count, uint8_t **ret_image, size_t *ret_size,
	       Error *error) _must_check_;
