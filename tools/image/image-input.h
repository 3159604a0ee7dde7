/* Files that a source reads: a stretch of one as a LayerSource, with its digest and progress; a small one whole. */
#pragma once

#include "tools/image/image-source.h"

/* How far a transfer is; shared by the inputs of one source. */
typedef struct ImageProgress {
	const ImageSink *sink;
	uint64_t done, total;
} ImageProgress;

void image_progress_add(ImageProgress *progress, uint64_t bytes);

/* A stretch of an open file. The fields are the caller's to set; nothing is owned. */
typedef struct ImageInput {
	int fd;
	uint64_t offset, left;
	const char *path;        /* for sentences */
	DigestState *digest;     /* of what was read; may be NULL */
	ImageProgress *progress; /* may be NULL */
} ImageInput;

/* Reads on. A file shorter than it should be is -EBADMSG. */
LayerSource image_input_source(ImageInput *input);

/* Reads what is left and compares the digest with `expected`. Errors: -EKEYREJECTED, read's. */
int image_input_verify(ImageInput *input, const Digest *expected, Error *error) _must_check_;
