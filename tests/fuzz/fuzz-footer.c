/* Eight bytes of blob size, then a footer whose sum is made right; what is accepted encodes to the same bytes. */
#include <assert.h>
#include <stdint.h>
#include <string.h>
#include <xxhash.h>

#include "fs/base/bytes.h"
#include "fs/format/blob.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t bytes[FORMAT_FOOTER_SIZE], again[FORMAT_FOOTER_SIZE];
	BlobFooter footer;
	if (size != 8 + sizeof(bytes))
		return 0;
	memcpy(bytes, data + 8, sizeof(bytes));
	store_le64(bytes + sizeof(bytes) - 8, XXH64(bytes + 8, sizeof(bytes) - 16, 0));
	uint64_t blob_size = load_le64(data);
	if (blob_footer_decode(bytes, blob_size, &footer, NULL) < 0)
		return 0;
	assert(footer.index_offset + footer.index_size + FORMAT_FOOTER_SIZE == blob_size);
	blob_footer_encode(&footer, again);
	assert(memcmp(bytes, again, sizeof(bytes)) == 0);
	return 0;
}
