/*
 * Tokens that a registry wants instead of a password (the distribution project's "Token Authentication Specification" and its OAuth2
 * form). They are got from the realm that the registry names, with the user's password or identity token, or as nobody; they are
 * valid for minutes, and are got again without those who read noticing. A NetTokens belongs to one thread and one curl multi handle.
 *
 * Password and identity token go only to a realm that is spoken to by TLS or is a loopback host, and only if the registry that named it
 * is such a one too; a registry that is spoken to by TLS cannot name a realm without TLS at all.
 */
#pragma once

#include <curl/curl.h>
#include <stdbool.h>
#include <stdint.h>

#include "fs/base/error.h"
#include "fs/net/net-access.h"
#include "fs/net/net-challenge.h"

/* A token as it comes. */
typedef struct NetToken {
	char *text;      /* what goes behind "Bearer " */
	char *refresh;   /* the identity token to use from now on, or NULL: as before */
	int64_t seconds; /* how long it is valid */
} NetToken;

/*
 * Reads an answer: "token" or "access_token", "expires_in", "refresh_token". Errors: -EBADMSG (not JSON, no token, or one that no header can
 * carry), -ENOMEM.
 */
int net_token_parse(const char *json, size_t size, NetToken *ret_token) _must_check_;
void net_token_done(NetToken *token); /* wipes and frees; safe on a zeroed one */

typedef struct NetTokens NetTokens;

/* `owner` is the CURLOPT_PRIVATE of the handle that asks. `timeout`: milliseconds one request may go without progress. Errors: -ENOMEM. */
int net_tokens_new(CURLM *multi, void *owner, int64_t timeout, NetTokens **ret_tokens) _must_check_;
NetTokens *net_tokens_free(NetTokens *tokens);
DEFINE_CLEANUP(NetTokens, net_tokens_free);

/* As whom to ask from now on; not copied, must outlive the tokens. NULL: as nobody. What was got as somebody else is forgotten. */
void net_tokens_set_access(NetTokens *tokens, const NetAccess *access);

/*
 * The token to send now, or NULL: there is none, or it has expired. `ret_serial` is another for every token that comes, 0 before the first.
 * One that will expire soon is asked for again meanwhile.
 */
const char *net_tokens_get(NetTokens *tokens, uint64_t *ret_serial);

/*
 * Asks for a token unless that is under way. `url` is what was refused with `challenge`. Errors: -EACCES (a realm no password may be
 * sent to), -EINVAL (no URL), -ENOMEM, with a sentence.
 */
int net_tokens_ask(NetTokens *tokens, const char *url, const NetChallenge *challenge, Error *error) _must_check_;

/*
 * The handle that asks has ended with `code`. 0 also without a token, where an identity token is refused that had come with an earlier one: whoever wants
 * a token then asks as at first. Errors, with a sentence that names the realm: as of net_http_perform(), -EBADMSG.
 */
int net_tokens_complete(NetTokens *tokens, CURLcode code, Error *error) _must_check_;

/* When the request under way will have stalled (net_now()); INT64_MAX when none is. */
int64_t net_tokens_deadline(const NetTokens *tokens);

/* Ends a request that has stalled: -ETIMEDOUT, with a sentence. */
int net_tokens_expire(NetTokens *tokens, Error *error) _must_check_;
