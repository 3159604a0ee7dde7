/* The list of a zip archive from any bytes, compared with itself. */
#include <stdlib.h>
#include <string.h>

#include "fs/base/bytes.h"
#include "tools/export/zip-list.h"

typedef struct Bytes {
	const uint8_t *data;
	size_t size;
} Bytes;

static int read_bytes(void *arg, uint64_t offset, void *buffer, size_t size, Error *error _unused_)
{
	const Bytes *bytes = arg;
	if (!range_within(offset, size, bytes->size))
		abort();
	memcpy(buffer, bytes->data + offset, size);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	Bytes bytes = { .data = data, .size = size };
	ZipList list = { 0 };
	ZipDifference difference;
	if (zip_list_read(read_bytes, &bytes, size, &list, NULL) < 0)
		return 0;
	if (zip_list_compare(&list, &list, &difference) == 0 && (difference.differ > 0 || difference.layout_differs))
		abort();
	zip_list_done(&list);
	return 0;
}
