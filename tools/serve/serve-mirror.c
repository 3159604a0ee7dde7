/* A node's cache as a mirror: what it has of manifests and blobs. Whatever it lacks, somebody else is to be asked. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
	char text[DIGEST_TEXT_SIZE], *json;
	size_t size;
	int r = fetch_share_manifest(request->server->share, digest, &json, &size);
	if (r == -ENOENT)
		return serve_send_error(request, MHD_HTTP_NOT_FOUND, "MANIFEST_UNKNOWN",
					"this node has no such manifest; ask another");
	if (r < 0)
		return serve_send_fault(request, r, NULL);
	ServeReply reply = serve_reply_make(MHD_HTTP_OK, serve_response_of(json, size), size);
	serve_reply_header(&reply, MHD_HTTP_HEADER_CONTENT_TYPE, MANIFEST_MEDIA_TYPE);
	serve_reply_header(&reply, "Docker-Content-Digest", digest_text(digest, text));
	return serve_reply_send(request, &reply);
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

/* One range of a blob; the whole of one is nothing that those who know of a cache ask for. */
static enum MHD_Result send_blob(ServeRequest *request)
{
	ServeRanges ranges;
	uint64_t size;
	int r = fetch_share_size(request->server->share, &request->route.digest, &size);
	if (r == -ENOENT)
		return send_lacking(request, MHD_HTTP_NOT_FOUND);
	if (r < 0)
		return serve_send_fault(request, r, NULL);
	serve_range_parse(request->head ? NULL : serve_request_header(request, MHD_HTTP_HEADER_RANGE), size, &ranges);
	if (ranges.kind == SERVE_RANGE_PART && ranges.ranges[0].length <= RANGE_MAX)
		return send_part(request, &ranges.ranges[0], size);
	return send_lacking(request,
			    ranges.kind == SERVE_RANGE_WHOLE ? MHD_HTTP_NOT_FOUND : MHD_HTTP_RANGE_NOT_SATISFIABLE);
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
	case SERVE_ROUTE_CATALOG:
	case SERVE_ROUTE_TAGS:
	case SERVE_ROUTE_PROFILE:
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
