/* Is a server there, and what does it say of itself? One request, for who looks after a machine. Blocks. */
#pragma once

#include <stdint.h>

#include "fs/base/error.h"
#include "fs/net/net-access.h"

typedef struct NetProbe {
	long status;
	int64_t date;      /* the answer's Date header, seconds since 1970; 0: there was none */
	int64_t not_after; /* end of the server's certificate; 0: no TLS */
	int64_t took;      /* milliseconds */
} NetProbe;

/*
 * HEAD of a URL, without redirects or tokens, as `access` says. Whatever is answered is no error. Errors, with a sentence: -EHOSTUNREACH, -ECONNRESET, -ETIMEDOUT,
 * -EKEYREJECTED (TLS certificate), -EINVAL (URL), -ENOMEM.
 */
int net_probe(const char *url, const NetAccess *access, int64_t timeout, NetProbe *ret_probe, Error *error)
	_must_check_;
