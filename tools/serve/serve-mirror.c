/* A node's cache as a mirror: what it has of manifests and blobs. Whatever it lacks, somebody else is to be asked. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "fs/base/fd.h"
#include "fs/format/manifest.h"
#include "tools/serve/serve-range.h"
#include "tools/serve/serve-request.h"

#define RANGE_MAX  (8u << 20)   /* of one request; imgfs asks for half of that at most */
#define MEMORY_MAX (128u << 20) /* of all replies under way */

static atomic_ullong memory; /* held by replies */

static enum MHD_Result send_lacking(ServeRequest *request, unsigned status)
{
	return serve_send_error(request, status, "BLOB_UNKNOWN", "this node does not have it; ask another");
}

static enum MHD_Result send_manifest(ServeRequest *request, const Digest *digest)
{
	char *json;
	size_t size;
	int r = fetch_share_manifest(request->server->share, digest, &json, &size);
	if (r == -ENOENT)
		return serve_send_error(request, MHD_HTTP_NOT_FOUND, "MANIFEST_UNKNOWN",
					"this node has no such manifest; ask another");
	return r < 0 ? serve_send_fault(request, r, NULL) : serve_send_manifest(request, digest, json, size);
}

static enum MHD_Result send_tag(ServeRequest *request)
{
	Digest digest;
	int r = fetch_share_tag(request->server->share, request->route.name, request->route.tag, &digest);
	if (r == -ENOENT || r == -ENOTUNIQ)
		return serve_send_error(
			request, MHD_HTTP_NOT_FOUND, "MANIFEST_UNKNOWN",
			r == -ENOENT
				? "this node has not seen the tag"
				: "this node has seen the tag at several hosts, and it means different things there");
	return r < 0 ? serve_send_fault(request, r, NULL) : send_manifest(request, &digest);
}

/* A reply's bytes, behind their number. */
static void free_counted(void *arg)
{
	uint64_t *block = arg;
	(void)atomic_fetch_sub(&memory, *block);
	free(block);
}

static enum MHD_Result send_part(ServeRequest *request, const ServeRange *range, uint64_t total)
{
	char text[96];
	size_t size = (size_t)range->length;
	if (atomic_fetch_add(&memory, size) + size > MEMORY_MAX) {
		(void)atomic_fetch_sub(&memory, size);
		ServeReply busy = serve_reply_error(MHD_HTTP_SERVICE_UNAVAILABLE, "TOOMANYREQUESTS",
						    "this node is busy; ask another");
		serve_reply_header(&busy, MHD_HTTP_HEADER_RETRY_AFTER, "1");
		return serve_reply_send(request, &busy);
	}
	uint64_t *block = malloc(sizeof(*block) + size);
	uint8_t *bytes = block ? (uint8_t *)(block + 1) : NULL;
	int r = block ? fetch_share_read(request->server->share, &request->route.digest, range->offset, size, bytes)
		      : -ENOMEM;
	if (r < 0) {
		free(block);
		(void)atomic_fetch_sub(&memory, size);
		return r == -ENODATA || r == -ENOENT ? send_lacking(request, MHD_HTTP_NOT_FOUND)
						     : serve_send_fault(request, r, NULL);
	}
	*block = size;
	struct MHD_Response *response =
		MHD_create_response_from_buffer_with_free_callback_cls(size, bytes, free_counted, block);
	if (!response)
		free_counted(block);
	ServeReply reply = serve_reply_make(MHD_HTTP_PARTIAL_CONTENT, response, size);
	(void)snprintf(text, sizeof(text), "bytes %" PRIu64 "-%" PRIu64 "/%" PRIu64, range->offset,
		       range->offset + range->length - 1, total);
	serve_reply_header(&reply, MHD_HTTP_HEADER_CONTENT_RANGE, text);
	serve_reply_header(&reply, MHD_HTTP_HEADER_CONTENT_TYPE, "application/octet-stream");
	return serve_reply_send(request, &reply);
}

