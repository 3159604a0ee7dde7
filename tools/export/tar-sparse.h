/*
 * Maps of sparse files (GNU tar manual, "Sparse Formats"): where the stretches of data of a file are. The map of the
 * old GNU format lies in headers, that of pax 0.0 and 0.1 in pax records, that of pax 1.0 in front of the data.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/base/error.h"
#include "fs/format/tree.h"
#include "tools/export/tar-header.h"

#define TAR_EXTENTS_MAX (1u << 20)

/* A list of extents being collected; tar offsets come last, by tar_map_finish(). */
typedef struct TarMap {
	TreeExtent *extents;
	size_t count;
	size_t capacity;
} TarMap;

void tar_map_done(TarMap *map); /* frees what it owns; safe on a zeroed one and twice */

/* Errors: -EOPNOTSUPP above TAR_EXTENTS_MAX, -ENOMEM. */
int tar_map_add(TarMap *map, uint64_t offset, uint64_t length, Error *error) _must_check_;

/*
 * Checks that the extents ascend inside a file of `size` bytes and make up exactly `data_size` bytes, which lie in the
 * tar from `data_offset` on without gaps; leaves out empty ones. Errors: -EBADMSG.
 */
int tar_map_finish(TarMap *map, uint64_t size, uint64_t data_offset, uint64_t data_size, Error *error) _must_check_;

/* Adds what a header block of type 'S' says; `ret_more`: extension blocks follow. Errors: -EBADMSG, and
 * tar_map_add()'s. */
int tar_map_add_header(TarMap *map, const uint8_t block[static TAR_BLOCK], uint64_t *ret_size, bool *ret_more,
		       Error *error) _must_check_;

/* The same for an extension block. */
int tar_map_add_extension(TarMap *map, const uint8_t block[static TAR_BLOCK], bool *ret_more, Error *error)
	_must_check_;

/* Reader of a pax 1.0 map: decimal numbers, one a line: how many extents there are, then offset and length of each. */
typedef struct TarMapText {
	uint64_t value;  /* of the number being read */
	unsigned digits; /* it has so far */
	bool counted;    /* the number of extents is known */
	uint64_t left;   /* numbers still to come */
	uint64_t offset; /* of the extent whose length comes next */
	uint64_t size;   /* bytes of the map so far, without its padding */
	bool complete;
} TarMapText;

/* Takes bytes in front of the data until the map is complete; ignores the rest. Errors: -EBADMSG, and tar_map_add()'s.
 */
int tar_map_text_feed(TarMapText *text, TarMap *map, const uint8_t *bytes, size_t size, Error *error) _must_check_;
