/*
 * What a registry says about the tokens it wants: the Bearer challenge of WWW-Authenticate (RFC 9110 section 11.6.1; the distribution
 * project's "Token Authentication Specification"). Bytes from outside; pure computation.
 */
#pragma once

#include <stddef.h>

#include "fs/base/cleanup.h"

typedef struct NetChallenge {
	char realm[1024];  /* URL of who gives tokens */
	char service[256]; /* "" where not given */
	char scope[1024];  /* separated by spaces; "" where not given */
} NetChallenge;

/*
 * The first Bearer challenge of a header's value, which may hold challenges of other schemes too. Errors: -ENOENT (none, or one
 * without realm), -EBADMSG (not such a list, control characters, or too long).
 */
int net_challenge_parse(const char *value, size_t size, NetChallenge *ret_challenge) _must_check_;
