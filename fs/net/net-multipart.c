#include "fs/net/net-multipart.h"

#include <string.h>

/* A server adds some 150 bytes to each part. */
#define TEXT_MAX 4096u

void net_multipart_init(NetMultipart *parts, const NetSpan *spans, size_t count, const char *boundary)
{
	*parts = (NetMultipart){ .spans = spans, .count = count };
	(void)snprintf(parts->boundary, sizeof(parts->boundary), "%s", boundary);
}

static int refuse(Error *error, const char *what)
{
	return error_set(error, -EOPNOTSUPP, "the server's answer to a request for several ranges %s", what);
}

/* A line is here whole, without its end. */
static int end_boundary(NetMultipart *parts, Error *error)
{
	size_t length = strlen(parts->boundary), size = parts->line_size;
	const char *line = parts->line;
	if (size == 0) /* before the first one */
		return 0;
	if (size < 2 + length || memcmp(line, "--", 2) != 0 || memcmp(line + 2, parts->boundary, length) != 0)
		return refuse(error, "has bytes that belong to none");
	for (size_t i = 2 + length; i < size; i++)
		if (line[i] != ' ' && line[i] != '\t')
			return refuse(error, "lacks some of them");
	parts->state = NET_PART_HEADERS;
	parts->has_range = false;
	return 0;
}

static int end_header(NetMultipart *parts, Error *error)
{
	const NetSpan *span = &parts->spans[parts->current];
	NetHeaders headers = { 0 };
	if (parts->line_size == 0) {
		if (!parts->has_range)
			return refuse(error, "has one without Content-Range");
		parts->state = NET_PART_BODY;
		parts->left = span->size;
		return 0;
	}
	net_headers_add(&headers, parts->line, parts->line_size);
	if (!headers.has_range)
		return 0;
	if (parts->has_range || headers.bad_range || !net_content_range_is(&headers.range, span->offset, span->size))
		return refuse(error, "has another one than was asked for");
	parts->has_range = true;
	return 0;
}

static int end_line(NetMultipart *parts, Error *error)
{
	if (parts->line_size > 0 && parts->line[parts->line_size - 1] == '\r')
		parts->line_size--;
	switch (parts->state) {
	case NET_PART_BOUNDARY:
		return end_boundary(parts, error);
	case NET_PART_HEADERS:
		return end_header(parts, error);
	case NET_PART_LINE_END:
		parts->state = NET_PART_BOUNDARY;
		return parts->line_size > 0 ? refuse(error, "has a longer one than was asked for") : 0;
	case NET_PART_BODY:
	case NET_PART_END:
		break;
	}
	return 0;
}

/* Takes bytes up to the end of a line. */
static int add_line(NetMultipart *parts, const uint8_t **data, size_t *size, Error *error)
{
	const uint8_t *end = memchr(*data, '\n', *size);
	size_t length = end ? (size_t)(end - *data) : *size, taken = end ? length + 1 : length;
	parts->text += taken;
	if (length > sizeof(parts->line) - parts->line_size || parts->text > TEXT_MAX)
		return refuse(error, "has too much around them");
	memcpy(parts->line + parts->line_size, *data, length);
	parts->line_size += length;
	*data += taken;
	*size -= taken;
	if (!end)
		return 0;
	int r = end_line(parts, error);
	parts->line_size = 0;
	return r;
}

int net_multipart_next(NetMultipart *parts, const uint8_t **data, size_t *size, const uint8_t **ret_data,
		       size_t *ret_size, Error *error)
{
	*ret_data = NULL;
	*ret_size = 0;
	if (parts->state == NET_PART_END) {
		*data += *size;
		*size = 0;
		return 0;
	}
	if (parts->state != NET_PART_BODY)
		return add_line(parts, data, size, error);
	size_t length = parts->left < *size ? (size_t)parts->left : *size;
	*ret_data = *data;
	*ret_size = length;
	*data += length;
	*size -= length;
	parts->left -= length;
	if (parts->left > 0)
		return 0;
	parts->text = 0;
	parts->current++;
	parts->state = parts->current == parts->count ? NET_PART_END : NET_PART_LINE_END;
	return 0;
}
