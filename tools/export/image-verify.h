/*
 * Reads every byte that an image of the store stands on and holds it against what names it: tag and manifest, config and diffIDs, layer
 * records, blobs (digest, index, footer, each frame and its content), tars.
 */
#pragma once

#include <stdint.h>

#include "tools/export/store.h"

/* One thing that is wrong. Strings are valid during the call. */
typedef struct VerifyFault {
	const char *image;     /* as it was asked for; of a layer that several have, the first */
	const char *what;      /* what is wrong, in words */
	uint32_t layer;        /* its number, from 1; 0: the fault is in no layer */
	const Digest *object;  /* blob, config or manifest at fault; NULL: none */
	const Digest *diff_id; /* of the layer; NULL outside of layers */
	int64_t chunk;         /* -1: the fault is in no chunk */
	uint64_t offset;       /* of the chunk in the blob */
} VerifyFault;

typedef struct VerifyHooks {
	void (*fault)(void *arg, const VerifyFault *fault);
	void (*progress)(void *arg, uint64_t bytes); /* of blobs done with since the last call; may be NULL */
	void *arg;
} VerifyHooks;

typedef struct VerifyCounts {
	uint64_t images;
	uint64_t layers;     /* read; one that several images have counts once */
	uint64_t chunks;     /* of these */
	uint64_t blob_bytes; /* of these */
	uint64_t tar_bytes;  /* of these */
	uint64_t faults;
} VerifyCounts;

/* A run over one image or many. One owner; it works with two threads. */
typedef struct Verify Verify;

/* `store` and `hooks` must outlive it. */
int verify_new(Store *store, const VerifyHooks *hooks, Verify **ret_verify) _must_check_;
Verify *verify_free(Verify *verify);
DEFINE_CLEANUP(Verify, verify_free);

/*
 * Verifies the image that `text` names. Faults go to the hook, and the run goes on behind them. A fault that follows from another
 * one is not told: a rotten frame makes blob and tar wrong as well. Blocks. Errors, which are none of the image's: -EINVAL and -ENOENT (no
 * such reference), -ENOMEM, -EAGAIN.
 */
int verify_image(Verify *verify, const char *text, Error *error) _must_check_;

/* Bytes of blobs that verify_image() will read for the image; 0 when its manifest tells nothing. For a progress bar. */
uint64_t verify_estimate(Verify *verify, const char *text);

VerifyCounts verify_counts(const Verify *verify);
