/*
 * A layer's tar in, its imgfs blob out: reads the tar once, cuts it, compresses on several threads, writes frames in
 * order, then index and footer. Memory is bounded, but for the index (some 200 bytes an entry).
 */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "fs/base/digest.h"
#include "fs/base/error.h"
#include "fs/format/manifest.h"

/*
 * Where the tar comes from. read() gives 1 to `size` bytes, 0 at the end, or a negative errno with a sentence; it may
 * block.
 */
typedef struct LayerSource {
	ssize_t (*read)(void *arg, void *buffer, size_t size, Error *error);
	void *arg;
} LayerSource;

/*
 * Asks for a frame of known content, by the content's XXH3 (64 bits, seed 0): fills `frame` (FORMAT_FRAME_MAX bytes) and its digest, or
 * -ENOENT. Whether it is that is for the asker to find out. Called by the threads that compress, one at a time.
 */
typedef int LayerFindFrame(void *arg, uint64_t content, uint32_t content_size, uint8_t *frame, uint32_t *ret_size,
			   Digest *ret_digest);

typedef struct LayerOptions {
	int level;                  /* FRAME_ADAPTIVE, FRAME_FAST or 3 to 12 */
	unsigned jobs;              /* threads that compress, this one included; 0 means 2; at most 256 */
	const Digest *diff_id;      /* what the tar must turn out to be, or NULL */
	LayerFindFrame *find_frame; /* NULL: reuse nothing */
	void *find_frame_arg;
	void (*progress)(void *arg, uint64_t tar_bytes); /* may be NULL; called now and then from the calling thread */
	void *progress_arg;
} LayerOptions;

typedef struct LayerResult {
	ManifestLayer layer; /* complete */
	uint64_t *contents;  /* XXH3 of each chunk's content, malloc'ed */
	uint32_t chunk_count;
	uint32_t reused_chunks;
	uint64_t entry_count;
} LayerResult;

void layer_result_done(LayerResult *result);

/*
 * Writes the blob to `blob_fd` from its current position 0. Errors: -EBADMSG (the tar is corrupt; the sentence
 * names entry and offset), -EOPNOTSUPP (a form of tar that tar-reader.h says is refused), -EKEYREJECTED (diffID is
 * another), -EINVAL (level or jobs), -EFBIG (an index beyond FORMAT_IMAGE_MAX), -ENOMEM, -EAGAIN (no threads to be
 * had), or read's and write's. What was written to `blob_fd` is of no use then.
 */
int layer_write(const LayerSource *source, const LayerOptions *options, int blob_fd, LayerResult *ret_result,
		Error *error) _must_check_;

/* The same in two steps, so that one layer can be finished while the next is read. A draft belongs to one thread at a time. */
typedef struct LayerDraft LayerDraft;

/* Reads the tar to its end and writes its frames. `blob_fd` is borrowed until layer_finish(). */
int layer_read(const LayerSource *source, const LayerOptions *options, int blob_fd, LayerDraft **ret_draft,
	       Digest *ret_diff_id, Error *error) _must_check_;
LayerDraft *layer_draft_free(LayerDraft *draft);
DEFINE_CLEANUP(LayerDraft, layer_draft_free);

/* Compresses and writes the index, and the footer. Errors: -EFBIG, -ENOMEM, write's. */
int layer_finish(LayerDraft *draft, LayerResult *ret_result, Error *error) _must_check_;
