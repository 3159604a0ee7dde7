/* An image's config, which no mount needs, but whoever hands the image on to an engine. */
#pragma once

#include <stdint.h>

#include "fs/fetch/fetch-image.h"

/*
 * The bytes of the config, checked by their digest; the caller's. Blocks on the network. Errors: -EBADMSG (other bytes),
 * net_http_perform()'s, with a sentence.
 */
int fetch_config(const FetchRemote *remote, const Digest *config, uint8_t **ret_config, size_t *ret_size, Error *error)
	_must_check_;
