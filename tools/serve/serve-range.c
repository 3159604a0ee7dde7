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

static ServeRange range_whole(uint64_t size)
{
	return (ServeRange){ .kind = SERVE_RANGE_WHOLE, .offset = 0, .length = size };
}

/* The last `count` bytes. */
static ServeRange range_suffix(uint64_t count, uint64_t size)
{
	if (count == 0 || size == 0)
		return (ServeRange){ .kind = SERVE_RANGE_UNSATISFIABLE };
	uint64_t length = count < size ? count : size;
	return (ServeRange){ .kind = SERVE_RANGE_PART, .offset = size - length, .length = length };
}

static ServeRange range_between(uint64_t first, uint64_t last, uint64_t size)
{
	if (first >= size)
		return (ServeRange){ .kind = SERVE_RANGE_UNSATISFIABLE };
	uint64_t end = last < size ? last + 1 : size;
	return (ServeRange){ .kind = SERVE_RANGE_PART, .offset = first, .length = end - first };
}

ServeRange serve_range_parse(const char *header, uint64_t size)
{
	static const char unit[] = "bytes=";
	if (!header || strncasecmp(header, unit, sizeof(unit) - 1) != 0)
		return range_whole(size);

	const char *at = skip_space(header + sizeof(unit) - 1);
	uint64_t first = 0, last = UINT64_MAX;
	bool suffix = !read_number(&at, &first);
	if (*at++ != '-')
		return range_whole(size);
	bool closed = read_number(&at, &last);
	if (*skip_space(at) != '\0')
		return range_whole(size);

	if (suffix)
		return closed ? range_suffix(last, size) : range_whole(size);
	if (closed && last < first)
		return range_whole(size);
	return range_between(first, last, size);
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
