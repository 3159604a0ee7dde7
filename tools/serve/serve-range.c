#include "tools/serve/serve-range.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

/*
 * Reads 1*DIGIT at `*text` and steps over it. A number too large for 64 bits becomes UINT64_MAX: it is a valid position,
 * beyond every file's end.
 */
static bool read_number(const char **text, uint64_t *ret_number)
{
	const char *at = *text;
	uint64_t number = 0;
	if (!isdigit((unsigned char)*at))
		return false;
	for (; isdigit((unsigned char)*at); at++) {
		uint64_t digit = (uint64_t)(*at - '0');
		number = number > (UINT64_MAX - digit) / 10 ? UINT64_MAX : number * 10 + digit;
	}
	*text = at;
	*ret_number = number;
	return true;
}

static const char *skip_space(const char *text)
{
	return text + strspn(text, " \t");
}

/* What one element of the list says: a range, one beyond the end (length 0), or nothing that can be understood. */
static bool read_range(const char **text, uint64_t size, ServeRange *ret_range)
{
	uint64_t first = 0, last = UINT64_MAX;
	const char *at = *text;
	bool suffix = !read_number(&at, &first);
	if (*at++ != '-')
		return false;
	bool closed = read_number(&at, &last);
	if ((suffix && !closed) || (!suffix && last < first))
		return false;
	*text = at;
	if (suffix) { /* the last `last` bytes */
		uint64_t length = last < size ? last : size;
		*ret_range = (ServeRange){ .offset = size - length, .length = length };
	} else if (first >= size) {
		*ret_range = (ServeRange){ 0 };
	} else {
		uint64_t end = last < size ? last + 1 : size;
		*ret_range = (ServeRange){ .offset = first, .length = end - first };
	}
	return true;
}

/* Steps over white space and commas: a list may have empty elements (RFC 9110 section 5.6.1). */
static const char *skip_empty(const char *text)
{
	return text + strspn(text, " \t,");
}

/* Reads the list into `ranges`. False if it is to be ignored. */
static bool read_ranges(const char *at, uint64_t size, ServeRanges *ranges)
{
	size_t elements = 0;
	for (at = skip_empty(at); *at; at = skip_empty(at)) {
		ServeRange range;
		if (elements == SERVE_RANGES_MAX || !read_range(&at, size, &range))
			return false;
		elements++;
		at = skip_space(at);
		if (*at != '\0' && *at != ',')
			return false;
		if (range.length > 0)
			ranges->ranges[ranges->count++] = range;
	}
	return elements > 0;
}

static bool any_overlap(const ServeRanges *ranges)
{
	for (size_t i = 0; i < ranges->count; i++) {
		const ServeRange *one = &ranges->ranges[i];
		for (size_t j = i + 1; j < ranges->count; j++) {
			const ServeRange *other = &ranges->ranges[j];
			if (one->offset < other->offset + other->length && other->offset < one->offset + one->length)
				return true;
		}
	}
	return false;
}

void serve_range_parse(const char *header, uint64_t size, ServeRanges *ret_ranges)
{
	static const char unit[] = "bytes=";
	ret_ranges->count = 0;
	if (!header || strncasecmp(header, unit, sizeof(unit) - 1) != 0 ||
	    !read_ranges(header + sizeof(unit) - 1, size, ret_ranges) || any_overlap(ret_ranges)) {
		ret_ranges->kind = SERVE_RANGE_WHOLE;
		ret_ranges->count = 1;
		ret_ranges->ranges[0] = (ServeRange){ .offset = 0, .length = size };
	} else if (ret_ranges->count == 0) {
		ret_ranges->kind = SERVE_RANGE_UNSATISFIABLE;
	} else {
		ret_ranges->kind = ret_ranges->count == 1 ? SERVE_RANGE_PART : SERVE_RANGE_PARTS;
	}
}

bool serve_range_if_range(const char *header, const char *etag)
{
	if (!header)
		return true;
	header = skip_space(header);
	size_t length = strlen(etag);
	return strncmp(header, etag, length) == 0 && *skip_space(header + length) == '\0';
}

bool serve_range_none_match(const char *header, const char *etag)
{
	if (!header)
		return false;
	size_t length = strlen(etag);
	for (const char *at = header; *at;) {
		at += strspn(at, " \t,");
		if (*at == '*')
			return true;
		if (strncmp(at, "W/", 2) == 0)
			at += 2;
		if (*at != '"')
			return false;
		if (strncmp(at, etag, length) == 0)
			return true;
		const char *end = strchr(at + 1, '"');
		if (!end)
			return false;
		at = end + 1;
	}
	return false;
}
