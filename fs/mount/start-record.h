/*
 * What the reads of one mounted image were: in shared memory (a memfd) that outlives its servers, so that one can ask it at any time.
 * The first reads in their order make a start-up profile (docs/format.md section 7) and say what a start waited for; who waits now stands there,
 * too. Bounded: 1.1 MB at most, of which only what was written takes memory.
 *
 * A server writes it (start-recorder.h), any number of threads at once: an entry is claimed by its number and published by its `ready`. Who
 * reads it takes a copy first and believes nothing in it.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "fs/base/error.h"
#include "fs/fetch/fetch-metrics.h"
#include "fs/format/profile.h"
#include "fs/mount/shared-memory.h"

#define START_RECORD_NAME    "imgfs-record" /* of the memfd: how it is found among a keeper's descriptors */
#define START_RECORD_MAGIC   0x63726d69u
#define START_RECORD_VERSION 2u
#define START_RECORD_READS   16384u
#define START_RECORD_READERS 1024u
#define START_RECORD_GROUPS  128u
#define START_RECORD_GROUP   256u /* length of a cgroup's path with its NUL; longer ones are cut at the front */
#define START_RECORD_COMMAND 16u
#define START_RECORD_WAITING 128u

/* When the recording of a start ends: nothing new was read for so long, or it has lasted so long. Microseconds. */
#define START_RECORD_QUIET   (UINT64_C(30) * 1000000)
#define START_RECORD_LONGEST (UINT64_C(600) * 1000000)

typedef enum StartEnd {
	START_RECORDING,
	START_END_QUIET,
	START_END_TIME,
	START_END_FULL,
	START_ENDS,
} StartEnd;

enum {
	START_READ_FIRST = 1,  /* the first read of a chunk at least, while the start was recorded */
	START_READ_FAILED = 2, /* its reader got an error */
};

/* One read of a file. Times are in microseconds since the record began. */
typedef struct StartRead {
	_Atomic uint32_t ready; /* written last */
	uint32_t inode;
	uint64_t time; /* when the kernel's request came */
	uint64_t offset;
	uint32_t size;
	uint32_t waited;              /* until the answer; 0: answered at once */
	uint32_t layer, first, count; /* chunks */
	uint32_t fetched;             /* bytes of frames that had to come from the network */
	uint16_t reader;              /* number + 1 in the table; 0: not known */
	uint8_t source;               /* FetchTier: the furthest that any of it came from */
	uint8_t flags;                /* START_READ_* */
	uint32_t number;              /* in a copy: its place before they were put in order */
	uint32_t reserved;
} StartRead;

/* A thread that read. */
typedef struct StartReader {
	_Atomic uint32_t ready;
	uint32_t thread, process; /* in the pid namespace of the mount */
	uint32_t group;           /* number + 1 of its cgroup; 0: not known */
	char command[START_RECORD_COMMAND];
} StartReader;

/* A reader that waits; free while `since` is 0. */
typedef struct StartWaiting {
	_Atomic uint64_t since; /* microseconds since the record began, and 1 */
	_Atomic uint32_t inode;
	_Atomic uint32_t thread;
} StartWaiting;

/* What a record is of, written when it is made: whoever finds one knows where it belongs. */
#define START_RECORD_PLACE  80u
#define START_RECORD_SOURCE 512u
typedef struct StartRecordLabel {
	char place
		[START_RECORD_PLACE]; /* "plain/<chain ID>" or "xattr/<chain ID>" below the daemon's directory; "": a private mount */
	char source[START_RECORD_SOURCE]; /* as MountPlan.source, cut where it is longer */
	Digest manifest, config;          /* zeros: not known */
} StartRecordLabel;

typedef struct StartRecord {
	SharedHead head;
	StartRecordLabel label;
	_Atomic uint64_t first_read, last_first; /* time, and 1; 0: none yet */
	_Atomic uint32_t ended;                  /* StartEnd */
	_Atomic uint32_t servers;                /* started so far */
	_Atomic uint32_t read_count, reader_count, group_count;
	_Atomic uint32_t last_error;      /* errno of the read that failed last */
	_Atomic uint64_t last_error_real; /* milliseconds since 1970 */
	_Atomic uint64_t lost;            /* reads that found no room */
	_Atomic uint64_t reads, read_bytes, failures;
	_Atomic uint64_t chunks[FETCH_TIERS];
	_Atomic uint64_t profile_bytes; /* that a profile has asked for */
	uint64_t reserved[8];
	StartWaiting waiting[START_RECORD_WAITING];
	StartReader readers[START_RECORD_READERS];
	char groups[START_RECORD_GROUPS][START_RECORD_GROUP];
	StartRead entries[START_RECORD_READS];
} StartRecord;

/* A layer of the image, lowest first, behind the record: by that its files are found in the cache. */
#define START_RECORD_LAYERS 4096u
typedef struct StartRecordLayer {
	Digest diff_id, index;
	Digest blob; /* zeros: it is a local store's */
} StartRecordLayer;

/* Creates an empty one, and maps one to write to. Errors: shared_memory_create()'s and shared_memory_map()'s; -E2BIG. */
int start_record_create(const StartRecordLabel *label, const StartRecordLayer *layers, size_t count, int *ret_fd)
	_must_check_;
int start_record_map(int fd, StartRecord **ret_record) _must_check_;
void start_record_unmap(StartRecord *record); /* NULL is nothing */

/*
 * A copy that can be relied on, malloc'ed, the caller's: numbers are in their bounds, strings end, entries that are not ready are gone,
 * the others in the order of their times; `read_count` and the like say how many there are. Errors: -EBADMSG, -ENOMEM, read's.
 */
int start_record_load(int fd, StartRecord **ret_copy) _must_check_;

/* What it was made with; malloc'ed, the caller's. Errors: -EBADMSG, -ENOMEM, read's. */
int start_record_layers(int fd, StartRecordLayer **ret_layers, size_t *ret_count) _must_check_;

/* The same of bytes in memory, which it changes. Errors: -EBADMSG. */
int start_record_check(StartRecord *record) _must_check_;

/* Has the recording ended at this time (shared_memory_clock()), and why? Of a copy or of a mapped one. */
StartEnd start_record_state(const StartRecord *record, int64_t now);

/*
 * The profile that a copy makes: its first reads in their order, up to PROFILE_BYTES_MAX by `chunk_size(arg, layer, chunk)`, which gives
 * the length of a frame, or 0 for what does not exist. Errors: -ENODATA (nothing was read yet), -ENOMEM.
 */
typedef uint32_t StartChunkSize(void *arg, uint32_t layer, uint32_t chunk);
int start_record_profile(const StartRecord *copy, const Digest *manifest, StartChunkSize *chunk_size, void *arg,
			 Profile *ret_profile) _must_check_;
