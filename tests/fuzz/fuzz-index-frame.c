/*
 * Any bytes as the index part of a blob. Frames that claim more than 64 MiB are left out: memory is not what is
 * tested.
 */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <zstd.h>

#include "fs/format/blob.h"

#define CONTENT_MAX (64u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *image = NULL;
	size_t image_size;
	if (size > 8) {
		unsigned long long content = ZSTD_getFrameContentSize(data + 8, size - 8);
		if (content > CONTENT_MAX && content <= FORMAT_IMAGE_MAX)
			return 0;
	}
	if (blob_index_decode(data, size, &image, &image_size, NULL) == 0)
		assert(image_size <= CONTENT_MAX);
	free(image);
	return 0;
}
