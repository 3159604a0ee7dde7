/* What the files of the tar reader share. Belongs to no one else. */
#pragma once

#include "fs/format/buffer.h"
#include "tools/export/tar-header.h"
#include "tools/export/tar-pax.h"
#include "tools/export/tar-reader.h"
#include "tools/export/tar-sparse.h"

#define TAR_SIZE_MAX (UINT64_C(1) << 62) /* of a tar: sums of offsets and sizes below it cannot overflow */

typedef enum TarPhase {
	TAR_PHASE_BLOCK,     /* a header block, or one of the end marker */
	TAR_PHASE_EXTENSION, /* data of an extension header, its padding included */
	TAR_PHASE_SPARSE,    /* an extension block of an old GNU sparse file */
	TAR_PHASE_DATA,
	TAR_PHASE_PADDING,
	TAR_PHASE_END, /* behind the end marker */
} TarPhase;

/* Data of the extension header being read. */
typedef struct TarExtension {
	char typeflag;
	uint8_t *data;
	size_t size, filled, capacity;
} TarExtension;

struct TarReader {
	uint64_t offset; /* of the next byte of the stream */
	TarPhase phase;
	uint64_t left; /* bytes left of an extension, of data or of padding */
	uint8_t block[TAR_BLOCK];
	size_t filled;         /* bytes of the block that are there */
	uint64_t block_offset; /* of the last header block */
	bool zero_seen;        /* it was a zero block */

	bool in_headers;     /* headers of an entry have begun */
	bool member_pending; /* one of them is for the next member alone */
	uint64_t header_offset;
	TarExtension extension;
	TarPax global, local;
	char *long_name, *long_target; /* of GNU headers; NULL when there is none */
	TarHeader header;
	TarMap map; /* of an old GNU sparse file */
	uint64_t map_size;
	TarMapText map_text;
	bool map_in_data; /* pax 1.0, and the map is not checked yet */

	bool has_entry;
	TarEntry entry;
	TreeXattr *xattrs;
	Buffer acls[2]; /* values of the xattrs that ACLs make: access, default */
	char name[FORMAT_TARGET_MAX + 1];
	char target[FORMAT_TARGET_MAX + 1];
};

/*
 * Makes the entry of the headers read; its data starts at `data_offset`, and `rest` is what is known of the stream from
 * there on. Errors: -EBADMSG, -EOPNOTSUPP, -ENOMEM.
 */
int tar_entry_build(TarReader *reader, uint64_t data_offset, const uint8_t *rest, size_t rest_size, Error *error)
	_must_check_;

/* The data of a pax 1.0 sparse file has passed: completes the extents. Errors: -EBADMSG. */
int tar_entry_finish_map(TarReader *reader, Error *error) _must_check_;
