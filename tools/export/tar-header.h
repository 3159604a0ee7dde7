/* One 512-byte header block of a tar (POSIX.1-2017 pax, "ustar Interchange Format"; GNU tar manual, "Basic Tar
 * Format"). */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "fs/base/cleanup.h"

#define TAR_BLOCK         512u
#define TAR_HEADER_NAME   257u /* prefix, "/", name and a NUL */
#define TAR_HEADER_TARGET 101u

typedef enum TarBlockKind {
	TAR_BLOCK_ZERO,
	TAR_BLOCK_HEADER, /* its checksum is right */
	TAR_BLOCK_GARBAGE,
} TarBlockKind;

TarBlockKind tar_block_kind(const uint8_t block[static TAR_BLOCK]);

typedef struct TarHeader {
	char typeflag; /* as it stands in the block */
	char name[TAR_HEADER_NAME];
	char target[TAR_HEADER_TARGET];
	uint32_t mode; /* permission bits, suid, sgid, sticky */
	uint32_t uid, gid;
	int64_t mtime;
	uint64_t size; /* at most INT64_MAX */
	uint32_t device_major, device_minor;
} TarHeader;

/* Decodes a block that is a header. Errors: -EBADMSG, and the name of the bad field (static text) in `ret_field`. */
int tar_header_decode(const uint8_t block[static TAR_BLOCK], TarHeader *ret_header, const char **ret_field)
	_must_check_;

/*
 * A number of a header: octal digits between blanks and NULs (nothing at all is 0), or base-256, negative ones
 * included. Errors: -EBADMSG (not a number, or one that does not fit).
 */
int tar_header_number(const uint8_t *field, size_t size, int64_t *ret_value) _must_check_;
