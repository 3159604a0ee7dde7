/* Images in a cache: how much of each is there, and what of it all nobody needs any more. All calls block on the disk. */
#pragma once

#include <stdbool.h>

#include "fs/cache/cache-contents.h"
#include "fs/format/manifest.h"

typedef struct FetchContents {
	Digest config;  /* image ID */
	uint64_t total; /* bytes of the blobs, indexes not included */
	uint64_t present;
	size_t layers;
	size_t decoded; /* how many of them have a decoded copy, sound or not */
	int64_t used;   /* when a chunk of it was last read here, or fetched; seconds since 1970; 0: never */
	bool pinned;
} FetchContents;

/* What the cache has of the image with this manifest, by its bitmaps. Errors: -ENOENT (the manifest is not there, or rotten), -ENOMEM. */
int fetch_contents_describe(CacheStore *cache, const Digest *manifest, FetchContents *ret_contents) _must_check_;

/* Does the cache have this manifest, of an image whose lowest layers have these blobs? */
bool fetch_contents_has_layers(CacheStore *cache, const Digest *manifest, const ManifestLayer *layers, size_t count);

typedef struct FetchPrune {
	const Digest
		*manifests; /* of the images to keep, with all that is theirs, beside those that are pinned or sealed */
	size_t manifest_count;
	const Digest *objects; /* to keep as well: blobs, indexes, diffIDs of decoded copies, chain IDs of views */
	size_t object_count;
	int64_t min_age; /* seconds; what was written to since stays: somebody may be getting that image just now; 0: nothing stays for its age */
	bool dry_run;
} FetchPrune;

typedef struct FetchPruned {
	uint64_t objects;
	uint64_t bytes;
} FetchPruned;

/*
 * Removes what belongs to no image that is to be kept. Mounts of others go on, since their servers have the files open; they only keep
 * nothing. Errors: -EBADMSG (nobody knows what is pinned), -ENOMEM, unlink's, with a sentence; what was removed before stays removed.
 */
int fetch_contents_prune(CacheStore *cache, const FetchPrune *prune, FetchPruned *ret_pruned, Error *error)
	_must_check_;
