#include "fs/mount/start-recorder.h"

#include <pthread.h>
#include <string.h>

#include "fs/base/log.h"
#include "fs/mount/start-reader.h"

#define KNOWN     256u             /* threads looked up lately; a power of two */
#define KNOWN_AGE INT64_C(1000000) /* microseconds for which that holds: a thread may change its cgroup or end */
#define NO_GROUP  0u

typedef struct Known {
	uint32_t thread; /* 0: unused */
	uint16_t reader; /* as StartRead.reader */
	int64_t looked;
} Known;

struct StartRecorder {
	StartRecord *record;
	size_t layer_count;
	uint32_t *chunk_counts;
	_Atomic uint8_t **touched; /* by layer: a bit a chunk; any thread */
	pthread_mutex_t lock;      /* of the next, and of who writes tables of readers and cgroups; held over no I/O */
	Known known[KNOWN];
};

static uint64_t load(const _Atomic uint64_t *value)
{
	return atomic_load_explicit(value, memory_order_relaxed);
}

static void add(_Atomic uint64_t *value, uint64_t by)
{
	(void)atomic_fetch_add_explicit(value, by, memory_order_relaxed);
}

/* Marks a chunk; was it new? */
static bool mark(StartRecorder *recorder, uint32_t layer, uint32_t chunk)
{
	_Atomic uint8_t *byte = &recorder->touched[layer][chunk / 8];
	uint8_t bit = (uint8_t)(1u << chunk % 8);
	if (atomic_load_explicit(byte, memory_order_relaxed) & bit)
		return false;
	return !(atomic_fetch_or_explicit(byte, bit, memory_order_relaxed) & bit);
}

static bool chunks_exist(const StartRecorder *recorder, uint32_t layer, uint32_t first, uint32_t count)
{
	return layer < recorder->layer_count && count > 0 && first < recorder->chunk_counts[layer] &&
	       count <= recorder->chunk_counts[layer] - first;
}

/* What servers before this one have written down is not new; nobody of theirs waits any more. */
static void take_over(StartRecorder *recorder)
{
	StartRecord *record = recorder->record;
	uint32_t count = record->read_count;
	for (uint32_t i = 0; i < count && i < START_RECORD_READS; i++) {
		const StartRead *read = &record->entries[i];
		if (atomic_load_explicit(&record->entries[i].ready, memory_order_acquire) != 1 ||
		    !chunks_exist(recorder, read->layer, read->first, read->count))
			continue;
		for (uint32_t chunk = 0; chunk < read->count; chunk++)
			(void)mark(recorder, read->layer, read->first + chunk);
	}
	for (size_t i = 0; i < START_RECORD_WAITING; i++)
		atomic_store(&record->waiting[i].since, 0);
	(void)atomic_fetch_add(&record->servers, 1);
}

static int make_bits(StartRecorder *recorder, const uint32_t *chunk_counts, size_t layer_count)
{
	recorder->touched = calloc(layer_count + 1, sizeof(_Atomic uint8_t *));
	recorder->chunk_counts = calloc(layer_count + 1, sizeof(*chunk_counts));
	if (!recorder->touched || !recorder->chunk_counts)
		return -ENOMEM;
	for (; recorder->layer_count < layer_count; recorder->layer_count++) {
		size_t i = recorder->layer_count;
		recorder->chunk_counts[i] = chunk_counts[i];
		recorder->touched[i] = calloc((size_t)chunk_counts[i] / 8 + 1, sizeof(_Atomic uint8_t));
		if (!recorder->touched[i])
			return -ENOMEM;
	}
	return 0;
}

int start_recorder_new(int fd, const uint32_t *chunk_counts, size_t layer_count, StartRecorder **ret_recorder)
{
	_cleanup_(start_recorder_free_p) StartRecorder *recorder = calloc(1, sizeof(*recorder));
	if (!recorder)
		return -ENOMEM;
	(void)pthread_mutex_init(&recorder->lock, NULL);
	int r = fd <= 0 ? -ENOENT : start_record_map(fd, &recorder->record);
	if (r < 0 && fd > 0)
		log_warning("reads are not recorded reason=\"%s\"", error_text(NULL, r));
	if (r == 0) {
		r = make_bits(recorder, chunk_counts, layer_count);
		if (r < 0)
			return r;
		take_over(recorder);
	}
	*ret_recorder = TAKE_PTR(recorder);
	return 0;
}

StartRecorder *start_recorder_free(StartRecorder *recorder)
{
	if (!recorder)
		return NULL;
	start_record_unmap(recorder->record);
	for (size_t i = 0; recorder->touched && i <= recorder->layer_count; i++)
		free((void *)(uintptr_t)recorder->touched[i]);
	free((void *)recorder->touched);
	free(recorder->chunk_counts);
	(void)pthread_mutex_destroy(&recorder->lock);
	free(recorder);
	return NULL;
}

