/* An image into containerd, so that it runs there without a layer in its content store: `imgfs pull --containerd`. */
#pragma once

#include "fs/fetch/fetch-image.h"
#include "tools/cmd/remote-options.h"

#define PULL_CONTAINERD_NAMESPACE   "default"
#define PULL_CONTAINERD_SNAPSHOTTER "imgfs"

typedef struct PullContainerd {
	const char *socket, *name_space, *snapshotter;
	const char *reference; /* also the image's name there */
	int64_t timeout;       /* of a request to the registry, milliseconds */
} PullContainerd;

/*
 * Puts manifest and config there, has the snapshotter make a lazy snapshot of each layer, and names the image; what garbage collection has to know
 * is in labels, so that all of it goes with `ctr images rm`. Errors, with a sentence: those of containerd and of the registry,
 * -EOPNOTSUPP (the snapshotter does not take a layer lazily).
 */
int pull_containerd(const PullContainerd *what, const RemoteOptions *remote, const Reference *reference,
		    CacheStore *cache, const FetchImage *image, Error *error) _must_check_;
