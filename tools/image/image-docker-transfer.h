/* What file, stream and engine share: one pass over an archive, then the image its manifest.json names. */
#pragma once

#include "tools/image/image-archive.h"
#include "tools/image/image-input.h"
#include "tools/image/image-source.h"

typedef struct ImageDockerTransfer {
	const char *archive; /* for sentences: "docker archive x.tar" */
	const char *wanted;  /* image to choose, or NULL */
	int fd;              /* to read members from a second time, or -1: then layers are handed on as they pass by */
	ImageProgress *progress;
} ImageDockerTransfer;

/* As ImageSource's transfer(); reads `input` to its end. */
int image_docker_transfer(const ImageDockerTransfer *transfer, const ImageArchiveInput *input, const ImageSink *sink,
			  ImageContent *ret_content, Error *error) _must_check_;
