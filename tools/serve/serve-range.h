/* The Range, If-Range and If-None-Match headers of a request: RFC 9110 sections 13 and 14. Pure computation. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SERVE_RANGES_MAX 64u

typedef enum ServeRangeKind {
	SERVE_RANGE_WHOLE,         /* no range, or one to ignore: answer 200 with everything */
	SERVE_RANGE_PART,          /* answer 206 with one range */
	SERVE_RANGE_PARTS,         /* answer 206 with several, as multipart/byteranges */
	SERVE_RANGE_UNSATISFIABLE, /* answer 416 */
} ServeRangeKind;

typedef struct ServeRange {
	uint64_t offset;
	uint64_t length; /* at least 1, but of an empty whole */
} ServeRange;

typedef struct ServeRanges {
	ServeRangeKind kind;
	size_t count; /* 0 when unsatisfiable; 1 of a whole */
	ServeRange ranges[SERVE_RANGES_MAX];
} ServeRanges;

/*
 * What to send of a representation of `size` bytes, when the Range header is `header` (NULL: none): "bytes=a-b", "bytes=a-", "bytes=-n",
 * or up to SERVE_RANGES_MAX of these in a list, in its order, those beyond the end left out. Anything else (other units,
 * malformed, more of them, any two that overlap) is ignored, as RFC 9110 sections 14.2 and 17.15 allow.
 */
void serve_range_parse(const char *header, uint64_t size, ServeRanges *ret_ranges);

/*
 * Does If-Range let the Range count? `etag` is the current strong entity tag, quotes included. No header: yes. A date or
 * another tag: no (RFC 9110 section 13.1.5: strong comparison; nothing here has a Last-Modified).
 */
bool serve_range_if_range(const char *header, const char *etag);

/* Does If-None-Match name `etag` (weak comparison, a list or "*": RFC 9110 section 13.1.2)? No header: no. */
bool serve_range_none_match(const char *header, const char *etag);
