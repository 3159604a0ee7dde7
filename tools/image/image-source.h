/*
 * Where an image comes from. A source hands its layers to a sink, uncompressed, and says at the end what image they make. Some sources
 * know the image before its layers and can leave out those nobody wants (a file, a directory); others stream by once (a pipe, the
 * docker daemon). The table of functions is all that tools/export knows of a source.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "fs/base/digest.h"
#include "fs/base/error.h"
#include "tools/export/layer-writer.h"

/* A config larger than this is refused, as readers of manifests do. */
#define IMAGE_CONFIG_MAX MANIFEST_SIZE_MAX

/* An image without its layers' bytes. Zeroed is empty. */
typedef struct ImageContent {
	char *config; /* byte for byte; NUL-terminated beyond config_size */
	size_t config_size;
	Digest *diff_ids; /* lowest layer first, as the config's rootfs has them */
	size_t layer_count;
	char **names; /* what the source calls the image: "whisk/invoker:v2"; none is possible */
	size_t name_count;
	char *manifest; /* the source's own, OCI or docker schema 2, byte for byte; NULL where it has none */
	size_t manifest_size;
} ImageContent;

static inline void image_content_done(ImageContent *content)
{
	for (size_t i = 0; i < content->name_count; i++)
		free(content->names[i]);
	free(content->names);
	free(content->diff_ids);
	free(content->config);
	free(content->manifest);
	*content = (ImageContent){ 0 };
}

/* Who takes the image. All are called from the thread that called the source; a negative return ends the transfer with it. */
typedef struct ImageSink {
	/* The image was found; called once, before any layer where the source can tell, else after the last. */
	int (*begin)(void *arg, const ImageContent *content, Error *error);

	/* Is this layer there already? Then the source may leave it out. */
	bool (*has_layer)(void *arg, const Digest *diff_id);

	/*
	 * A layer's tar, to be read to its end. `diff_id` is what it must be, or NULL when the source cannot know yet.
	 * `ret_diff_id` is what it was.
	 */
	int (*layer)(void *arg, const Digest *diff_id, const LayerSource *tar, Digest *ret_diff_id, Error *error);

	/* Bytes read from the source so far, of `total` (0: not known). May be NULL. */
	void (*progress)(void *arg, uint64_t done, uint64_t total);

	/* A sentence for a person about how the source has to be read. May be NULL. */
	void (*notice)(void *arg, const char *sentence);

	void *arg;
} ImageSink;

typedef struct ImageSource ImageSource;
struct ImageSource {
	/*
	 * Transfers the image, once; blocks on disk and network. Afterwards the sink has seen or has had every layer of
	 * `ret_content`, and config and layers have been checked against the digests the source names them by.
	 * Errors carry a sentence: -ENOENT (no such image; names those there are), -EBADMSG (damaged or not of this form), -EKEYREJECTED (bytes
	 * are not what their digest says), -EEXIST (several images, none chosen), -ENOMEM, the sink's, read's.
	 */
	int (*transfer)(ImageSource *source, const ImageSink *sink, ImageContent *ret_content, Error *error);
	ImageSource *(*destroy)(ImageSource *source);
};

static inline int _must_check_ image_source_transfer(ImageSource *source, const ImageSink *sink,
						     ImageContent *ret_content, Error *error)
{
	return source->transfer(source, sink, ret_content, error);
}

static inline ImageSource *image_source_free(ImageSource *source)
{
	return source ? source->destroy(source) : NULL;
}
DEFINE_CLEANUP(ImageSource, image_source_free);
