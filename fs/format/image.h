/*
 * The container of an index or a view: header, section table, sections, page sums (docs/format.md section 3).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/base/digest.h"
#include "fs/base/error.h"
#include "fs/format/buffer.h"
#include "fs/format/format.h"

typedef struct ImageHeader {
	uint32_t kind;  /* FORMAT_KIND_* */
	uint32_t codec; /* FORMAT_CODEC_* */
	uint64_t tar_size;
	uint64_t chunks_size; /* total length of the frames in the blob */
	Digest id;            /* diffID of the layer, chain ID of a view */
} ImageHeader;

typedef struct ImageSection {
	const uint8_t *data;
	uint64_t size;
	bool present;
} ImageSection;

/* An image in memory the caller owns (usually a mapping) and keeps until it is done with the view on it. */
typedef struct Image {
	ImageHeader header;
	ImageSection sections[FORMAT_SECTION_LAYERS + 1]; /* by type; [0] is unused */
} Image;

/*
 * Validates header, section table and every page sum, and fills `ret_image` with pointers into `data`. Reads all of
 * `size` bytes once. What sections hold is validated by tree_open() and chunk_table_open().
 * Errors: -EBADMSG (rotten, truncated, not an image), -EPROTONOSUPPORT (a version or mandatory section not known).
 */
int image_open(const void *data, size_t size, Image *ret_image, Error *error) _must_check_;

/*
 * The same without the page sums: reads a few pages only, for who wants to know which sections there are and will not look into them.
 */
int image_peek(const void *data, size_t size, Image *ret_image, Error *error) _must_check_;

/*
 * For who reads an image from a file in parts, into memory of its size that is zero elsewhere. The first IMAGE_HEAD_MAX bytes are there (or all, if it
 * is shorter): header and section table. `ret_end`: the chunk table is before it; `ret_sums`: from there to the end are the page sums. When these
 * are there, too, image_open_part() validates all before `end`, and `ret_image` is for chunk_table_open() alone. Errors: those of image_open();
 * -EBADMSG also where the chunk table is not at the beginning.
 */
#define IMAGE_HEAD_MAX 16384u
int image_part(const void *data, size_t size, size_t *ret_end, size_t *ret_sums, Error *error) _must_check_;
int image_open_part(const void *data, size_t size, Image *ret_image, Error *error) _must_check_;

/* Collects sections and writes the image. One owner, no locking. */
typedef struct ImageWriter ImageWriter;

int image_writer_new(const ImageHeader *header, ImageWriter **ret_writer) _must_check_;
ImageWriter *image_writer_free(ImageWriter *writer);
DEFINE_CLEANUP(ImageWriter, image_writer_free);

/* Adds a section (copied); types must ascend, and the page sums are not among them. Errors: -EINVAL, -ENOMEM. */
int image_writer_add(ImageWriter *writer, FormatSection type, uint32_t flags, const void *data, size_t size)
	_must_check_;

/* The same, of bytes that become the writer's and leave the buffer empty; on an error they stay where they are. Errors: -EINVAL. */
int image_writer_take(ImageWriter *writer, FormatSection type, uint32_t flags, Buffer *bytes) _must_check_;

/* The finished image, once: the sections are gone then. It is malloc'ed, the caller's. Errors: -EFBIG above FORMAT_IMAGE_MAX, -ENOMEM. */
int image_writer_finish(ImageWriter *writer, uint8_t **ret_data, size_t *ret_size) _must_check_;