bool start_recorder_is_on(StartRecorder *recorder)
{
	return recorder->record &&
	       atomic_load_explicit(&recorder->record->ended, memory_order_relaxed) == START_RECORDING;
}

/* The number + 1 of a cgroup's path in the table, entered if it is new. The lock is held. */
static uint32_t find_group(StartRecord *record, const char *path)
{
	uint32_t count = record->group_count;
	for (uint32_t i = 0; i < count && i < START_RECORD_GROUPS; i++) {
		if (strncmp(record->groups[i], path, START_RECORD_GROUP) == 0)
			return i + 1;
	}
	if (count >= START_RECORD_GROUPS)
		return NO_GROUP;
	memcpy(record->groups[count], path, strnlen(path, START_RECORD_GROUP - 1));
	atomic_store(&record->group_count, count + 1);
	return count + 1;
}

/* The number + 1 of a reader in the table, entered if it is new; 0: there is no room. The lock is held. */
static uint16_t find_reader(StartRecord *record, const StartReader *wanted)
{
	uint32_t count = record->reader_count;
	for (uint32_t i = 0; i < count && i < START_RECORD_READERS; i++) {
		const StartReader *reader = &record->readers[i];
		if (reader->thread == wanted->thread && reader->process == wanted->process &&
		    reader->group == wanted->group &&
		    strncmp(reader->command, wanted->command, START_RECORD_COMMAND) == 0)
			return (uint16_t)(i + 1);
	}
	if (count >= START_RECORD_READERS)
		return 0;
	StartReader *reader = &record->readers[count];
	reader->thread = wanted->thread;
	reader->process = wanted->process;
	reader->group = wanted->group;
	memcpy(reader->command, wanted->command, START_RECORD_COMMAND);
	atomic_store_explicit(&reader->ready, 1, memory_order_release);
	atomic_store(&record->reader_count, count + 1);
	return (uint16_t)(count + 1);
}

static uint16_t look_up(StartRecorder *recorder, uint32_t thread)
{
	Known *known = &recorder->known[thread % KNOWN];
	int64_t now = shared_memory_clock();
	(void)pthread_mutex_lock(&recorder->lock);
	bool fresh = known->thread == thread && now - known->looked < KNOWN_AGE;
	uint16_t number = known->reader;
	(void)pthread_mutex_unlock(&recorder->lock);
	if (fresh)
		return number;

	StartReader reader = { .thread = thread };
	char group[START_RECORD_GROUP] = "";
	if (start_reader_look(thread, &reader.process, reader.command, sizeof(reader.command), group, sizeof(group)) <
	    0)
		return 0;
	(void)pthread_mutex_lock(&recorder->lock);
	reader.group = find_group(recorder->record, group);
	number = find_reader(recorder->record, &reader);
	*known = (Known){ .thread = thread, .reader = number, .looked = now };
	(void)pthread_mutex_unlock(&recorder->lock);
	return number;
}

void start_recorder_touch(StartRecorder *recorder, uint32_t layer, uint32_t first, uint32_t count, uint32_t thread,
			  bool waits, StartTrace *trace)
{
	if (!recorder->record || !chunks_exist(recorder, layer, first, count))
		return;
	bool on = start_recorder_is_on(recorder), new = false;
	uint32_t from = first, to = first + count - 1;
	for (uint32_t chunk = first; on && chunk < first + count; chunk++) {
		if (!mark(recorder, layer, chunk))
			continue;
		from = new ? from : chunk;
		to = chunk;
		new = true;
	}
	if (!new && !waits)
		return;
	trace->read.layer = layer;
	trace->read.first = from;
	trace->read.count = to - from + 1;
	trace->read.flags = new ? START_READ_FIRST : 0;
	trace->read.reader = look_up(recorder, thread);
}

void start_recorder_wait(StartRecorder *recorder, uint32_t inode, uint32_t thread, StartTrace *trace)
{
	StartRecord *record = recorder->record;
	if (!record)
		return;
	int64_t now = shared_memory_clock();
	uint64_t since = now > record->head.began ? (uint64_t)(now - record->head.began) + 1 : 1;
	for (size_t i = 0; i < START_RECORD_WAITING; i++) {
		uint64_t unused = 0;
		if (!atomic_compare_exchange_strong(&record->waiting[i].since, &unused, since))
			continue;
		atomic_store_explicit(&record->waiting[i].inode, inode, memory_order_relaxed);
		atomic_store_explicit(&record->waiting[i].thread, thread, memory_order_relaxed);
		trace->waiting = &record->waiting[i];
		return;
	}
}

