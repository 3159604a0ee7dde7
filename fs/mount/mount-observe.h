/*
 * What can be seen of mounts from outside, without asking their servers: the memory and the files that their keepers hold, below
 * /proc/PID/fd. That needs the rights of the mount's owner, or root. Nothing that is read there is believed unchecked.
 */
#pragma once

#include "fs/cache/cache-store.h"
#include "fs/format/tree.h"
#include "fs/mount/keeper-find.h"
#include "fs/mount/mount-plan.h"
#include "fs/mount/server-metrics.h"
#include "fs/mount/start-record.h"

typedef struct MountObserved {
	pid_t keeper;
	uid_t owner;     /* the keeper's; what is here is what that user says */
	pid_t holder;    /* whose descriptors the plan's are: the keeper, or for an image of the daemon this process */
	bool daemon;     /* one of several images that one keeper has */
	char *directory; /* where it is mounted; of the daemon's, where it appears below its runtime directory */
	char *reference; /* HOST/NAME:TAG, or NAME:TAG of a local store, without its digest */
	MountPlan plan;  /* without layers where the files of the daemon's image could not be found in its cache */
	StartRecord *record;    /* NULL: there is none that this imgfs can read */
	ServerMetrics *metrics; /* of a private mount; NULL: as above */
	bool measured;          /* are the next two known? */
	uint64_t needed;        /* bytes of the blobs' chunks */
	uint64_t present;       /* of them, on this node */
	bool sealed;            /* complete, checked and kept in its cache (cache-pins.h) */
} MountObserved;

void mount_observed_done(MountObserved *observed); /* safe on a zeroed one */

/* A keeper of the daemon's, and its server for all images. */
typedef struct DaemonObserved {
	pid_t keeper;
	char *directory;        /* below which its two mounts are */
	ServerMetrics *metrics; /* never NULL */
} DaemonObserved;

/* What is named as a keeper and is left out. */
typedef struct MountRefused {
	pid_t keeper;
	uid_t owner;
	int error; /* -ETIMEDOUT: its files were not read in time; otherwise it has not what a keeper has */
} MountRefused;

typedef struct MountsObserved {
	MountObserved *items;
	size_t count;
	DaemonObserved *daemons;
	size_t daemon_count;
	size_t hidden; /* keepers that may not be looked at */
	MountRefused *refused;
	size_t refused_count;
} MountsObserved;

void mounts_observed_done(MountsObserved *observed);

/*
 * The mounts of this machine, by directory. With `measure` the cache's bitmaps are read as well: those of another user, which root alone may, by a process of
 * that user, some seconds at most; for all of them together 10 s, and who comes later is not measured. Errors: -ENOMEM, keeper_find()'s.
 */
int mounts_observe(bool measure, MountsObserved *ret_observed) _must_check_;

/* The topmost one that is seen at a directory, there itself or mounted there from the daemon; NULL: there is none. */
const MountObserved *mounts_observed_at(const MountsObserved *observed, const char *directory);

/* Opens a file that the plan names, read-only. Errors: open's. */
int mount_observed_open(const MountObserved *observed, int number, int *ret_fd) _must_check_;

/* The view and the chunk tables of a mount, to make sense of its record. */
typedef struct MountFiles MountFiles;
int mount_files_open(const MountObserved *observed, MountFiles **ret_files, Error *error) _must_check_;
MountFiles *mount_files_free(MountFiles *files);
DEFINE_CLEANUP(MountFiles, mount_files_free);
const Tree *mount_files_tree(const MountFiles *files);

/* StartChunkSize; `arg` is the MountFiles. */
uint32_t mount_files_chunk_size(void *arg, uint32_t layer, uint32_t chunk);
