/* Images for the tests of this room. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "fs/format/image.h"
#include "fs/format/tree.h"

/* Inodes of the sample, in order. */
enum {
	SAMPLE_ROOT,
	SAMPLE_ETC,    /* directory: issue, passwd, shadow */
	SAMPLE_PASSWD, /* 1,000 bytes at 1,024; two names */
	SAMPLE_SHADOW, /* 5,000 bytes at 4,096, two xattrs */
	SAMPLE_ISSUE,  /* symlink to ../usr/issue */
	SAMPLE_SPARSE, /* two extents; the xattrs of shadow */
	SAMPLE_NULL,   /* character device 1, 3 */
	SAMPLE_FIFO,   /* one xattr with NUL and quote in its value */
	SAMPLE_USR,    /* implied directory, with directory lib */
	SAMPLE_LIB,    /* empty directory */
	SAMPLE_LOWER,  /* hard link to bin/sh of a lower layer; not in a view */
	SAMPLE_INODES,
};

#define SAMPLE_TAR_SIZE 300000u

/*
 * An index with three chunks and one of everything a tree can hold, or (FORMAT_KIND_VIEW) the same tree as a view of
 * two layers. malloc'ed; a failure ends the test.
 */
uint8_t *sample_image(uint32_t kind, size_t *ret_size);

/* As above without the extra sections: the tree `tree` alone in an index of `tar_size` bytes in one or no chunk. */
uint8_t *tree_image(TreeWriter *tree, uint32_t tar_size, size_t *ret_size);
