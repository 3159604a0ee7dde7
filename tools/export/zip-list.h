/*
 * The list of a zip archive's entries (PKWARE APPNOTE 6.3.10, sections 4.3.12 to 4.3.16): jars are such. Reads the directory at the end of
 * the archive only. Bytes may be any at all.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/base/error.h"

typedef struct ZipEntry {
	const char *name; /* points into the list */
	uint16_t name_size;
	uint32_t crc;
	uint64_t size;   /* uncompressed */
	uint64_t packed; /* compressed; UINT32_MAX where it does not fit 32 bits */
	uint32_t time;   /* of MS-DOS: date << 16 | time */
	uint32_t number; /* its place in the archive's directory */
} ZipEntry;

typedef struct ZipList {
	ZipEntry *entries; /* by name, then as they stand in the archive */
	size_t count;
	uint8_t *directory; /* owned */
	size_t directory_size;
} ZipList;

void zip_list_done(ZipList *list); /* safe on a zeroed one */

/* Reads exactly [offset, offset + size) of the archive. */
typedef int ZipRead(void *arg, uint64_t offset, void *buffer, size_t size, Error *error);

/*
 * Reads the list of an archive of `size` bytes. Errors: -EBADMSG (not a zip archive, or a damaged one), -EFBIG (a directory above 64 MiB),
 * -ENOMEM, `read`'s.
 */
int zip_list_read(ZipRead *read, void *arg, uint64_t size, ZipList *ret_list, Error *error) _must_check_;

/* Entries that are directories count for nothing but `layout_differs`. */
typedef struct ZipDifference {
	uint32_t entries;      /* of both, by name */
	uint32_t differ;       /* there in one only, or of other size or CRC */
	uint64_t differ_bytes; /* compressed size of the second archive's entries that differ */
	bool times_differ;     /* of entries that do not differ otherwise */
	bool layout_differs; /* the entries both have stand in another order, or one has directories the other has not */
} ZipDifference;

/* Errors: -ENOMEM. */
int zip_list_compare(const ZipList *left, const ZipList *right, ZipDifference *ret_difference) _must_check_;
