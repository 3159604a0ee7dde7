/* The value of WWW-Authenticate: what comes out is within bounds, and parses to the same when it is written again. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/net/net-challenge.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char *quote(char *to, const char *name, const char *value)
{
	to += sprintf(to, ",%s=\"", name);
	for (; *value; value++) {
		*to++ = '\\';
		*to++ = *value;
	}
	*to++ = '"';
	return to;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char again[8192];
	static NetChallenge challenge, twin;
	if (net_challenge_parse((const char *)data, size, &challenge) < 0)
		return 0;
	char *at = again + sprintf(again, "Bearer ");
	at = quote(at, "realm", challenge.realm);
	at = quote(at, "service", challenge.service);
	at = quote(at, "scope", challenge.scope);
	if (net_challenge_parse(again, (size_t)(at - again), &twin) < 0 || strcmp(challenge.realm, twin.realm) != 0 ||
	    strcmp(challenge.service, twin.service) != 0 || strcmp(challenge.scope, twin.scope) != 0)
		abort();
	return 0;
}
