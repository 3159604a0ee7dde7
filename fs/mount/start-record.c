#include "fs/mount/start-record.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "fs/base/fd.h"

_Static_assert(sizeof(StartRead) == 64, "an entry is 64 bytes");

int start_record_create(const StartRecordLabel *label, const StartRecordLayer *layers, size_t count, int *ret_fd)
{
	_cleanup_close_ int fd = -1;
	if (count > START_RECORD_LAYERS)
		return -E2BIG;
	int r = shared_memory_create(START_RECORD_NAME, START_RECORD_MAGIC, START_RECORD_VERSION,
				     sizeof(StartRecord) + count * sizeof(*layers), &fd);
	if (r == 0)
		r = fd_pwrite_all(fd, label, sizeof(*label), offsetof(StartRecord, label));
	if (r == 0 && count > 0)
		r = fd_pwrite_all(fd, layers, count * sizeof(*layers), sizeof(StartRecord));
	if (r < 0)
		return r;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int start_record_map(int fd, StartRecord **ret_record)
{
	void *memory;
	int r = shared_memory_map(fd, START_RECORD_MAGIC, START_RECORD_VERSION, sizeof(StartRecord), &memory);
	if (r == 0)
		*ret_record = memory;
	return r;
}

void start_record_unmap(StartRecord *record)
{
	if (record)
		(void)munmap(record, sizeof(*record));
}

int start_record_load(int fd, StartRecord **ret_copy)
{
	void *memory;
	int r = shared_memory_copy(fd, START_RECORD_MAGIC, START_RECORD_VERSION, sizeof(StartRecord), &memory);
	if (r < 0)
		return r;
	_cleanup_free_ StartRecord *copy = memory;
	r = start_record_check(copy);
	if (r < 0)
		return r;
	*ret_copy = TAKE_PTR(copy);
	return 0;
}

int start_record_layers(int fd, StartRecordLayer **ret_layers, size_t *ret_count)
{
	struct stat status;
	if (fstat(fd, &status) < 0)
		return -errno;
	off_t size = status.st_size - (off_t)sizeof(StartRecord);
	if (size < 0 || size % (off_t)sizeof(StartRecordLayer) != 0 ||
	    size / (off_t)sizeof(StartRecordLayer) > (off_t)START_RECORD_LAYERS)
		return -EBADMSG;
	_cleanup_free_ StartRecordLayer *layers = malloc((size_t)size + 1);
	if (!layers)
		return -ENOMEM;
	int r = fd_pread_all(fd, layers, (size_t)size, sizeof(StartRecord));
	if (r < 0)
		return r;
	*ret_layers = TAKE_PTR(layers);
	*ret_count = (size_t)size / sizeof(StartRecordLayer);
	return 0;
}

/* In the order of time; those of one moment as they were written. */
static int compare_reads(const void *left, const void *right)
{
	const StartRead *one = left, *other = right;
	if (one->time != other->time)
		return one->time < other->time ? -1 : 1;
	return one->number < other->number ? -1 : 1;
}

static bool is_read(const StartRecord *record, const StartRead *read)
{
	return read->ready == 1 && read->source < FETCH_TIERS && read->reader <= record->reader_count &&
	       read->count > 0 && read->first <= UINT32_MAX - read->count;
}

static void check_reads(StartRecord *record)
{
	uint32_t count = 0, claimed = record->read_count;
	for (uint32_t i = 0; i < claimed && i < START_RECORD_READS; i++) {
		if (!is_read(record, &record->entries[i]))
			continue;
		record->entries[count] = record->entries[i];
		record->entries[count++].number = i;
	}
	record->read_count = count;
	qsort(record->entries, count, sizeof(record->entries[0]), compare_reads);
}

/* What a terminal shows: nothing that moves its cursor. */
static void clean_text(char *text, size_t size)
{
	text[size - 1] = '\0';
	for (char *at = text; *at; at++)
		if ((unsigned char)*at < ' ' || *at == 0x7f)
			*at = '?';
}

int start_record_check(StartRecord *record)
{
	if (record->head.magic != START_RECORD_MAGIC || record->head.version != START_RECORD_VERSION)
		return -EBADMSG;
	clean_text(record->label.place, sizeof(record->label.place));
	clean_text(record->label.source, sizeof(record->label.source));
	if (record->reader_count > START_RECORD_READERS)
		record->reader_count = START_RECORD_READERS;
	if (record->group_count > START_RECORD_GROUPS)
		record->group_count = START_RECORD_GROUPS;
	if (record->ended >= START_ENDS)
		record->ended = START_END_FULL;
	for (uint32_t i = 0; i < START_RECORD_READERS; i++) {
		StartReader *reader = &record->readers[i];
		clean_text(reader->command, sizeof(reader->command));
		if (reader->ready != 1 || i >= record->reader_count)
			*reader = (StartReader){ 0 };
		if (reader->group > record->group_count)
			reader->group = 0;
	}
	for (uint32_t i = 0; i < START_RECORD_GROUPS; i++)
		clean_text(record->groups[i], START_RECORD_GROUP);
	check_reads(record);
	return 0;
}

static bool somebody_waits(const StartRecord *record)
{
	for (size_t i = 0; i < START_RECORD_WAITING; i++) {
		if (atomic_load_explicit(&record->waiting[i].since, memory_order_relaxed) != 0)
			return true;
	}
	return false;
}

StartEnd start_record_state(const StartRecord *record, int64_t now)
{
	uint32_t ended = atomic_load_explicit(&record->ended, memory_order_relaxed);
	uint64_t first = atomic_load_explicit(&record->first_read, memory_order_relaxed);
	uint64_t last = atomic_load_explicit(&record->last_first, memory_order_relaxed);
	if (ended != START_RECORDING || first == 0)
		return (StartEnd)ended;
	uint64_t since = now > record->head.began ? (uint64_t)(now - record->head.began) : 0;
	if (since >= first && since - first > START_RECORD_LONGEST)
		return START_END_TIME;
	if (since >= last && since - last > START_RECORD_QUIET && !somebody_waits(record))
		return START_END_QUIET;
	return START_RECORDING;
}

/* Adds the chunks of a read up to the limit. Says whether there was room for all that exist. */
static int add_chunks(const StartRead *read, StartChunkSize *chunk_size, void *arg, uint64_t *left, Profile *profile)
{
	for (uint32_t i = 0; i < read->count; i++) {
		uint32_t size = chunk_size(arg, read->layer, read->first + i);
		if (size == 0)
			return 1;
		if (size > *left)
			return 0;
		int r = profile_add(profile, read->layer, read->first + i, 1);
		if (r < 0)
			return r == -EFBIG ? 0 : r;
		*left -= size;
	}
	return 1;
}

int start_record_profile(const StartRecord *copy, const Digest *manifest, StartChunkSize *chunk_size, void *arg,
			 Profile *ret_profile)
{
	_cleanup_(profile_done) Profile profile = { .manifest = *manifest };
	uint64_t left = PROFILE_BYTES_MAX, begin = 0;
	for (uint32_t i = 0; i < copy->read_count; i++) {
		const StartRead *read = &copy->entries[i];
		if (!(read->flags & START_READ_FIRST))
			continue;
		if (profile.count == 0)
			begin = read->time;
		int r = add_chunks(read, chunk_size, arg, &left, &profile);
		if (r == -ENOMEM)
			return r;
		if (r == 0)
			break;
		uint64_t after = (read->time - begin) / 1000;
		profile.milliseconds = after < UINT32_MAX ? (uint32_t)after : UINT32_MAX;
	}
	if (profile.count == 0)
		return -ENODATA;
	*ret_profile = profile;
	profile = (Profile){ 0 };
	return 0;
}
