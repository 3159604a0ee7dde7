/*
 * Reads all of a cache and checks it: each chunk that is present by its SHA-256, manifests by their digests, indexes, views and decoded
 * copies by the sums in them. What is rotten is dropped, so that it is fetched or built again when somebody wants it. Blocks on the disk for as
 * long as reading it all takes; mounts, pulls and evictions go on meanwhile.
 */
#pragma once

#include "fs/cache/cache-contents.h"

typedef struct FetchCheck {
	/* Something is rotten and was dropped: an object, or `chunks` of a blob. May be NULL. */
	void (*rotten)(void *arg, CacheKind kind, const Digest *digest, uint64_t chunks);
	/* An image is sealed no more, since something of it is gone. May be NULL. */
	void (*unsealed)(void *arg, const char *reference, const Digest *manifest);
	void (*progress)(void *arg, uint64_t bytes); /* read so far. May be NULL */
	void *arg;
} FetchCheck;

typedef struct FetchChecked {
	uint64_t objects, chunks; /* that were looked at */
	uint64_t bytes;           /* of chunks */
	uint64_t rotten;          /* objects and chunks */
	uint64_t unknown;         /* blobs of which no index says what should be in them */
	uint64_t unsealed;
} FetchChecked;

/* Errors, with a sentence: -ENOMEM, opendir's, unlink's. That something is rotten is none. */
int fetch_check(CacheStore *cache, const FetchCheck *check, FetchChecked *ret_checked, Error *error) _must_check_;
