/* Takes out of a store what no tag reaches. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "tools/export/store.h"

/* What went, or with `dry_run` would go. */
typedef struct StoreGcResult {
	uint64_t manifests;
	uint64_t layers; /* records */
	uint64_t frame_lists;
	uint64_t profiles;
	uint64_t blobs;      /* of layers, and configs */
	uint64_t bytes;      /* of all of them */
	uint64_t kept_tags;  /* the tags there are */
	uint64_t kept_blobs; /* objects of blobs/ that they reach */
	uint64_t kept_bytes; /* of these */
} StoreGcResult;

typedef struct StoreGcOptions {
	bool dry_run;
	unsigned wait;              /* seconds to wait for those who hold the store */
	void (*waiting)(void *arg); /* called once if there are any; may be NULL */
	void *arg;
} StoreGcOptions;

/*
 * Deletes manifests, layer records, lists of frames and blobs that no tag reaches, in this order, each kind durably gone before the next,
 * so that a collection killed anywhere leaves nothing that names what is not there. Blocks on the disk, and while others hold the
 * store (store-lock.h). Errors carry a sentence: -EBUSY (held for longer than `wait`), -EBADMSG (a damaged tag: what it reaches is not
 * known, so nothing is deleted), -ENOMEM, unlink's.
 */
int store_gc(Store *store, const StoreGcOptions *options, StoreGcResult *ret_result, Error *error) _must_check_;
