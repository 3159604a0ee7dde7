/* Any bytes as a start-up profile, its checksum made right; what is accepted encodes to the same bytes. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "fs/base/bytes.h"
#include "fs/format/profile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < PROFILE_SUM_SIZE || size > PROFILE_SIZE_MAX)
		return 0;
	_cleanup_free_ uint8_t *bytes = malloc(size);
	_cleanup_free_ uint8_t *again = NULL;
	_cleanup_(profile_done) Profile profile = { 0 };
	size_t again_size;
	assert(bytes);
	memcpy(bytes, data, size);
	store_le64(bytes + size - PROFILE_SUM_SIZE, XXH64(bytes, size - PROFILE_SUM_SIZE, 0));
	if (profile_decode(bytes, size, &profile, NULL) < 0)
		return 0;
	int r = profile_encode(&profile, &again, &again_size);
	assert(r == 0 && again_size == size && memcmp(again, bytes, size) == 0);
	return 0;
}
