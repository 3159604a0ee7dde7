/* An image's config, which no mount needs, but whoever hands the image on to an engine. */
#pragma once

#include <stdint.h>

#include "fs/fetch/fetch-image.h"
#include "fs/net/net-http.h"

/*
 * The bytes of the config, checked by their digest; the caller's. Blocks on the network. Errors: -EBADMSG (other bytes),
 * net_http_perform()'s, with a sentence.
 */
int fetch_config(const FetchRemote *remote, const Digest *config, uint8_t **ret_config, size_t *ret_size, Error *error)
	_must_check_;

/* A config that the cache has, checked; malloc'ed, the caller's. Errors: -ENOENT (not there, or rotten), -ENOMEM. */
int fetch_config_cached(CacheStore *cache, const Digest *config, char **ret_config, size_t *ret_size) _must_check_;

/* The request for one of `size` bytes, which may fail without any harm and gets no second try. `url` must outlive it. */
NetRequest fetch_config_request(const char *url, uint64_t size);

/* Keeps what came, if it is that config. Nothing, and anything else, is passed over. */
void fetch_config_keep(CacheStore *cache, const Digest *config, const NetResponse *response);
