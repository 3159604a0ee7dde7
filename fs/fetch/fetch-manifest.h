/* Private to the room: which manifest a remote reference means, from the registry and the cache. */
#pragma once

#include "fs/fetch/fetch-image.h"
#include "fs/net/net-http.h"

typedef struct FetchManifest {
	char *json;
	size_t size;
	Digest digest;
	Manifest manifest;
	bool stale; /* see FetchImage */
} FetchManifest;

/* For requests of `remote`, each of which may go for `timeout` milliseconds without progress. `access` must outlive it. Errors: -ENOMEM. */
int fetch_http_new(const FetchRemote *remote, const NetAccess *access, int64_t timeout, NetHttp **ret_http)
	_must_check_;

void fetch_manifest_done(FetchManifest *manifest); /* safe on a zeroed one */

/* A manifest that the cache has, checked and parsed. Errors: -ENOENT (not there, or rotten), -ENODATA and the like: no image of imgfs. */
int fetch_manifest_cached(CacheStore *cache, const Digest *digest, FetchManifest *ret_manifest) _must_check_;

/*
 * Blocks on the network. `base` is the registry's, as net_registry_base() has it; the mirrors are those of `access`. What a tag means only the registry can
 * say. When it cannot be asked, that is what this node last saw it mean; mirrors are believed about a tag of which the registry has told it
 * nothing yet.
 */
int fetch_manifest_resolve(const FetchRemote *remote, const NetAccess *access, NetHttp *http, const char *base,
			   FetchManifest *ret_manifest, Error *error) _must_check_;
