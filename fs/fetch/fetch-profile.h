/* Private to the room: start-up profiles, as a source gives them and as the cache keeps them. */
#pragma once

#include "fs/cache/cache-store.h"
#include "fs/format/profile.h"
#include "fs/net/net-http.h"

/* Where a source has the profile of an image: BASE/imgfs/profiles/DIGEST; malloc'ed, NULL when memory is out. */
char *fetch_profile_url(const char *base, const Digest *manifest);

/* The request for it, which may fail without any harm and gets no second try. `url` must outlive the request. */
NetRequest fetch_profile_request(const char *url);

/* Keeps what came, if it is a profile of that image. Nothing, and anything else, is passed over. */
void fetch_profile_keep(CacheStore *cache, const Digest *manifest, const NetResponse *response);

/* The profile that the cache has, if it is one of that image; malloc'ed, the caller's. Errors: -ENOENT (none, or rotten). */
int fetch_profile_read(CacheStore *cache, const Digest *manifest, uint8_t **ret_data, size_t *ret_size) _must_check_;

/* The descriptor of the profile that the cache has, or -1. */
int fetch_profile_open(CacheStore *cache, const Digest *manifest);
