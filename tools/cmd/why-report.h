/* What a start waited for, made of the record of a mount's reads (fs/mount/start-record.h). Times are microseconds. */
#pragma once

#include "fs/mount/mount-observe.h"

/* Who the reads are of that are looked at. */
typedef struct WhyFilter {
	const char *what; /* as it was asked for; NULL: all */
	/* Any of these: ids, the beginnings of some, names that cgroups have, or their paths. None: all reads. */
	const char *const *containers;
	size_t count;
} WhyFilter;

/* Sums over some reads. */
typedef struct WhySum {
	uint32_t reads;
	uint32_t failed;
	uint64_t bytes;   /* of files */
	uint64_t fetched; /* of frames that came for them from the network */
	uint64_t waited;  /* of all readers together */
} WhySum;

typedef struct WhyFile {
	uint32_t inode;
	char *path;
	uint64_t first; /* when the first of its reads came */
	FetchTier source;
	uint32_t reader;  /* number of its first known one in the record; UINT32_MAX: none is known */
	uint32_t readers; /* different ones */
	WhySum sum;
} WhyFile;

typedef struct WhyReader {
	uint32_t reader; /* number in the record */
	WhySum sum;
} WhyReader;

typedef struct WhyReport {
	const MountObserved *mount; /* not owned; so the record that numbers point into */
	const uint32_t *reads;      /* owned: the reads looked at, by number in the record, in the order of time */
	uint32_t read_count;
	WhyFile *files; /* what waited longest first, then what came first */
	size_t file_count;
	WhyReader *readers; /* a process each: the last of its threads; likewise */
	size_t reader_count;
	WhySum total, sources[FETCH_TIERS];
	WhySum shared; /* of them, reads whose reader is not known; with a filter they may be its or not, and are not in the rest */
	uint64_t begin;   /* of the first read */
	uint64_t end;     /* of the last answer */
	uint64_t held_up; /* the time in which at least one reader waited */
} WhyReport;

/*
 * Errors, with a sentence: -ENODATA (no record, or nothing that fits the filter was read), mount_files_open()'s, -ENOMEM. `mount` must outlive
 * the report.
 */
int why_report_make(const MountObserved *mount, const WhyFilter *filter, WhyReport *ret_report, Error *error)
	_must_check_;
void why_report_done(WhyReport *report); /* safe on a zeroed one */

/*
 * How much of the cgroup's path names one of the filter's containers, 0 if none. One with its id, or the beginning of one of 4 digits and more, or its name as
 * a part of the path; or the path itself, or the beginning of it, from "/" on.
 */
size_t why_container_length(const char *group, const WhyFilter *filter);

/* The words for sources. */
extern const char *const why_sources[FETCH_TIERS];

/* On standard output. Errors: -ENOMEM, -EIO. */
int why_print(const WhyReport *report) _must_check_;
int why_print_json(const WhyReport *report) _must_check_;

/* Draws the time line of a report as SVG. Errors: the file's, with a sentence. */
int why_plot(const WhyReport *report, const char *path, Error *error) _must_check_;
