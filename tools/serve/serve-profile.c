/* Start-up profiles: given to nodes, and taken from those that recorded one. */
#include <stdlib.h>
#include <string.h>

#include "fs/base/log.h"
#include "tools/serve/serve-request.h"

static enum MHD_Result send_unknown(ServeRequest *request)
{
	return serve_send_error(request, MHD_HTTP_NOT_FOUND, "BLOB_UNKNOWN",
				"the store has no start-up profile of this image");
}

enum MHD_Result serve_send_profile(ServeRequest *request, uint8_t *data, size_t size)
{
	ServeReply reply = serve_reply_make(MHD_HTTP_OK, serve_response_of((char *)data, size), size);
	serve_reply_header(&reply, MHD_HTTP_HEADER_CONTENT_TYPE, PROFILE_MEDIA_TYPE);
	/* Another may take its place. */
	serve_reply_header(&reply, MHD_HTTP_HEADER_CACHE_CONTROL, "no-cache");
	return serve_reply_send(request, &reply);
}

enum MHD_Result serve_profile(ServeRequest *request, const ServeRoute *route)
{
	uint8_t *data;
	size_t size;
	int r = store_profile_get(request->server->store, &route->digest, &data, &size);
	if (r == -ENOENT)
		return send_unknown(request);
	return r < 0 ? serve_send_fault(request, r, NULL) : serve_send_profile(request, data, size);
}

/* One profile for each image of the store, so that what may be written is bounded. */
static bool has_image(Store *store, const Digest *manifest)
{
	int fd;
	uint64_t size;
	if (store_blob_open(store, manifest, &fd, &size) < 0)
		return false;
	(void)close(fd);
	return true;
}

enum MHD_Result serve_profile_begin(ServeRequest *request, bool *ret_goes_on)
{
	const char *text = serve_request_header(request, MHD_HTTP_HEADER_CONTENT_LENGTH);
	char *end = NULL;
	unsigned long size = text ? strtoul(text, &end, 10) : 0;
	if (!text || end == text || *end)
		return serve_send_error(request, MHD_HTTP_LENGTH_REQUIRED, "SIZE_INVALID",
					"a start-up profile comes with its length");
	if (size > PROFILE_SIZE_MAX)
		return serve_send_error(request, MHD_HTTP_CONTENT_TOO_LARGE, "SIZE_INVALID",
					"no start-up profile is so long");
	if (!has_image(request->server->store, &request->route.digest))
		return serve_send_error(request, MHD_HTTP_NOT_FOUND, "MANIFEST_UNKNOWN",
					"the store has no such image, so it wants no profile of it");
	request->body = malloc(size + 1);
	if (!request->body)
		return serve_send_fault(request, -ENOMEM, NULL);
	request->body_limit = size;
	*ret_goes_on = true;
	return MHD_YES;
}

bool serve_profile_collect(ServeRequest *request, const char *data, size_t size)
{
	if (size > request->body_limit - request->body_size)
		return false;
	memcpy(request->body + request->body_size, data, size);
	request->body_size += size;
	return true;
}

static enum MHD_Result send_created(ServeRequest *request)
{
	ServeReply reply =
		serve_reply_make(MHD_HTTP_CREATED, MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT), 0);
	return serve_reply_send(request, &reply);
}

enum MHD_Result serve_profile_put(ServeRequest *request)
{
	Error error = { 0 };
	Profile profile = { 0 };
	int r = profile_decode(request->body, request->body_size, &profile, &error);
	if (r == 0 && !digest_equal(&profile.manifest, &request->route.digest))
		r = error_set(&error, -EBADMSG, "the start-up profile is of another image");
	if (r < 0) {
		profile_done(&profile);
		return r == -ENOMEM
			       ? serve_send_fault(request, r, &error)
			       : serve_send_error(request, MHD_HTTP_BAD_REQUEST, "BLOB_UPLOAD_INVALID", error.message);
	}
	/* The first one stays: who hands in another has to take it to the build host. */
	r = store_profile_put(request->server->store, &profile, false, &error);
	profile_done(&profile);
	if (r == -EEXIST)
		return serve_send_error(request, MHD_HTTP_CONFLICT, "DENIED",
					"there is one already; `imgfs profile import` on the build host replaces it");
	if (r < 0)
		return serve_send_fault(request, r, &error);
	log_info("took a start-up profile path=%s bytes=%zu", request->path, request->body_size);
	return send_created(request);
}
