/*
 * Private to the room: the body of an answer to a request for several ranges, multipart/byteranges (RFC 9110 section 14.6, RFC 2046 section 5.1.1).
 * Bytes from outside; pure computation.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/base/error.h"
#include "fs/net/net-headers.h"

#define NET_PART_LINE_MAX 512u

/* A stretch of a blob. */
typedef struct NetSpan {
	uint64_t offset;
	uint64_t size; /* at least 1 */
} NetSpan;

typedef enum NetPartState {
	NET_PART_BOUNDARY, /* a line that begins a part, or ends the body */
	NET_PART_HEADERS,
	NET_PART_BODY,
	NET_PART_LINE_END, /* that stands behind a part's bytes */
	NET_PART_END,      /* all parts have come; what follows does not matter */
} NetPartState;

/* One such body. */
typedef struct NetMultipart {
	const NetSpan *spans; /* not owned */
	size_t count;
	size_t current; /* the part that is arriving */
	NetPartState state;
	bool has_range; /* the part's headers have named it */
	uint64_t left;  /* bytes of the part still to come */
	size_t text;    /* bytes since the last part that are not of one */
	char boundary[NET_BOUNDARY_SIZE];
	char line[NET_PART_LINE_MAX];
	size_t line_size;
} NetMultipart;

/* `spans` has to outlive it; `boundary` is that of the headers. */
void net_multipart_init(NetMultipart *parts, const NetSpan *spans, size_t count, const char *boundary);

/*
 * Takes the next bytes of the body and says which of them are the next of a part: `ret_data` (in `*data`, or NULL when it needs more) and `ret_size`.
 * To be called until `*size` is 0. The parts have to be the spans, each whole, in their order, and nothing else. Errors: -EOPNOTSUPP with a sentence.
 */
int net_multipart_next(NetMultipart *parts, const uint8_t **data, size_t *size, const uint8_t **ret_data,
		       size_t *ret_size, Error *error) _must_check_;