/* A config or a manifest; engines ask for either as a blob. */
static int open_small(FetchShare *share, const Digest *digest, ServeBlob *blob)
{
	_cleanup_free_ char *data = NULL;
	size_t size = 0;
	int r = fetch_share_config(share, digest, &data, &size);
	if (r == -ENOENT)
		r = fetch_share_manifest(share, digest, &data, &size);
	if (r < 0)
		return r;
	_cleanup_close_ int fd = memfd_create("imgfs-serve", MFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = fd_write_all(fd, data, size);
	if (r < 0)
		return r;
	blob->fd = TAKE_FD(fd);
	blob->size = size;
	return 0;
}

/* A layer as the tar that other engines want. */
static int open_tar(struct Server *server, const Digest *diff_id, ServeBlob *blob, Error *error)
{
	ManifestLayer layer;
	int r = fetch_share_layer(server->share, diff_id, &layer);
	if (r == 0)
		r = tar_cache_get(server->tars, &layer, &blob->tar, error);
	if (r == 0)
		blob->size = tar_stream_size(blob->tar);
	return r;
}

/* What is whole here. Errors: -ENOENT. */
static int open_whole(struct Server *server, const Digest *digest, ServeBlob *blob, Error *error)
{
	int r = fetch_share_blob_open(server->share, digest, &blob->shared);
	if (r == 0)
		blob->size = fetch_share_blob_size(blob->shared);
	if (r == -ENOENT)
		r = open_tar(server, digest, blob, error);
	return r == -ENOENT ? open_small(server->share, digest, blob) : r;
}

/* What the Range header of a GET means for a blob that need not be whole. */
static ServeRangeKind wanted_range(const ServeRequest *request, ServeRange *ret_range, uint64_t *ret_size)
{
	ServeRanges ranges;
	const char *range = request->head ? NULL : serve_request_header(request, MHD_HTTP_HEADER_RANGE);
	if (!range || serve_request_header(request, MHD_HTTP_HEADER_IF_RANGE) ||
	    serve_request_header(request, MHD_HTTP_HEADER_IF_NONE_MATCH) ||
	    fetch_share_size(request->server->share, &request->route.digest, ret_size) < 0)
		return SERVE_RANGE_WHOLE;
	serve_range_parse(range, *ret_size, &ranges);
	if (ranges.kind == SERVE_RANGE_PART)
		*ret_range = ranges.ranges[0];
	return ranges.kind;
}

/* One range, as imgfs asks for it, as far as its chunks are here; all else of what is whole. */
static enum MHD_Result send_blob(ServeRequest *request)
{
	ServeRange range = { 0 };
	uint64_t size = 0;
	Error error = { 0 };
	_cleanup_(serve_blob_done) ServeBlob blob = { .fd = -1 };
	ServeRangeKind kind = wanted_range(request, &range, &size);
	if (kind == SERVE_RANGE_PART && range.length <= RANGE_MAX)
		return send_part(request, &range, size);
	int r = open_whole(request->server, &request->route.digest, &blob, &error);
	if (r == -ENOENT)
		return send_lacking(request,
				    kind == SERVE_RANGE_WHOLE ? MHD_HTTP_NOT_FOUND : MHD_HTTP_RANGE_NOT_SATISFIABLE);
	return r < 0 ? serve_send_fault(request, r, &error) : serve_send_blob(request, &request->route.digest, &blob);
}

static enum MHD_Result send_profile(ServeRequest *request)
{
	uint8_t *data;
	size_t size;
	int r = fetch_share_profile(request->server->share, &request->route.digest, &data, &size);
	if (r == -ENOENT)
		return send_lacking(request, MHD_HTTP_NOT_FOUND);
	return r < 0 ? serve_send_fault(request, r, NULL) : serve_send_profile(request, data, size);
}

bool serve_mirror_answer(ServeRequest *request, enum MHD_Result *ret_result)
{
	switch (request->route.kind) {
	case SERVE_ROUTE_MANIFEST_TAG:
		*ret_result = send_tag(request);
		return true;
	case SERVE_ROUTE_MANIFEST_DIGEST:
		*ret_result = send_manifest(request, &request->route.digest);
		return true;
	case SERVE_ROUTE_BLOB:
		*ret_result = send_blob(request);
		return true;
	case SERVE_ROUTE_PROFILE:
		*ret_result = send_profile(request);
		return true;
	case SERVE_ROUTE_CATALOG:
	case SERVE_ROUTE_TAGS:
		*ret_result = serve_send_error(request, MHD_HTTP_NOT_FOUND, "UNSUPPORTED",
					       "a node's cache lists nothing; ask the registry itself");
		return true;
	case SERVE_ROUTE_BASE:
	case SERVE_ROUTE_HEALTH:
	case SERVE_ROUTE_METRICS:
	case SERVE_ROUTE_CA:
	case SERVE_ROUTE_NOT_FOUND:
	case SERVE_ROUTE_BAD_NAME:
	case SERVE_ROUTE_BAD_TAG:
	case SERVE_ROUTE_BAD_DIGEST:
	case SERVE_ROUTE_COUNT:
		return false;
	}
	return false;
}
