/* Private to the room: what a transfer that failed says, in a sentence. */
#pragma once

#include <curl/curl.h>

#include "fs/base/error.h"

/*
 * A curl result as a negative errno, as net_curl_error(), but refusals on the way to a TLS connection are -EKEYREJECTED, with a
 * sentence that names the host and the way out. Other results leave `error` alone. `text` is what curl said.
 */
int net_tls_error(CURL *easy, CURLcode code, const char *text, Error *error) _must_check_;
