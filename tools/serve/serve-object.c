/* Manifests and blobs: everything that has a digest. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "fs/base/fd.h"
#include "fs/base/log.h"
#include "fs/format/format.h"
#include "tools/serve/serve-range.h"
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

static enum MHD_Result send_not_modified(ServeRequest *request, const Digest *digest, const char *etag)
{
	ServeReply reply = serve_reply_make(MHD_HTTP_NOT_MODIFIED,
					    MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT), 0);
	digest_headers(&reply, digest, etag);
	return serve_reply_send(request, &reply);
}

/* Takes `json` over. */
static enum MHD_Result send_manifest(ServeRequest *request, const Digest *digest, char *json, size_t size)
{
	char etag[ETAG_SIZE];
	etag_of(digest, etag);
	if (client_has(request, etag)) {
		free(json);
		return send_not_modified(request, digest, etag);
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
	return send_manifest(request, &digest, json, size);
}

/* Reads an object of blobs/ that is small enough for a manifest; checks its digest. Errors: -EFBIG, -EBADMSG, -ENOENT. */
static int read_object(Store *store, const Digest *digest, char **ret_data, size_t *ret_size, Error *error)
{
	_cleanup_close_ int fd = -1;
	uint64_t size;
	int r = store_blob_open(store, digest, &fd, &size);
	if (r < 0)
		return r;
	if (size > MANIFEST_SIZE_MAX)
		return -EFBIG;
	_cleanup_free_ char *data = malloc(size + 1);
	if (!data)
		return -ENOMEM;
	r = fd_pread_all(fd, data, size, 0);
	if (r < 0)
		return r;
	Digest actual;
	r = digest_of(data, size, &actual);
	if (r < 0)
		return r;
	char text[DIGEST_TEXT_SIZE];
	if (!digest_equal(&actual, digest))
		return error_set(error, -EBADMSG,
				 "%s of the store is corrupt: its SHA-256 is another; export the image again",
				 digest_text(digest, text));
	*ret_data = TAKE_PTR(data);
	*ret_size = size;
	return 0;
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
	int r = read_object(request->server->store, &route->digest, &json, &size, &error);
	if (r == -ENOENT || r == -EFBIG)
		return send_manifest_unknown(request);
	if (r < 0)
		return serve_send_fault(request, r, &error);
	if (!is_manifest(json, size))
		return send_manifest_unknown(request);
	return send_manifest(request, &route->digest, TAKE_PTR(json), size);
}

/* What a blob's bytes come from: a file of the store, or a layer's tar made from its imgfs blob. */
typedef struct Blob {
	int fd; /* -1 for a tar; owned */
	TarStream *tar;
	uint64_t size;
} Blob;

static void blob_done(Blob *blob)
{
	if (blob->fd >= 0)
		(void)close(blob->fd);
	(void)tar_stream_unref(blob->tar);
}

static int blob_open(struct Server *server, const Digest *digest, Blob *ret_blob, Error *error)
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

/* A tar on its way to a client. Owned by the response. */
typedef struct TarBody {
	struct Server *server;
	TarStream *tar;
	uint64_t offset; /* in the tar, of the body's first byte */
} TarBody;

static void tar_body_free(void *arg)
{
	TarBody *body = arg;
	(void)tar_stream_unref(body->tar);
	free(body);
}

/* Cutting the connection tells the client that the announced length was not reached; wrong bytes are never sent. */
static ssize_t tar_body_read(void *arg, uint64_t position, char *buffer, size_t size)
{
	TarBody *body = arg;
	struct Server *server = body->server;
	TarScratch *scratch;
	if (tar_cache_take_scratch(server->tars, &scratch) < 0)
		return MHD_CONTENT_READER_END_WITH_ERROR;
	Error error = { 0 };
	ssize_t count = tar_stream_read(body->tar, scratch, body->offset + position, buffer, size, &error);
	tar_cache_give_scratch(server->tars, scratch);
	if (count > 0)
		return count;
	log_error("transfer cut short: %s", error_text(&error, (int)count));
	tar_cache_forget(server->tars, body->tar);
	return MHD_CONTENT_READER_END_WITH_ERROR;
}

/* Takes the blob's descriptor or stream over when it succeeds; NULL when memory is out. */
static struct MHD_Response *respond_with(struct Server *server, Blob *blob, const ServeRange *range)
{
	if (blob->fd >= 0) {
		struct MHD_Response *response =
			MHD_create_response_from_fd_at_offset64(range->length, blob->fd, range->offset);
		if (response)
			(void)TAKE_FD(blob->fd);
		return response;
	}
	_cleanup_free_ TarBody *body = malloc(sizeof(*body));
	if (!body)
		return NULL;
	*body = (TarBody){ .server = server, .tar = blob->tar, .offset = range->offset };
	size_t block = range->length < FORMAT_CHUNK_MAX ? (size_t)range->length : FORMAT_CHUNK_MAX;
	struct MHD_Response *response =
		MHD_create_response_from_callback(range->length, block ? block : 1, tar_body_read, body, tar_body_free);
	if (response) {
		(void)TAKE_PTR(body);
		(void)TAKE_PTR(blob->tar);
	}
	return response;
}

/* RFC 9110 section 14.2: Range counts for GET alone. */
static ServeRange wanted_range(const ServeRequest *request, const char *etag, uint64_t size)
{
	const char *header = request->head ? NULL : serve_request_header(request, MHD_HTTP_HEADER_RANGE);
	if (!serve_range_if_range(serve_request_header(request, MHD_HTTP_HEADER_IF_RANGE), etag))
		header = NULL;
	return serve_range_parse(header, size);
}

static enum MHD_Result send_blob(ServeRequest *request, const Digest *digest, Blob *blob)
{
	char etag[ETAG_SIZE];
	etag_of(digest, etag);
	if (client_has(request, etag))
		return send_not_modified(request, digest, etag);

