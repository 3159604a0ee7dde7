/*
 * Blocking requests for small things: manifests and indexes. Several at once over connections that are kept alive. A
 * NetHttp belongs to one thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/base/digest.h"
#include "fs/base/error.h"
#include "fs/net/net-access.h"

typedef struct NetHttp NetHttp;

/* `timeout`: milliseconds a request may go without progress. Errors: -ENOMEM. */
int net_http_new(int64_t timeout, NetHttp **ret_http) _must_check_;
NetHttp *net_http_free(NetHttp *http);
DEFINE_CLEANUP(NetHttp, net_http_free);

/* How to speak to the hosts of later requests; not copied, must outlive `http`. NULL: as to a stranger. */
void net_http_set_access(NetHttp *http, const NetAccess *access);

/* Does nobody wait for the answers any more? */
typedef bool NetGivenUp(void *arg);

/* Asked some five times a second, by who waits in net_http_perform(), which then fails with -ECANCELED. NULL: nobody is asked. */
void net_http_set_given_up(NetHttp *http, NetGivenUp *given_up, void *arg);

/* For later requests, as in net_http_new(). Returns what it was. */
int64_t net_http_set_timeout(NetHttp *http, int64_t timeout);

typedef struct NetRequest {
	const char *url;
	const char *accept; /* media type, or NULL */
	bool head;          /* no body is wanted */
	bool ranged;        /* [offset, offset + size) is wanted, which only 206 may answer */
	uint64_t offset;
	uint64_t size;   /* of a range, at least 1; otherwise the most the body may have */
	const void *put; /* what to put there, of put_size bytes; NULL: nothing is put */
	size_t put_size;
	bool optional; /* may fail: the response is then an empty one. It is asked for once; its answer must begin within two seconds, token
			* and all, and never pause for two */
} NetRequest;

typedef struct NetResponse {
	uint8_t *body; /* malloc'ed, the caller's; NULL for an empty one */
	size_t size;
	bool has_digest; /* Docker-Content-Digest was sent */
	Digest digest;
} NetResponse;

void net_response_done(NetResponse *response); /* safe on a zeroed one */

/*
 * Makes `count` requests, some at once, and returns when all have succeeded or one has failed. Redirects are followed, and tokens got
 * where the server wants them; a server that is busy, or ends a connection, is asked again for a few seconds. `responses` has `count` elements
 * and stays untouched on failure. Errors, with a sentence that names the URL: -ENOENT, -EACCES, -EREMOTEIO and -EPROTO by the answer's
 * status; -EFBIG (a longer body); -ELOOP (redirects without end); -EHOSTUNREACH, -ECONNRESET, -ETIMEDOUT; -EKEYREJECTED (TLS certificate); -EINVAL (URL);
 * -ECANCELED (net_http_set_given_up()); -ENOMEM.
 */
int net_http_perform(NetHttp *http, const NetRequest *requests, size_t count, NetResponse *responses, Error *error)
	_must_check_;

/* Does this error mean that the server could not be asked, so that what is known from before may be used? */
bool net_is_unreachable(int code);
