/*
 * A tar, entry by entry, from bytes that come from outside: ustar, GNU (long names and links, sparse in its old form,
 * base-256 numbers) and pax (POSIX.1-2017 pax, "pax Interchange Format"; GNU tar manual, "Sparse Formats"). Push
 * parser: the caller owns all I/O and every byte of the stream; the reader says what each stretch of it is. No byte is
 * skipped or changed.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/base/error.h"
#include "fs/format/tree.h"

typedef struct TarEntry {
	uint64_t header_offset; /* of the entry's first header block, extension headers included */
	uint64_t data_offset;   /* of its data */
	uint64_t data_size;     /* in the tar, padding excluded */
	/* '0' regular, '1' hard link, '2' symlink, '3' '4' devices, '5' directory, '6' FIFO; '7', '\0', 'S' and pax
	 * sparse become '0' */
	char typeflag;
	const char *name; /* as the tar gives it, bytes; NUL-terminated, never empty */
	size_t name_size;
	const char *target; /* symlink, hard link; NUL-terminated */
	size_t target_size;
	uint32_t mode; /* permission bits, suid, sgid, sticky */
	uint32_t uid, gid;
	int64_t mtime_sec;
	uint32_t mtime_nsec;
	uint64_t size; /* logical size of a regular file */
	uint32_t device_major, device_minor;
	bool sparse;
	const TreeExtent *extents; /* of a sparse file; tar offsets are absolute */
	size_t extent_count;
	const TreeXattr
		*xattrs; /* SCHILY.xattr.* and LIBARCHIVE.xattr.*, names without that prefix; what SCHILY.acl.* make */
	size_t xattr_count;
} TarEntry;

typedef struct TarReader TarReader;

int tar_reader_new(TarReader **ret_reader) _must_check_;
TarReader *tar_reader_free(TarReader *reader);
DEFINE_CLEANUP(TarReader, tar_reader_free);

typedef enum TarPiece {
	TAR_HEADER, /* bytes of headers: keep feeding; the entry they belong to is not known yet */
	TAR_ENTRY,  /* the last byte of an entry's headers: tar_reader_entry() describes it now */
	TAR_DATA,   /* data of the current entry */
	TAR_OTHER,  /* padding, end marker, what follows it */
} TarPiece;

/* A window of this size or more shows the reader the block behind a header (below). */
#define TAR_LOOKAHEAD 513u

/*
 * Takes bytes of the stream from its start on. Consumes 1 to `size` of them (`size` at least 1), says how many and what
 * they are. GNU old-style sparse extension headers count as headers. A pax 1.0 sparse map, which lies in the data, is
 * read by the reader and belongs to TAR_DATA; for such an entry TAR_ENTRY comes before the map was seen, and extents
 * are complete only when its data has passed.
 *
 * The size of a hard link is ambiguous: most writers store no data with it whatever its size says (GNU tar and Go
 * ignore the size), pax may (POSIX.1-2017 pax, option linkdata). The reader looks at the block behind the header: a
 * header, a zero block or the end of the stream means no data. So a caller offers fewer than TAR_LOOKAHEAD bytes only
 * where the stream ends with them; doing otherwise costs nothing but the reading of hard links with data. Other types
 * without data (symlinks, devices, directories, FIFOs) have none, whatever their size says, as in Go's archive/tar.
 *
 * One zero block is passed over if a header follows; behind two, all is TAR_OTHER to the end. The first pieces of a
 * zero block may be called TAR_HEADER, as it may still become one.
 *
 * Errors: -EBADMSG with a sentence naming the entry and the offset; the reader is of no use then. -EOPNOTSUPP: a good
 * tar of a form or size that imgfs refuses (multi-volume, incremental, unknown types; names above 4,095 bytes,
 * with components above 255 or ".." among them; pax records above 1 MiB). -ENOMEM.
 */
int tar_reader_feed(TarReader *reader, const uint8_t *bytes, size_t size, size_t *ret_consumed, TarPiece *ret_piece,
		    Error *error) _must_check_;

/* The current entry; strings and lists stay valid until the next header byte is fed. */
const TarEntry *tar_reader_entry(const TarReader *reader);

/*
 * Says that the stream ended. A tar without end marker, or without the padding of its last entry (umoci insert writes
 * such), is good; one that ends inside a header or data is -EBADMSG.
 */
int tar_reader_end(TarReader *reader, Error *error) _must_check_;