	ServeRange range = wanted_range(request, etag, blob->size);
	ServeReply reply;
	char content_range[96];
	if (range.kind == SERVE_RANGE_UNSATISFIABLE) {
		reply = serve_reply_error(MHD_HTTP_RANGE_NOT_SATISFIABLE, "RANGE_INVALID",
					  "the range lies outside of the blob");
		(void)snprintf(content_range, sizeof(content_range), "bytes */%" PRIu64, blob->size);
	} else {
		bool part = range.kind == SERVE_RANGE_PART;
		reply = serve_reply_make(part ? MHD_HTTP_PARTIAL_CONTENT : MHD_HTTP_OK,
					 respond_with(request->server, blob, &range), range.length);
		serve_reply_header(&reply, MHD_HTTP_HEADER_CONTENT_TYPE, "application/octet-stream");
		digest_headers(&reply, digest, etag);
		(void)snprintf(content_range, sizeof(content_range), "bytes %" PRIu64 "-%" PRIu64 "/%" PRIu64,
			       range.offset, range.offset + range.length - 1, blob->size);
	}
	if (range.kind != SERVE_RANGE_WHOLE)
		serve_reply_header(&reply, MHD_HTTP_HEADER_CONTENT_RANGE, content_range);
	serve_reply_header(&reply, MHD_HTTP_HEADER_ACCEPT_RANGES, "bytes");
	return serve_reply_send(request, &reply);
}

enum MHD_Result serve_blob(ServeRequest *request, const ServeRoute *route)
{
	Error error = { 0 };
	_cleanup_(blob_done) Blob blob = { .fd = -1 };
	int r = blob_open(request->server, &route->digest, &blob, &error);
	if (r == -ENOENT)
		return serve_send_error(request, MHD_HTTP_NOT_FOUND, "BLOB_UNKNOWN", "the store has no such blob");
	if (r < 0)
		return serve_send_fault(request, r, &error);
	return send_blob(request, &route->digest, &blob);
}
