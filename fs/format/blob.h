/*
 * The parts of a blob beside its chunks: footer and compressed index (docs/format.md section 1), and the OCI
 * annotations that name them in a manifest.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "fs/base/digest.h"
#include "fs/base/error.h"
#include "fs/format/format.h"

typedef struct BlobFooter {
	uint64_t tar_size;
	uint64_t index_offset;
	uint64_t index_size;
	uint64_t image_size; /* of the decompressed index */
	Digest index_digest;
	Digest diff_id;
	uint32_t chunk_count;
} BlobFooter;

void blob_footer_encode(const BlobFooter *footer, uint8_t ret_bytes[static FORMAT_FOOTER_SIZE]);

/*
 * Decodes the last FORMAT_FOOTER_SIZE bytes of a blob of `blob_size` bytes.
 * Errors: -EBADMSG (not an imgfs blob, or rotten), -EPROTONOSUPPORT (another version or feature).
 */
int blob_footer_decode(const uint8_t bytes[static FORMAT_FOOTER_SIZE], uint64_t blob_size, BlobFooter *ret_footer,
		       Error *error) _must_check_;

/* Compresses an index image into its skippable frame; malloc'ed, the caller's. Errors: -EFBIG, -ENOMEM. */
int blob_index_encode(const void *image, size_t image_size, uint8_t **ret_data, size_t *ret_size) _must_check_;

/* The same in a tenth of the time, some 6 % larger. */
int blob_index_encode_fast(const void *image, size_t image_size, uint8_t **ret_data, size_t *ret_size) _must_check_;

/*
 * The index image from its skippable frame, whose digest the caller has verified; malloc'ed, the caller's.
 * Errors: -EBADMSG, -EFBIG above FORMAT_IMAGE_MAX, -ENOMEM.
 */
int blob_index_decode(const void *data, size_t size, uint8_t **ret_image, size_t *ret_image_size, Error *error)
	_must_check_;

/* Keys of a layer descriptor's annotations (containerd hands "containerd.io/snapshot/" keys on as labels). */
#define BLOB_ANNOTATION_VERSION      "containerd.io/snapshot/imgfs.version"      /* "1" */
#define BLOB_ANNOTATION_DIGEST       "containerd.io/snapshot/imgfs.blob.digest"  /* sha256:... */
#define BLOB_ANNOTATION_SIZE         "containerd.io/snapshot/imgfs.blob.size"    /* decimal */
#define BLOB_ANNOTATION_INDEX_OFFSET "containerd.io/snapshot/imgfs.index.offset" /* decimal */
#define BLOB_ANNOTATION_INDEX_SIZE   "containerd.io/snapshot/imgfs.index.size"   /* decimal */
#define BLOB_ANNOTATION_INDEX_DIGEST "containerd.io/snapshot/imgfs.index.digest" /* sha256:..., as in the footer */
#define BLOB_ANNOTATION_DIFF_ID      "containerd.io/snapshot/imgfs.diff-id" /* the descriptor's digest, which labels lack */
