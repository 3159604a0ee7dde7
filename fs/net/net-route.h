/*
 * Private to the room: where a request goes next that was answered with a redirect or with a wish for a token. A redirected host learns
 * nothing that is for the first one: no user, no token, no client certificate.
 */
#pragma once

#include "fs/net/net-easy.h"
#include "fs/net/net-headers.h"
#include "fs/net/net-token.h"

typedef struct NetRoute {
	char *url;    /* of the next attempt */
	bool foreign; /* it is another host's than the first */
	unsigned redirects;
	bool refused;    /* with a token that had just come */
	uint64_t serial; /* of the token that was sent; 0: none */
} NetRoute;

int net_route_init(NetRoute *route, const char *url) _must_check_; /* copies it; errors: -ENOMEM */
void net_route_done(NetRoute *route);                              /* safe on a zeroed one */

/*
 * The handle for the next attempt. -EAGAIN: a token that was asked for before has expired, and another has been asked for; try when
 * it has come. Other errors: net_easy_new()'s, net_tokens_ask()'s.
 */
int net_route_open(NetRoute *route, const NetAccess *access, NetTokens *tokens, CURL **ret_easy, Error *error)
	_must_check_;

/* Is this no answer, but a step on the way, so that its body does not matter? */
bool net_route_goes_on(const NetRoute *route, const NetHeaders *headers);

/*
 * An attempt has ended for which net_route_goes_on(). 0: the route has the URL of the next one, open it; -EAGAIN: it has to wait for a
 * token. Other errors, with a sentence: -ELOOP (too many redirects), -EPROTO (a redirect to what is no URL, another scheme, or from https to http), net_tokens_ask()'s.
 */
int net_route_follow(NetRoute *route, CURL *easy, const NetHeaders *headers, NetTokens *tokens, Error *error)
	_must_check_;
