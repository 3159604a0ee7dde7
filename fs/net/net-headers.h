/*
 * The response headers imgfs looks at: status, Content-Range, WWW-Authenticate, Docker-Content-Digest (RFC 9110 sections 14.4 and 15;
 * OCI distribution-spec 1.1). Bytes from outside; pure computation.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/base/digest.h"
#include "fs/base/error.h"
#include "fs/net/net-challenge.h"

typedef struct NetContentRange {
	uint64_t first;
	uint64_t last; /* inclusive, at least first */
	uint64_t total;
	bool total_known;
} NetContentRange;

#define NET_BOUNDARY_SIZE 71u /* RFC 2046 section 5.1.1, and its NUL */

/* The headers of one response. Zeroed at first. */
typedef struct NetHeaders {
	unsigned status;                  /* 0 until a status line came */
	bool complete;                    /* the empty line came */
	char boundary[NET_BOUNDARY_SIZE]; /* of several ranges (multipart/byteranges); empty: it is none */
	bool has_range;
	bool bad_range; /* one that cannot be understood, or more than one */
	NetContentRange range;
	bool has_digest; /* a valid sha256 one */
	Digest digest;
	bool has_challenge; /* it wants a token */
	NetChallenge challenge;
} NetHeaders;

/* Adds one line, with or without its line end. A status line starts a new response. */
void net_headers_add(NetHeaders *headers, const char *line, size_t size);

/* Is it [offset, offset + size), size at least 1? */
bool net_content_range_is(const NetContentRange *range, uint64_t offset, uint64_t size);

/* The value of Content-Range: "bytes FIRST-LAST/TOTAL" or "bytes FIRST-LAST/" and "*". Errors: -EBADMSG. */
int net_content_range_parse(const char *value, size_t size, NetContentRange *ret_range) _must_check_;

/*
 * Is this the answer to a request for [offset, offset + size), size at least 1? Errors: as net_status_error(), and -EPROTO with a sentence
 * (200 for 206, Content-Range missing or another).
 */
int net_headers_check_range(const NetHeaders *headers, uint64_t offset, uint64_t size, Error *error) _must_check_;

/*
 * Is this the answer to a request for several ranges? Errors: as net_status_error() where the server can or will not give any of it, and
 * -EOPNOTSUPP with a sentence where it may give them one by one.
 */
int net_headers_check_parts(const NetHeaders *headers, Error *error) _must_check_;

/*
 * What a status means that is not the one wanted: -ENOENT (404, 410), -EACCES (401, 403), -EREMOTEIO (429, 5xx), -EEXIST (409), or
 * -EPROTO, with a sentence that does not name the URL.
 */
int net_status_error(unsigned status, Error *error) _must_check_;
