/* Manifests and blobs: everything that has a digest. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tools/export/store-image.h"
#include "tools/serve/serve-body.h"
#include "tools/serve/serve-request.h"

/* `"sha256:<hex>"`: what a digest names never changes, which makes it a strong entity tag. */
#define ETAG_SIZE (DIGEST_TEXT_SIZE + 2)

static void digest_headers(ServeReply *reply, const Digest *digest, const char *etag)
{
	char text[DIGEST_TEXT_SIZE];
	serve_reply_header(reply, "Docker-Content-Digest", digest_text(digest, text));
	serve_reply_header(reply, MHD_HTTP_HEADER_ETAG, etag);
}

static void etag_of(const Digest *digest, char ret_etag[static ETAG_SIZE])
{
	char text[DIGEST_TEXT_SIZE];
	(void)snprintf(ret_etag, ETAG_SIZE, "\"%s\"", digest_text(digest, text));
}

/* Has the client got it already (RFC 9110 section 13.2.2: If-None-Match comes before Range)? */
static bool client_has(const ServeRequest *request, const char *etag)
{
	return serve_range_none_match(serve_request_header(request, MHD_HTTP_HEADER_IF_NONE_MATCH), etag);
}

static ssize_t no_body(void *arg _unused_, uint64_t position _unused_, char *buffer _unused_, size_t size _unused_)
{
	return MHD_CONTENT_READER_END_WITH_ERROR;
}

/* RFC 9110 section 8.6: a length in such a reply is that of the 200 which it stands for, so that a cache between does not take in another. */
static enum MHD_Result send_not_modified(ServeRequest *request, const Digest *digest, const char *etag, uint64_t size)
{
	ServeReply reply = serve_reply_make(MHD_HTTP_NOT_MODIFIED,
					    MHD_create_response_from_callback(size, 1, no_body, NULL, NULL), 0);
	digest_headers(&reply, digest, etag);
	return serve_reply_send(request, &reply);
}

enum MHD_Result serve_send_manifest(ServeRequest *request, const Digest *digest, char *json, size_t size)
{
	char etag[ETAG_SIZE];
	etag_of(digest, etag);
	if (client_has(request, etag)) {
		free(json);
		return send_not_modified(request, digest, etag, size);
	}
	ServeReply reply = serve_reply_make(MHD_HTTP_OK, serve_response_of(json, size), size);
	serve_reply_header(&reply, MHD_HTTP_HEADER_CONTENT_TYPE, MANIFEST_MEDIA_TYPE);
	digest_headers(&reply, digest, etag);
	return serve_reply_send(request, &reply);
}

static enum MHD_Result send_manifest_unknown(ServeRequest *request)
{
	return serve_send_error(request, MHD_HTTP_NOT_FOUND, "MANIFEST_UNKNOWN",
				"the store has no such manifest; `imgfs ls` on the build host lists what it has");
}

enum MHD_Result serve_manifest_by_tag(ServeRequest *request, const ServeRoute *route)
{
	char *json;
	size_t size;
	Digest digest;
	int r = store_tag_get(request->server->store, route->name, route->tag, &json, &size);
	if (r == -ENOENT)
		return send_manifest_unknown(request);
	if (r < 0)
		return serve_send_fault(request, r, NULL);
	r = digest_of(json, size, &digest);
	if (r < 0) {
		free(json);
		return serve_send_fault(request, r, NULL);
	}
	return serve_send_manifest(request, &digest, json, size);
}

/* An OCI image manifest, with imgfs annotations or without? */
static bool is_manifest(const char *json, size_t size)
{
	Manifest manifest = { 0 };
	int r = manifest_parse(json, size, &manifest, NULL);
	manifest_done(&manifest);
	return r == 0 || r == -ENODATA;
}

enum MHD_Result serve_manifest_by_digest(ServeRequest *request, const ServeRoute *route)
{
	Error error = { 0 };
	_cleanup_free_ char *json = NULL;
	size_t size = 0;
	char text[DIGEST_TEXT_SIZE];
	int r = store_blob_read(request->server->store, &route->digest, MANIFEST_SIZE_MAX, &json, &size);
	if (r == -ENOENT || r == -EFBIG)
		return send_manifest_unknown(request);
	if (r == -EBADMSG)
		r = error_set(&error, r, "%s of the store is corrupt: its SHA-256 is another; export the image again",
			      digest_text(&route->digest, text));
	if (r < 0)
		return serve_send_fault(request, r, &error);
	if (!is_manifest(json, size))
		return send_manifest_unknown(request);
	return serve_send_manifest(request, &route->digest, TAKE_PTR(json), size);
}

