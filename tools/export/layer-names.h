/*
 * The names of a layer's tree: (directory, name) -> node, in an open addressing table over compact records. Names are
 * never taken out, only pointed at another node. One owner, no locking.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/format/buffer.h"
#include "fs/format/tree.h"

typedef struct LayerName {
	uint32_t directory; /* node */
	uint32_t node;
	uint32_t offset; /* of the name in the strings */
	uint16_t size;
	uint16_t tag; /* bits of the hash that spare most comparisons */
} LayerName;

typedef struct LayerNames {
	LayerName *names;
	uint32_t count, capacity;
	uint32_t *slots;     /* number of a name + 1, or 0 */
	uint32_t slot_count; /* a power of two, or 0 */
	uint64_t seed;
	Buffer strings; /* of names, and what else the tree keeps there */
} LayerNames;

int layer_names_init(LayerNames *names) _must_check_;
void layer_names_done(LayerNames *names); /* safe on a zeroed one */

/* Frees what only lookups need. */
void layer_names_seal(LayerNames *names);

/* The name's record, valid until the next layer_names_set(); NULL when there is none. */
LayerName *layer_names_find(const LayerNames *names, uint32_t directory, const char *name, size_t size);

/* Points a name, new or not, at a node. `name` must not lie in the strings, which may move. Errors: -ENOMEM, -EFBIG. */
int layer_names_set(LayerNames *names, uint32_t directory, const char *name, size_t size, uint32_t node) _must_check_;

/* Keeps bytes in the strings. Errors: -ENOMEM, -EFBIG. */
int layer_names_keep(LayerNames *names, const void *data, size_t size, uint32_t *ret_offset) _must_check_;

static inline TreeString layer_names_string(const LayerNames *names, uint32_t offset, size_t size)
{
	return (TreeString){ .data = size ? (const char *)names->strings.data + offset : "", .size = size };
}
