/*
 * Who makes room in the cache of a private mount: a process beside the server, which lets go of its privileges before that and has but descriptors of its own
 * image's blobs. The janitor has the cache's directory alone, looks at what the server counts, and evicts when that has stored enough to
 * pass the quota, or when the disk is full. It ends with its server; killed at any moment it leaves nothing wrong (cache-evict.h), and another
 * takes its place: they are two, one of which watches the other.
 */
#pragma once

#include "fs/base/error.h"
#include "fs/cache/cache-store.h"
#include "fs/mount/mount-plan.h"
#include "fs/mount/server-metrics.h"

/* One that looks after a cache, for a loop or thread of the caller's; zeroed but for the first three. One owner. */
typedef struct Janitor {
	CacheStore *cache;      /* not owned */
	ServerMetrics *metrics; /* of the servers; not owned */
	uint64_t quota;         /* bytes; 0: none, only a full disk counts */
	bool looked;
	uint64_t bytes, failures; /* counted when it looked last */
	int64_t warned;           /* CLOCK_MONOTONIC, seconds */
	int64_t again,
		delay; /* when to look again though nothing was stored (0: never), and how long that was; seconds */
} Janitor;

#define JANITOR_INTERVAL 500 /* milliseconds between two steps */

/* Evicts if there is need, and logs what is worth it. Blocks on the disk. */
void janitor_step(Janitor *janitor);

/*
 * Starts one for a mount whose plan names a cache; for a process of one thread that is to be a server, before it drops its privileges. No cache
 * is no error. One descriptor stays open in the server for as long as that lives. Errors: pipe2's, fork's.
 */
int janitor_start(const MountPlan *plan) _must_check_;