static int blob_open(struct Server *server, const Digest *digest, ServeBlob *ret_blob, Error *error)
{
	int r = store_blob_open(server->store, digest, &ret_blob->fd, &ret_blob->size);
	if (r != -ENOENT)
		return r;
	ret_blob->fd = -1;
	ManifestLayer layer;
	r = store_layer_get(server->store, digest, &layer, error);
	if (r < 0)
		return r;
	r = tar_cache_get(server->tars, &layer, &ret_blob->tar, error);
	if (r < 0) /* the layer is known, so that its blob is missing is a fault */
		return r == -ENOENT ? -EIO : r;
	ret_blob->size = tar_stream_size(ret_blob->tar);
	return 0;
}

/* RFC 9110 section 14.2: Range counts for GET alone. */
static void wanted_ranges(const ServeRequest *request, const char *etag, uint64_t size, ServeRanges *ret_ranges)
{
	const char *header = request->head ? NULL : serve_request_header(request, MHD_HTTP_HEADER_RANGE);
	if (!serve_range_if_range(serve_request_header(request, MHD_HTTP_HEADER_IF_RANGE), etag))
		header = NULL;
	serve_range_parse(header, size, ret_ranges);
}

static ServeReply refuse_range(const ServeBlob *blob)
{
	char content_range[64];
	(void)snprintf(content_range, sizeof(content_range), "bytes */%" PRIu64, blob->size);
	ServeReply reply = serve_reply_error(MHD_HTTP_RANGE_NOT_SATISFIABLE, "RANGE_INVALID",
					     "the range lies outside of the blob");
	serve_reply_header(&reply, MHD_HTTP_HEADER_CONTENT_RANGE, content_range);
	return reply;
}

/* 200 or 206, with what is in `blob` taken over. */
static ServeReply reply_with(struct Server *server, ServeBlob *blob, const ServeRanges *ranges)
{
	char boundary[SERVE_BOUNDARY_SIZE] = "", text[96];
	uint64_t length = 0, size = blob->size;
	const ServeRange *range = &ranges->ranges[0];
	struct MHD_Response *response = NULL;
	if (serve_body_boundary(boundary) == 0)
		response = serve_body_new(server, blob, ranges, boundary, &length);
	unsigned status = ranges->kind == SERVE_RANGE_WHOLE ? MHD_HTTP_OK : MHD_HTTP_PARTIAL_CONTENT;
	ServeReply reply = serve_reply_make(status, response, length);
	if (ranges->kind == SERVE_RANGE_PARTS) {
		(void)snprintf(text, sizeof(text), "multipart/byteranges; boundary=%s", boundary);
		serve_reply_header(&reply, MHD_HTTP_HEADER_CONTENT_TYPE, text);
		return reply;
	}
	serve_reply_header(&reply, MHD_HTTP_HEADER_CONTENT_TYPE, "application/octet-stream");
	if (ranges->kind == SERVE_RANGE_PART) {
		(void)snprintf(text, sizeof(text), "bytes %" PRIu64 "-%" PRIu64 "/%" PRIu64, range->offset,
			       range->offset + range->length - 1, size);
		serve_reply_header(&reply, MHD_HTTP_HEADER_CONTENT_RANGE, text);
	}
	return reply;
}

enum MHD_Result serve_send_blob(ServeRequest *request, const Digest *digest, ServeBlob *blob)
{
	char etag[ETAG_SIZE];
	ServeRanges ranges;
	etag_of(digest, etag);
	if (client_has(request, etag))
		return send_not_modified(request, digest, etag, blob->size);

	wanted_ranges(request, etag, blob->size, &ranges);
	bool satisfiable = ranges.kind != SERVE_RANGE_UNSATISFIABLE;
	ServeReply reply = satisfiable ? reply_with(request->server, blob, &ranges) : refuse_range(blob);
	if (satisfiable)
		digest_headers(&reply, digest, etag);
	serve_reply_header(&reply, MHD_HTTP_HEADER_ACCEPT_RANGES, "bytes");
	return serve_reply_send(request, &reply);
}

enum MHD_Result serve_blob(ServeRequest *request, const ServeRoute *route)
{
	Error error = { 0 };
	_cleanup_(serve_blob_done) ServeBlob blob = { .fd = -1 };
	int r = blob_open(request->server, &route->digest, &blob, &error);
	if (r == -ENOENT)
		return serve_send_error(request, MHD_HTTP_NOT_FOUND, "BLOB_UNKNOWN", "the store has no such blob");
	if (r < 0)
		return serve_send_fault(request, r, &error);
	return serve_send_blob(request, &route->digest, &blob);
}
