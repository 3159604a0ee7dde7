#include <jansson.h>
#include <string.h>

#include "fs/base/log.h"
#include "tools/serve/serve-request.h"

const char *serve_request_header(const ServeRequest *request, const char *name)
{
	return MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, name);
}

int serve_request_argument(const ServeRequest *request, const char *name, char *ret_value, size_t size)
{
	const char *raw = MHD_lookup_connection_value(request->connection, MHD_GET_ARGUMENT_KIND, name);
	if (!raw)
		return 0;
	return serve_route_unescape(raw, ret_value, size) ? 1 : -EINVAL;
}

void serve_reply_header(ServeReply *reply, const char *name, const char *value)
{
	if (reply->response && MHD_add_response_header(reply->response, name, value) != MHD_YES)
		reply->broken = true;
}

ServeReply serve_reply_make(unsigned status, struct MHD_Response *response, uint64_t length)
{
	ServeReply reply = { .status = status, .length = length, .response = response, .broken = !response };
	/* docker looks for it on /v2/; registries put it on every answer. */
	serve_reply_header(&reply, "Docker-Distribution-Api-Version", "registry/2.0");
	serve_reply_header(&reply, "X-Content-Type-Options", "nosniff");
	return reply;
}

enum MHD_Result serve_reply_send(ServeRequest *request, ServeReply *reply)
{
	enum MHD_Result result = MHD_NO;
	if (!reply->broken) {
		request->status = reply->status;
		request->length = request->head ? 0 : reply->length;
		result = MHD_queue_response(request->connection, reply->status, reply->response);
	}
	if (reply->response)
		MHD_destroy_response(reply->response);
	*reply = (ServeReply){ .broken = true };
	return result;
}

struct MHD_Response *serve_response_of(char *data, size_t size)
{
	if (!data)
		return NULL;
	struct MHD_Response *response = MHD_create_response_from_buffer(size, data, MHD_RESPMEM_MUST_FREE);
	if (!response)
		free(data);
	return response;
}

ServeReply serve_reply_error(unsigned status, const char *code, const char *message)
{
	json_t *body = json_pack("{s: [{s: s, s: s}]}", "errors", "code", code, "message", message);
	char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
	json_decref(body);
	size_t size = text ? strlen(text) : 0;
	ServeReply reply = serve_reply_make(status, serve_response_of(text, size), size);
	serve_reply_header(&reply, MHD_HTTP_HEADER_CONTENT_TYPE, "application/json");
	return reply;
}

enum MHD_Result serve_send_error(ServeRequest *request, unsigned status, const char *code, const char *message)
{
	ServeReply reply = serve_reply_error(status, code, message);
	return serve_reply_send(request, &reply);
}

const char *serve_way_out(const struct Server *server)
{
	return server->share ? "`imgfs cache verify` drops what is rotten"
			     : "see what else is by `imgfs verify --all`, and export the image again with --verify";
}

enum MHD_Result serve_send_fault(ServeRequest *request, int code, const Error *error)
{
	log_error("request failed path=%s error=\"%s\"", request->path, error_text(error, code));
	/* The sentence names files of this host; the client learns that it is not the client's fault. */
	return serve_send_error(request, MHD_HTTP_INTERNAL_SERVER_ERROR, "UNKNOWN",
				"the server cannot read this object; its log says why");
}
