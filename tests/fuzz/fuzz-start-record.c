/* Bytes laid over parts of a record of reads, as a broken server may leave it: what is accepted keeps its bounds. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "fs/mount/start-record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint32_t chunk_size(void *arg, uint32_t layer, uint32_t chunk)
{
	(void)arg;
	return layer < 4 && chunk < 1000 ? 1 + chunk : 0;
}

static void lay(uint8_t *to, size_t room, const uint8_t *data, size_t size)
{
	memcpy(to, data, size < room ? size : room);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	StartRecord *record = calloc(1, sizeof(*record));
	assert(record);
	/* A third each: the head with its counts, readers and cgroups, reads. */
	size_t part = size / 3;
	lay((uint8_t *)record, sizeof(*record), data, part);
	lay((uint8_t *)record->readers, sizeof(record->readers) + sizeof(record->groups), data + part, part);
	lay((uint8_t *)record->entries, sizeof(record->entries), data + 2 * part, size - 2 * part);
	record->head.magic = START_RECORD_MAGIC;
	record->head.version = START_RECORD_VERSION;
	if (start_record_check(record) == 0) {
		assert(record->read_count <= START_RECORD_READS);
		for (uint32_t i = 0; i < record->read_count; i++)
			assert(record->entries[i].reader <= record->reader_count);
		for (uint32_t i = 0; i < record->reader_count; i++)
			assert(record->readers[i].group <= record->group_count);
		Profile profile = { 0 };
		if (start_record_profile(record, &(Digest){ 0 }, chunk_size, NULL, &profile) == 0)
			assert(profile.count > 0);
		profile_done(&profile);
		assert(start_record_state(record, INT64_MAX / 2) < START_ENDS);
	}
	free(record);
	return 0;
}
