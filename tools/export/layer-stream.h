/*
 * A layer's whole tar, from its first byte to its last, as fast as two threads make it: one reads the blob and checks frames, the
 * caller's decodes and hands out. Memory is bounded.
 */
#pragma once

#include <stdbool.h>

#include "tools/export/layer-reader.h"

/* All are called from the caller's thread, in the order of the chunks; each may be NULL. */
typedef struct LayerStreamHooks {
	/* Bytes of the tar. A negative return ends the stream with it. */
	int (*content)(void *arg, const void *data, size_t size, Error *error);

	/* A chunk that cannot be had; `what` is wrong with it. NULL: the first one ends the stream with an error. */
	void (*fault)(void *arg, uint32_t number, const Chunk *chunk, const char *what);

	/* Bytes of the blob that were used since the last call. */
	void (*progress)(void *arg, uint64_t bytes);

	void *arg;
} LayerStreamHooks;

typedef struct LayerStreamResult {
	Digest tar;      /* SHA-256 of what was handed out; the diffID, if nothing was wrong */
	Digest blob;     /* SHA-256 of the whole blob; with `whole_blob`, if no read failed */
	uint32_t faults; /* chunks that could not be had */
} LayerStreamResult;

/*
 * Goes through all chunks; with `whole_blob`, also reads what follows them, to know the blob's digest. Blocks. Errors: -EBADMSG
 * (a chunk, without a `fault` hook; the sentence names it), -ENOMEM, -EAGAIN (no thread), read's, the hook's.
 */
int layer_stream(const LayerReader *reader, const LayerStreamHooks *hooks, bool whole_blob,
		 LayerStreamResult *ret_result, Error *error) _must_check_;

/* As above, and the tar must turn out to be the layer's. Errors: also -EKEYREJECTED. */
int layer_stream_exact(const LayerReader *reader, const LayerStreamHooks *hooks, Error *error) _must_check_;
