/* The Range, If-Range and If-None-Match headers of a request: RFC 9110 sections 13 and 14. Pure computation. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

typedef enum ServeRangeKind {
	SERVE_RANGE_WHOLE,         /* no range, or one to ignore: answer 200 with everything */
	SERVE_RANGE_PART,          /* answer 206 */
	SERVE_RANGE_UNSATISFIABLE, /* answer 416 */
} ServeRangeKind;

typedef struct ServeRange {
	ServeRangeKind kind;
	uint64_t offset; /* of what to send; 0 when unsatisfiable */
	uint64_t length;
} ServeRange;

/*
 * What to send of a representation of `size` bytes, when the Range header is `header` (NULL: none). One range of bytes is
 * honoured: "bytes=a-b", "bytes=a-", "bytes=-n". Anything else (several ranges, other units, malformed) is ignored, as
 * RFC 9110 section 14.2 allows.
 */
ServeRange serve_range_parse(const char *header, uint64_t size);

/*
 * Does If-Range let the Range count? `etag` is the current strong entity tag, quotes included. No header: yes. A date or
 * another tag: no (RFC 9110 section 13.1.5: strong comparison; nothing here has a Last-Modified).
 */
bool serve_range_if_range(const char *header, const char *etag);

/* Does If-None-Match name `etag` (weak comparison, a list or "*": RFC 9110 section 13.1.2)? No header: no. */
bool serve_range_none_match(const char *header, const char *etag);
