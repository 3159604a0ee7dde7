/* Private to the room: what every curl handle of imgfs is set to, and what curl's results mean. */
#pragma once

#include <curl/curl.h>
#include <stdbool.h>
#include <stdint.h>

#include "fs/base/error.h"
#include "fs/net/net-access.h"

/* CLOCK_MONOTONIC in milliseconds. */
int64_t net_now(void);

/*
 * A handle for http and https: HTTP/1.1, no signals, no redirects followed (net-route.h), no compression. The environment's proxy is used,
 * but not for loopback hosts. TLS is 1.2 at least. `access` may be NULL, and is copied; so is `token`, which is sent instead of a user.
 * Errors: -EINVAL (not such a URL), -ENOMEM.
 */
int net_easy_new(const char *url, const NetAccess *access, const char *token, CURL **ret_easy) _must_check_;

/* Is it https, or is the host loopback? Otherwise nothing secret may be sent there. */
bool net_url_is_private(const char *url);

/* What the last answer's Retry-After says, a number or a date, in milliseconds from now; 0: nothing. */
int64_t net_easy_retry_after(CURL *easy);

/* A multi handle that keeps at most `connections` open. NULL when memory is out. */
CURLM *net_multi_new(unsigned connections);

/* A curl result as a negative errno: -EHOSTUNREACH, -ECONNRESET, -ETIMEDOUT, -EKEYREJECTED, -EINVAL, -ENOMEM or -EPROTO. */
int net_curl_error(CURLcode code);

/*
 * Progress of a transfer: it stalls when `limit` milliseconds pass with fewer than NET_PROGRESS_BYTES bytes, so
 * that a server that trickles counts as one that stalls.
 */
#define NET_PROGRESS_BYTES 1024u

typedef struct NetProgress {
	int64_t since;
	uint64_t bytes; /* since then */
	int64_t limit;
} NetProgress;

void net_progress_mark(NetProgress *progress);
void net_progress_add(NetProgress *progress, uint64_t bytes);

/* When it will have stalled if nothing more comes. */
static inline int64_t net_progress_deadline(const NetProgress *progress)
{
	return progress->since + progress->limit;
}
