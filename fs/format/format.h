/* Constants of format version 1; docs/format.md is the normative text. */
#pragma once

#include <stdint.h>

#define FORMAT_VERSION 1u

/* Cutting rules (docs/format.md section 2). */
#define FORMAT_CHUNK_MIN        32768u
#define FORMAT_CHUNK_NORMAL     114688u /* up to here a cut is rare, beyond it frequent: lengths gather around it */
#define FORMAT_CHUNK_MAX        262144u
#define FORMAT_CHUNK_EARLY_BITS 19
#define FORMAT_CHUNK_LATE_BITS  15
#define FORMAT_RUN_HASH_BITS    5
#define FORMAT_LARGE_FILE       4096u

#define FORMAT_FRAME_MAX        (FORMAT_CHUNK_MAX + 64u)
#define FORMAT_FOOTER_SIZE      144u /* skippable frame header included */
#define FORMAT_SKIPPABLE_HEADER 8u
#define FORMAT_INDEX_MAGIC      0x184D2A5Eu
#define FORMAT_FOOTER_MAGIC     0x184D2A5Fu

/* An index image larger than this is refused before memory is asked for it. */
#define FORMAT_IMAGE_MAX (UINT64_C(4) << 30)

/* Limits of Linux that every tree keeps (docs/format.md section 3.4). */
#define FORMAT_NAME_MAX        255u
#define FORMAT_TARGET_MAX      4095u
#define FORMAT_XATTR_NAME_MAX  255u
#define FORMAT_XATTR_VALUE_MAX 65536u

enum {
	FORMAT_KIND_INDEX = 1,
	FORMAT_KIND_VIEW = 2,
};

enum {
	FORMAT_CODEC_NONE = 0,
	FORMAT_CODEC_LZ4 = 1,
};

typedef enum FormatSection {
	FORMAT_SECTION_CHUNK_LENGTHS = 1,
	FORMAT_SECTION_CHUNK_MARKS = 2,
	FORMAT_SECTION_CHUNK_DIGESTS = 3,
	FORMAT_SECTION_INODES = 4,
	FORMAT_SECTION_DIRENTS = 5,
	FORMAT_SECTION_STRINGS = 6,
	FORMAT_SECTION_EXTENTS = 7,
	FORMAT_SECTION_XATTR_SETS = 8,
	FORMAT_SECTION_XATTR_ITEMS = 9,
	FORMAT_SECTION_PACKED_DIGESTS = 10,
	FORMAT_SECTION_STARTUP = 11,
	FORMAT_SECTION_LAYERS = 12,
} FormatSection;
#define FORMAT_SECTION_PAGE_SUMS 0xffffffffu

#define FORMAT_SECTION_MANDATORY 1u
#define FORMAT_MARK_INTERVAL     64u
#define FORMAT_PAGE_SIZE         4096u

enum {
	TREE_SPARSE = 1,    /* data lies in extents */
	TREE_IMPLIED = 2,   /* a directory without an entry of its own */
	TREE_LOWER_LINK = 4 /* a hard link whose target is in a lower layer */
};
