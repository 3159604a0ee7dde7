#include "fs/net/net-route.h"

#include <string.h>
#include <strings.h>

#define REDIRECTS_MAX 5u

int net_route_init(NetRoute *route, const char *url)
{
	*route = (NetRoute){ .url = strdup(url) };
	return route->url ? 0 : -ENOMEM;
}

void net_route_done(NetRoute *route)
{
	free(route->url);
	*route = (NetRoute){ 0 };
}

int net_route_open(NetRoute *route, const NetAccess *access, NetTokens *tokens, CURL **ret_easy, Error *error)
{
	NetAccess own = { 0 };
	const char *token = NULL;
	if (access && !route->foreign)
		own = *access;
	else if (access)
		own = (NetAccess){ .ca = access->ca, .unverified = access->unverified };
	route->serial = 0;
	if (!route->foreign)
		token = net_tokens_get(tokens, &route->serial);
	if (!token && route->serial > 0) {
		int r = net_tokens_ask(tokens, route->url, NULL, error);
		return r < 0 ? r : -EAGAIN;
	}
	return net_easy_new(route->url, &own, token, ret_easy);
}

static bool is_redirect(const NetHeaders *headers)
{
	unsigned status = headers->status;
	return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

/* Another host gets no token; and where one that has just come was refused, another will not do either. */
static bool wants_token(const NetRoute *route, const NetHeaders *headers)
{
	return headers->status == 401 && headers->has_challenge && !route->foreign && !route->refused;
}

bool net_route_goes_on(const NetRoute *route, const NetHeaders *headers)
{
	return is_redirect(headers) || wants_token(route, headers);
}

/* Scheme, host and port, up to the path; curl has put the URL into its usual form. */
static size_t origin(const char *url)
{
	const char *authority = strstr(url, "://");
	return authority ? (size_t)(authority - url) + 3 + strcspn(authority + 3, "/?#") : 0;
}

static bool same_origin(const char *a, const char *b)
{
	return origin(a) == origin(b) && strncasecmp(a, b, origin(a)) == 0;
}

static int redirect(NetRoute *route, CURL *easy, Error *error)
{
	const char *target = NULL;
	(void)curl_easy_getinfo(easy, CURLINFO_REDIRECT_URL, &target);
	if (!target)
		return error_set(error, -EPROTO, "the server redirects, but not to a URL");
	if (++route->redirects > REDIRECTS_MAX)
		return error_set(error, -ELOOP, "the server redirects without end, after %u times to %.200s",
				 REDIRECTS_MAX, target);
	bool tls = strncasecmp(target, "https://", 8) == 0;
	if (!tls && strncasecmp(target, "http://", 7) != 0)
		return error_set(error, -EPROTO, "the server redirects to %.200s, which is neither http nor https",
				 target);
	if (!tls && strncasecmp(route->url, "https://", 8) == 0)
		return error_set(error, -EPROTO, "the server redirects from https to %.200s", target);
	char *copy = strdup(target);
	if (!copy)
		return error_set(error, -ENOMEM, "out of memory");
	if (!same_origin(route->url, copy))
		route->foreign = true;
	free(route->url);
	route->url = copy;
	return 0;
}

static int want_token(NetRoute *route, const NetHeaders *headers, NetTokens *tokens, Error *error)
{
	uint64_t newest;
	const char *token = net_tokens_get(tokens, &newest);
	if (token && newest != route->serial)
		return 0; /* another request's has come meanwhile */
	route->refused = true;
	int r = net_tokens_ask(tokens, route->url, &headers->challenge, error);
	return r < 0 ? r : -EAGAIN;
}

int net_route_follow(NetRoute *route, CURL *easy, const NetHeaders *headers, NetTokens *tokens, Error *error)
{
	return is_redirect(headers) ? redirect(route, easy, error) : want_token(route, headers, tokens, error);
}
