#include "fs/net/net-headers.h"

#include <string.h>
#include <strings.h>

#include "fs/base/bytes.h"

/* Reads decimal digits at *text, of which there must be one at least, and moves *text behind them. */
static bool parse_number(const char **text, const char *end, uint64_t *ret_value)
{
	const char *at = *text;
	uint64_t value = 0;
	while (at < end && *at >= '0' && *at <= '9') {
		if (__builtin_mul_overflow(value, 10u, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(*at - '0'), &value))
			return false;
		at++;
	}
	if (at == *text)
		return false;
	*text = at;
	*ret_value = value;
	return true;
}

static bool parse_byte(const char **text, const char *end, char byte)
{
	if (*text == end || **text != byte)
		return false;
	(*text)++;
	return true;
}

int net_content_range_parse(const char *value, size_t size, NetContentRange *ret_range)
{
	static const char unit[] = "bytes ";
	const char *at = value, *end = value + size;
	NetContentRange range = { 0 };

	if (size < sizeof(unit) - 1 || strncasecmp(value, unit, sizeof(unit) - 1) != 0)
		return -EBADMSG;
	at += sizeof(unit) - 1;
	if (!parse_number(&at, end, &range.first) || !parse_byte(&at, end, '-') ||
	    !parse_number(&at, end, &range.last) || !parse_byte(&at, end, '/'))
		return -EBADMSG;
	if (!parse_byte(&at, end, '*')) {
		if (!parse_number(&at, end, &range.total))
			return -EBADMSG;
		range.total_known = true;
	}
	if (at != end || range.first > range.last || (range.total_known && range.last >= range.total))
		return -EBADMSG;
	*ret_range = range;
	return 0;
}

bool net_content_range_is(const NetContentRange *range, uint64_t offset, uint64_t size)
{
	return range->first == offset && range->last - offset == size - 1;
}

static void add_status(NetHeaders *headers, const char *line, size_t size)
{
	*headers = (NetHeaders){ 0 };
	const char *at = memchr(line, ' ', size);
	uint64_t status;
	if (!at)
		return;
	at++;
	if (parse_number(&at, line + size, &status) && status >= 100 && status <= 999)
		headers->status = (unsigned)status;
}

static void add_range(NetHeaders *headers, const char *value, size_t size)
{
	if (headers->has_range || net_content_range_parse(value, size, &headers->range) < 0)
		headers->bad_range = true;
	headers->has_range = true;
}

static void add_digest(NetHeaders *headers, const char *value, size_t size)
{
	char text[DIGEST_TEXT_SIZE];
	if (size != sizeof(text) - 1)
		return;
	memcpy(text, value, size);
	text[size] = '\0';
	headers->has_digest = digest_from_text(text, &headers->digest) == 0;
}

