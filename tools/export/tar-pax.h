/*
 * Records of pax headers (POSIX.1-2017 pax, "pax Extended Header"): those imgfs keeps, with GNU tar's GNU.sparse.*,
 * star's SCHILY.* and libarchive's LIBARCHIVE.xattr.*. Other keys have no meaning in a mounted layer and are ignored.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/base/error.h"
#include "tools/export/tar-sparse.h"

#define TAR_PAX_MAX    (1u << 20) /* bytes of records in force for one entry */
#define TAR_XATTRS_MAX 1024u      /* of one entry */

/* What is known of a key: a record without a value takes back what an earlier or a global header said. */
typedef enum TarPaxState { TAR_PAX_ABSENT, TAR_PAX_SET, TAR_PAX_REMOVED } TarPaxState;

typedef struct TarPaxNumber {
	TarPaxState state;
	uint64_t value;
} TarPaxNumber;

/* Bytes in TarPax.text, by offset since the text moves as it grows. */
typedef struct TarPaxText {
	TarPaxState state;
	size_t offset;
	size_t size;
} TarPaxText;

typedef struct TarPaxXattr {
	TarPaxText name;
	TarPaxText value;
} TarPaxXattr;

typedef struct TarPax {
	uint8_t *text; /* the records that others point into */
	size_t text_size;
	TarPaxText path, linkpath, sparse_name;
	TarPaxText acl_access, acl_default; /* as text: see tar-acl.h */
	TarPaxNumber size, uid, gid, device_major, device_minor;
	TarPaxNumber sparse_major, sparse_minor, sparse_size;
	TarPaxState mtime;
	int64_t mtime_sec;
	uint32_t mtime_nsec;
	TarPaxXattr *xattrs; /* each name once */
	size_t xattr_count;
	TarMap map;       /* GNU.sparse 0.0 and 0.1 */
	bool has_map;     /* a map was given, if only an empty one */
	bool half_extent; /* GNU.sparse.offset came, its numbytes not yet */
	uint64_t extent_offset;
} TarPax;

void tar_pax_done(TarPax *pax); /* frees what it owns; safe on a zeroed one and twice, which makes it empty again */

/*
 * Adds the records of one header; later ones win. Errors: -EBADMSG (malformed), -EOPNOTSUPP (above the limits),
 * -ENOMEM; the sentence names the key.
 */
int tar_pax_add(TarPax *pax, const uint8_t *records, size_t size, Error *error) _must_check_;

/* Sets what `above` (the entry's own header) does not say to what `below` (the global one) says; lists of xattrs are
 * joined. */
int tar_pax_inherit(TarPax *above, const TarPax *below, Error *error) _must_check_;
