#include "tools/serve/serve-body.h"

#include <inttypes.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <string.h>

#include "fs/base/log.h"
#include "tools/serve/serve-request.h"

/* Each transfer that is no sendfile() holds this much, however slow its client is. */
#define BLOCK_SIZE (32u << 10)

#define TEXT_SIZE 256u /* what stands before a range of a multipart body */

/* A stretch of the body: of the blob, or of `text`. */
typedef struct Segment {
	uint64_t position; /* in the body */
	uint64_t length;
	uint64_t offset;
	bool is_text;
} Segment;

typedef struct Body {
	struct Server *server;
	ServeBlob blob;
	char *text;
	size_t text_size;
	uint64_t length;
	size_t count;
	Segment segments[];
} Body;

void serve_blob_done(ServeBlob *blob)
{
	if (blob->fd >= 0)
		(void)close(blob->fd);
	blob->fd = -1;
	blob->tar = tar_stream_unref(blob->tar);
	blob->shared = fetch_share_blob_close(blob->shared);
}

static void body_free(void *arg)
{
	Body *body = arg;
	serve_blob_done(&body->blob);
	free(body->text);
	free(body);
}

int serve_body_boundary(char ret_boundary[static SERVE_BOUNDARY_SIZE])
{
	unsigned char chance[(SERVE_BOUNDARY_SIZE - 1) / 2];
	if (RAND_bytes(chance, sizeof(chance)) != 1)
		return -EIO;
	for (size_t i = 0; i < sizeof(chance); i++)
		(void)snprintf(ret_boundary + 2 * i, 3, "%02x", chance[i]);
	return 0;
}

static void add_segment(Body *body, uint64_t offset, uint64_t length, bool is_text)
{
	body->segments[body->count++] =
		(Segment){ .position = body->length, .length = length, .offset = offset, .is_text = is_text };
	body->length += length;
}

/* Adds text, for which there is room. */
static void add_text(Body *body, const char *format, ...) _printf_(2, 3);

static void add_text(Body *body, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	int size = vsnprintf(body->text + body->text_size, TEXT_SIZE, format, args);
	va_end(args);
	add_segment(body, body->text_size, (uint64_t)size, true);
	body->text_size += (size_t)size;
}

/* RFC 9110 section 14.6. */
static void add_parts(Body *body, const ServeRanges *ranges, const char *boundary, uint64_t size)
{
	for (size_t i = 0; i < ranges->count; i++) {
		const ServeRange *range = &ranges->ranges[i];
		add_text(body,
			 "\r\n--%s\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes %" PRIu64
			 "-%" PRIu64 "/%" PRIu64 "\r\n\r\n",
			 boundary, range->offset, range->offset + range->length - 1, size);
		add_segment(body, range->offset, range->length, false);
	}
	add_text(body, "\r\n--%s--\r\n", boundary);
}

static ssize_t fault(const Body *body, int code, const Error *error)
{
	serve_metrics_add(&body->server->metrics.frames_failed, 1);
	log_error("transfer cut short: %s; %s", error_text(error, code), serve_way_out(body->server));
	return MHD_CONTENT_READER_END_WITH_ERROR;
}

static ssize_t read_tar(Body *body, uint64_t offset, char *buffer, size_t size)
{
	struct Server *server = body->server;
	Error error = { 0 };
	ssize_t count = chunk_cache_read(server->chunks, body->blob.tar, offset, buffer, size, &error);
	if (count > 0) {
		serve_metrics_add(&server->metrics.tar_bytes, (unsigned long long)count);
		return count;
	}
	tar_cache_forget(server->tars, body->blob.tar);
	return fault(body, (int)count, &error);
}

static ssize_t read_shared(Body *body, uint64_t offset, char *buffer, size_t size)
{
	int r = fetch_share_blob_read(body->blob.shared, offset, size, buffer);
	return r < 0 ? fault(body, r, NULL) : (ssize_t)size;
}

static ssize_t read_blob(Body *body, uint64_t offset, char *buffer, size_t size)
{
	if (body->blob.shared)
		return read_shared(body, offset, buffer, size);
	if (body->blob.fd < 0)
		return read_tar(body, offset, buffer, size);
	ssize_t count;
	do
		count = pread(body->blob.fd, buffer, size, (off_t)offset);
	while (count < 0 && errno == EINTR);
	if (count > 0)
		return count;
	return fault(body, count < 0 ? -errno : -ENODATA, NULL);
}

/* The segment with the byte at `position`; there is one, as MHD asks for no byte beyond the length. */
static const Segment *find_segment(const Body *body, uint64_t position)
{
	size_t low = 0, high = body->count - 1;
	while (low < high) {
		size_t middle = (low + high + 1) / 2;
		if (body->segments[middle].position <= position)
			low = middle;
		else
			high = middle - 1;
	}
	return &body->segments[low];
}

static ssize_t body_read(void *arg, uint64_t position, char *buffer, size_t size)
{
	Body *body = arg;
	const Segment *segment = find_segment(body, position);
	uint64_t skip = position - segment->position;
	if (size > segment->length - skip)
		size = (size_t)(segment->length - skip);
	if (!segment->is_text)
		return read_blob(body, segment->offset + skip, buffer, size);
	memcpy(buffer, body->text + segment->offset + skip, size);
	return (ssize_t)size;
}

static Body *body_new(struct Server *server, const ServeBlob *blob, const ServeRanges *ranges, const char *boundary)
{
	size_t segments = 2 * ranges->count + 1;
	Body *body = calloc(1, sizeof(*body) + segments * sizeof(body->segments[0]));
	if (!body)
		return NULL;
	body->server = server;
	body->blob.fd = -1; /* the caller's until all has gone well */
	if (ranges->kind != SERVE_RANGE_PARTS) {
		add_segment(body, ranges->ranges[0].offset, ranges->ranges[0].length, false);
		return body;
	}
	body->text = malloc((ranges->count + 1) * TEXT_SIZE);
	if (!body->text) {
		body_free(body);
		return NULL;
	}
	add_parts(body, ranges, boundary, blob->size);
	return body;
}

struct MHD_Response *serve_body_new(struct Server *server, ServeBlob *blob, const ServeRanges *ranges,
				    const char *boundary, uint64_t *ret_length)
{
	const ServeRange *range = &ranges->ranges[0];
	/* What sendfile() can do, it does. In TLS it cannot, and MHD would read 4 kB at a time. */
	if (blob->fd >= 0 && !server->tls && ranges->kind != SERVE_RANGE_PARTS) {
		struct MHD_Response *response =
			MHD_create_response_from_fd_at_offset64(range->length, blob->fd, range->offset);
		if (response) {
			(void)TAKE_FD(blob->fd);
			*ret_length = range->length;
		}
		return response;
	}
	Body *body = body_new(server, blob, ranges, boundary);
	if (!body)
		return NULL;
	size_t block = body->length < BLOCK_SIZE ? (size_t)body->length : BLOCK_SIZE;
	struct MHD_Response *response =
		MHD_create_response_from_callback(body->length, block ? block : 1, body_read, body, body_free);
	if (!response) {
		body_free(body);
		return NULL;
	}
	body->blob = (ServeBlob){ .fd = TAKE_FD(blob->fd),
				  .tar = TAKE_PTR(blob->tar),
				  .shared = TAKE_PTR(blob->shared),
				  .size = blob->size };
	*ret_length = body->length;
	return response;
}