static bool is_boundary_byte(char byte)
{
	return (byte >= '0' && byte <= '9') || (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z') ||
	       (byte != '\0' && strchr("'()+_,-./:=? ", byte));
}

/* The boundary of multipart/byteranges; other types, and what cannot be understood, have none. */
static void add_type(NetHeaders *headers, const char *value, size_t size)
{
	static const char type[] = "multipart/byteranges", name[] = "boundary=";
	const char *at = value, *end = value + size;
	headers->boundary[0] = '\0';
	if (size < sizeof(type) - 1 || strncasecmp(at, type, sizeof(type) - 1) != 0)
		return;
	for (at += sizeof(type) - 1; at < end && (*at == ' ' || *at == '\t' || *at == ';'); at++)
		;
	if ((size_t)(end - at) < sizeof(name) - 1 || strncasecmp(at, name, sizeof(name) - 1) != 0)
		return;
	at += sizeof(name) - 1;
	bool quoted = at < end && *at == '"';
	at += quoted;
	size_t length = 0;
	while (at + length < end && is_boundary_byte(at[length]) && (quoted || at[length] != ' '))
		length++;
	bool ends = quoted ? at + length < end && at[length] == '"'
			   : at + length == end || at[length] == ' ' || at[length] == ';';
	if (!ends || length == 0 || length >= NET_BOUNDARY_SIZE || at[length - 1] == ' ')
		return;
	memcpy(headers->boundary, at, length);
	headers->boundary[length] = '\0';
}

/* If the line is the header `name`, yields its value without the white space around it. */
static bool header_value(const char *line, size_t size, const char *name, const char **ret_value, size_t *ret_size)
{
	size_t length = strlen(name);
	if (size <= length || strncasecmp(line, name, length) != 0 || line[length] != ':')
		return false;
	const char *value = line + length + 1, *end = line + size;
	while (value < end && (*value == ' ' || *value == '\t'))
		value++;
	while (end > value && (end[-1] == ' ' || end[-1] == '\t'))
		end--;
	*ret_value = value;
	*ret_size = (size_t)(end - value);
	return true;
}

void net_headers_add(NetHeaders *headers, const char *line, size_t size)
{
	while (size > 0 && (line[size - 1] == '\r' || line[size - 1] == '\n'))
		size--;
	const char *value;
	size_t length;
	if (size >= 5 && memcmp(line, "HTTP/", 5) == 0)
		add_status(headers, line, size);
	else if (size == 0)
		headers->complete = true;
	else if (header_value(line, size, "Content-Range", &value, &length))
		add_range(headers, value, length);
	else if (header_value(line, size, "Docker-Content-Digest", &value, &length))
		add_digest(headers, value, length);
	else if (header_value(line, size, "Content-Type", &value, &length))
		add_type(headers, value, length);
	else if (!headers->has_challenge && header_value(line, size, "WWW-Authenticate", &value, &length))
		headers->has_challenge = net_challenge_parse(value, length, &headers->challenge) == 0;
}

int net_status_error(unsigned status, Error *error)
{
	switch (status) {
	case 404:
	case 410:
		return error_set(error, -ENOENT, "the server does not have it (status %u)", status);
	case 416:
		return error_set(error, -ERANGE, "the server does not have that part of it (status 416)");
	case 401:
		return error_set(error, -EACCES,
				 "the server wants a user and password that it knows (status 401); `docker login` to "
				 "it, or give --user or --login");
	case 403:
		return error_set(
			error, -EACCES,
			"the server does not allow it (status 403); if it wants a client certificate, put client.cert "
			"and client.key into its directory of certs.d");
	case 405:
		return error_set(error, -EPROTO, "the server does not take that (status 405)");
	case 409:
		return error_set(error, -EEXIST, "the server has another one already (status 409)");
	case 429:
		return error_set(error, -EREMOTEIO, "the server is too busy (status %u)", status);
	default:
		if (status >= 500 && status <= 599)
			return error_set(error, -EREMOTEIO, "the server failed (status %u)", status);
		return error_set(error, -EPROTO, "the server gave an answer not asked for (status %u)", status);
	}
}

int net_headers_check_range(const NetHeaders *headers, uint64_t offset, uint64_t size, Error *error)
{
	if (headers->status == 200)
		return error_set(error, -EPROTO, "the server ignores ranges (status 200 where 206 was asked for)");
	if (headers->status != 206)
		return net_status_error(headers->status, error);
	if (!headers->has_range || headers->bad_range)
		return error_set(error, -EPROTO, "the server's answer lacks a valid Content-Range");
	if (!net_content_range_is(&headers->range, offset, size))
		return error_set(error, -EPROTO, "the server answered with another range than the one asked for");
	return 0;
}

int net_headers_check_parts(const NetHeaders *headers, Error *error)
{
	switch (headers->status) {
	case 206:
		if (headers->boundary[0] && !headers->has_range)
			return 0;
		return error_set(error, -EOPNOTSUPP, "the server answers a request for several ranges with one");
	case 401:
	case 404:
	case 410:
	case 429:
		return net_status_error(headers->status, error);
	default: /* also 403: firewalls refuse many ranges, and a login that is refused is so for one */
		return error_set(error, -EOPNOTSUPP, "the server does not take requests for several ranges (status %u)",
				 headers->status);
	}
}
