/*
 * Where the images of a server have their bytes from, shared among them: one fetcher for each way to speak to a host (the access
 * string of the plan), and one blob in it for each file of the cache, so that a chunk which one image has read is there for all.
 * Counted: what no image uses any more is let go. Thread-safe; no lock is held while a file is read.
 */
#pragma once

#include "fs/base/error.h"
#include "fs/base/fd.h"
#include "fs/fetch/fetch.h"
#include "fs/mount/login-box.h"
#include "fs/mount/mount-plan.h"

typedef struct MountSources MountSources;
typedef struct MountSource MountSource;

/* A layer's chunks and the blob they are in. Immutable but for its count. */
typedef struct MountLayer {
	struct MountLayer *next; /* of its source */
	MountSource *source;
	unsigned references;
	uint64_t device, file; /* of the blob's data */
	bool writable;
	char *url;
	FdMap map;
	ChunkTable chunks;
	FetchBlob *blob;
	bool listed; /* in its source, which it holds then */
} MountLayer;

/* `metrics` and `logins` (login-box.h; either may be NULL) must outlive it. Errors: -ENOMEM. */
int mount_sources_new(FetchMetrics *metrics, LoginBoxes *logins, MountSources **ret_sources) _must_check_;

/* Ends every wait in every fetcher, and their threads; nothing may be opened any more. Once. */
void mount_sources_stop(MountSources *sources);
MountSources *mount_sources_free(MountSources *sources); /* all sources were put */

/*
 * A limit of the background fill of all layers, bytes a second; the lowest of those that were given counts, until it is taken back. 0 is none. Errors:
 * -ENOMEM.
 */
int mount_sources_limit_fill(MountSources *sources, uint64_t rate) _must_check_;
void mount_sources_unlimit_fill(MountSources *sources, uint64_t rate);

/* The fetcher for `access`, its thread running. Errors: fetcher_new's, pthread_create's. */
int mount_source_get(MountSources *sources, const char *access, MountSource **ret_source) _must_check_;
void mount_source_put(MountSource *source);
Fetcher *mount_source_fetcher(const MountSource *source);

/*
 * Reads and validates the chunk table of a layer, and adds its blob to the source unless it is there. With a seal it is filled. Takes the plan's
 * descriptors, also on failure. `diff_id` is the layer's. Errors: -EUCLEAN (the index is damaged or cannot be read), -ENOMEM, or what
 * fetch_blob_set_twins() said, each with a sentence.
 */
int mount_layer_get(MountSource *source, MountPlanLayer *plan, const Digest *diff_id, FetchDonors *donors,
		    MountLayer **ret_layer, Error *error) _must_check_;

/* Nobody may be reading of it for the image that had it. */
void mount_layer_put(MountLayer *layer);
