/*
 * The writer of a StartRecord in a server. Any thread may record. What a read costs that touches nothing new is some loads and
 * additions of atomics; who reads is looked up in /proc for those alone that are recorded, while they wait for their answer.
 */
#pragma once

#include <stddef.h>

#include "fs/mount/start-record.h"

typedef struct StartRecorder StartRecorder;

/*
 * Goes on with the record behind `fd`, which stays the caller's; `chunk_counts` are those of the image's layers. What is not one (-1, or
 * another version) is passed over (so is 0, which no plan means): then nothing is recorded. Errors: -ENOMEM.
 */
int start_recorder_new(int fd, const uint32_t *chunk_counts, size_t layer_count, StartRecorder **ret_recorder)
	_must_check_;
StartRecorder *start_recorder_free(StartRecorder *recorder);
DEFINE_CLEANUP(StartRecorder, start_recorder_free);

/* A read under way. Zeroed it is none that is recorded. */
typedef struct StartTrace {
	StartRead read;
	StartWaiting *waiting;
} StartTrace;

/* Does the start go on, so that start_recorder_touch() is worth its arguments? */
bool start_recorder_is_on(StartRecorder *recorder);

/*
 * A read is about to be answered that used these chunks. Notes it in `trace` if a chunk is new, or if it had to wait (`waits`); looks up
 * the reader `thread` then.
 */
void start_recorder_touch(StartRecorder *recorder, uint32_t layer, uint32_t first, uint32_t count, uint32_t thread,
			  bool waits, StartTrace *trace);

/* The read waits from now on; shown until start_recorder_end(). */
void start_recorder_wait(StartRecorder *recorder, uint32_t inode, uint32_t thread, StartTrace *trace);

/*
 * The read has been answered: counts it, and writes it down if it was noted. `began`: shared_memory_clock() when it came; `tally` of all it used,
 * `error` 0 or a negative errno.
 */
typedef struct StartAnswer {
	uint32_t inode;
	uint64_t offset;
	uint32_t size;
	int64_t began;
	const FetchTally *tally;
	int error;
} StartAnswer;
void start_recorder_end(StartRecorder *recorder, const StartAnswer *answer, StartTrace *trace);

/* Bytes of frames that a profile has asked for. */
void start_recorder_profile(StartRecorder *recorder, uint64_t bytes);