static FetchTier furthest(const FetchTally *tally)
{
	if (tally->absent > 0)
		return FETCH_TIER_NETWORK;
	if (tally->chunks[FETCH_TIER_DONOR] > 0)
		return FETCH_TIER_DONOR;
	return tally->chunks[FETCH_TIER_CACHE] > 0 ? FETCH_TIER_CACHE : FETCH_TIER_DECODED;
}

static void count_chunks(_Atomic uint64_t *counters, const FetchTally *tally)
{
	/* What had to come was then read from the cache, and what was copied from a donor likewise. */
	uint32_t cached = tally->chunks[FETCH_TIER_CACHE];
	uint32_t elsewhere = tally->absent + tally->chunks[FETCH_TIER_DONOR];
	add(&counters[FETCH_TIER_CACHE], cached > elsewhere ? cached - elsewhere : 0);
	add(&counters[FETCH_TIER_DECODED], tally->chunks[FETCH_TIER_DECODED]);
	if (elsewhere > 0) {
		add(&counters[FETCH_TIER_DONOR], tally->chunks[FETCH_TIER_DONOR]);
		add(&counters[FETCH_TIER_NETWORK], tally->absent);
	}
}

static void note_failure(StartRecord *record, int error)
{
	add(&record->failures, 1);
	atomic_store_explicit(&record->last_error, (uint32_t)-error, memory_order_relaxed);
	atomic_store_explicit(&record->last_error_real, (uint64_t)shared_memory_real_clock(), memory_order_relaxed);
}

/* Raises a time that other threads raise, too. */
static void raise_to(_Atomic uint64_t *value, uint64_t to)
{
	uint64_t now = load(value);
	while (now < to && !atomic_compare_exchange_weak(value, &now, to))
		;
}

static uint32_t fit(uint64_t value)
{
	return value < UINT32_MAX ? (uint32_t)value : UINT32_MAX;
}

static void write_down(StartRecord *record, const StartAnswer *answer, const StartRead *noted)
{
	int64_t now = shared_memory_clock();
	uint64_t time = answer->began > record->head.began ? (uint64_t)(answer->began - record->head.began) : 0;
	if (noted->flags & START_READ_FIRST) {
		uint64_t none = 0;
		(void)atomic_compare_exchange_strong(&record->first_read, &none, time + 1);
		raise_to(&record->last_first, (uint64_t)(now - record->head.began) + 1);
	}
	uint32_t number = atomic_load_explicit(&record->read_count, memory_order_relaxed);
	do {
		if (number >= START_RECORD_READS) {
			add(&record->lost, 1);
			atomic_store_explicit(&record->ended, START_END_FULL, memory_order_relaxed);
			return;
		}
	} while (!atomic_compare_exchange_weak(&record->read_count, &number, number + 1));

	StartRead *read = &record->entries[number];
	read->inode = answer->inode;
	read->time = time;
	read->offset = answer->offset;
	read->size = answer->size;
	read->waited = answer->tally->absent > 0 ? fit((uint64_t)(now - answer->began)) : 0;
	read->layer = noted->layer;
	read->first = noted->first;
	read->count = noted->count;
	read->fetched = fit(answer->tally->absent_bytes);
	read->reader = noted->reader;
	read->source = (uint8_t)furthest(answer->tally);
	read->flags = (uint8_t)(noted->flags | (answer->error < 0 ? START_READ_FAILED : 0));
	atomic_store_explicit(&read->ready, 1, memory_order_release);
}

void start_recorder_end(StartRecorder *recorder, const StartAnswer *answer, StartTrace *trace)
{
	StartRecord *record = recorder->record;
	if (!record)
		return;
	if (trace->waiting)
		atomic_store(&trace->waiting->since, 0);
	trace->waiting = NULL;
	add(&record->reads, 1);
	if (answer->error < 0) {
		note_failure(record, answer->error);
	} else {
		add(&record->read_bytes, answer->size);
		count_chunks(record->chunks, answer->tally);
	}
	if (trace->read.count == 0)
		return;
	/* The end of a start is noticed by the first read after it. */
	StartEnd state = start_record_state(record, answer->began);
	if (state != START_RECORDING) {
		atomic_store_explicit(&record->ended, (uint32_t)state, memory_order_relaxed);
		trace->read.flags = 0;
		if (answer->tally->absent == 0)
			return;
	}
	write_down(record, answer, &trace->read);
}

void start_recorder_profile(StartRecorder *recorder, uint64_t bytes)
{
	if (recorder->record)
		add(&recorder->record->profile_bytes, bytes);
}
