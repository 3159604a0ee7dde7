/* A request from its headers to its reply: who asks, whether they may, what they get. */
#include <string.h>
#include <strings.h>

#include "tools/serve/serve-request.h"

static enum MHD_Result send_text(ServeRequest *request, const char *type, char *text)
{
	size_t size = text ? strlen(text) : 0;
	ServeReply reply = serve_reply_make(MHD_HTTP_OK, serve_response_of(text, size), size);
	serve_reply_header(&reply, MHD_HTTP_HEADER_CONTENT_TYPE, type);
	return serve_reply_send(request, &reply);
}

static enum MHD_Result send_base(ServeRequest *request, const ServeRoute *route _unused_)
{
	return send_text(request, "application/json", strdup("{}"));
}

static enum MHD_Result send_health(ServeRequest *request, const ServeRoute *route _unused_)
{
	return send_text(request, "text/plain", strdup("ok\n"));
}

static enum MHD_Result send_metrics(ServeRequest *request, const ServeRoute *route _unused_)
{
	struct Server *server = request->server;
	return send_text(request, "text/plain; version=0.0.4",
			 serve_metrics_text(&server->metrics, server->tls ? serve_tls_not_after(server->tls) : 0));
}

static enum MHD_Result send_not_found(ServeRequest *request, const ServeRoute *route _unused_)
{
	return serve_send_error(request, MHD_HTTP_NOT_FOUND, "UNSUPPORTED", "this registry has no such end point");
}

/* For `imgfs trust`, which compares it with the fingerprint that this server printed at its start. */
static enum MHD_Result send_ca(ServeRequest *request, const ServeRoute *route)
{
	char *ca = request->server->tls ? serve_tls_ca(request->server->tls) : NULL;
	return ca ? send_text(request, "application/x-pem-file", ca) : send_not_found(request, route);
}

static enum MHD_Result send_bad_name(ServeRequest *request, const ServeRoute *route _unused_)
{
	return serve_send_error(request, MHD_HTTP_BAD_REQUEST, "NAME_INVALID",
				"a repository name is lower-case letters, digits and separators, as in team/image");
}

static enum MHD_Result send_bad_tag(ServeRequest *request, const ServeRoute *route _unused_)
{
	return serve_send_error(request, MHD_HTTP_NOT_FOUND, "MANIFEST_UNKNOWN",
				"neither a tag nor a digest, so the store has no such manifest");
}

static enum MHD_Result send_bad_digest(ServeRequest *request, const ServeRoute *route _unused_)
{
	return serve_send_error(request, MHD_HTTP_BAD_REQUEST, "DIGEST_INVALID",
				"a digest is \"sha256:\" and 64 lower-case hex digits");
}

static enum MHD_Result send_method_not_allowed(ServeRequest *request)
{
	ServeReply reply = serve_reply_error(MHD_HTTP_METHOD_NOT_ALLOWED, "UNSUPPORTED",
					     "this registry is read-only; images get in by `imgfs export`");
	serve_reply_header(&reply, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
	return serve_reply_send(request, &reply);
}

static enum MHD_Result send_unauthorized(ServeRequest *request)
{
	ServeReply reply = serve_reply_error(MHD_HTTP_UNAUTHORIZED, "UNAUTHORIZED",
					     "user and password are missing or wrong; `docker login` to this host");
	serve_reply_header(&reply, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Basic realm=\"imgfs\", charset=\"UTF-8\"");
	serve_metrics_add(&request->server->metrics.logins_refused, 1);
	return serve_reply_send(request, &reply);
}

/* Health and the authority's certificate are no secrets, and are asked for by those who cannot have credentials yet. */
static bool is_public(const ServeRoute *route)
{
	return route->kind == SERVE_ROUTE_HEALTH || route->kind == SERVE_ROUTE_CA;
}

/* Has the client shown the certificate that is wanted? Verified once a connection, in which it cannot change. */
static bool client_known(Connection *peer)
{
	if (!peer)
		return false;
	if (!peer->client_checked) {
		peer->client_known = serve_tls_client_known(peer->keys, peer->session);
		peer->client_checked = true;
	}
	return peer->client_known;
}

/* May the client have what it asks for? If not, it has been told so, with `ret_result`. */
static bool admit(ServeRequest *request, enum MHD_Result *ret_result)
{
	const struct Server *server = request->server;
	if (is_public(&request->route))
		return true;
	if (server->tls && !client_known(request->peer)) {
		*ret_result = serve_send_error(request, MHD_HTTP_FORBIDDEN, "DENIED",
					       "this server wants a client certificate of an authority it knows");
		return false;
	}
	if (server->auth &&
	    !serve_auth_check(server->auth, serve_request_header(request, MHD_HTTP_HEADER_AUTHORIZATION))) {
		*ret_result = send_unauthorized(request);
		return false;
	}
	return true;
}

static enum MHD_Result answer(ServeRequest *request)
{
	static enum MHD_Result (*const answers[SERVE_ROUTE_COUNT])(ServeRequest *, const ServeRoute *) = {
		[SERVE_ROUTE_BASE] = send_base,
		[SERVE_ROUTE_CATALOG] = serve_catalog,
		[SERVE_ROUTE_TAGS] = serve_tags,
		[SERVE_ROUTE_MANIFEST_TAG] = serve_manifest_by_tag,
		[SERVE_ROUTE_MANIFEST_DIGEST] = serve_manifest_by_digest,
		[SERVE_ROUTE_BLOB] = serve_blob,
		[SERVE_ROUTE_HEALTH] = send_health,
		[SERVE_ROUTE_METRICS] = send_metrics,
		[SERVE_ROUTE_CA] = send_ca,
		[SERVE_ROUTE_PROFILE] = serve_profile,
		[SERVE_ROUTE_NOT_FOUND] = send_not_found,
		[SERVE_ROUTE_BAD_NAME] = send_bad_name,
		[SERVE_ROUTE_BAD_TAG] = send_bad_tag,
		[SERVE_ROUTE_BAD_DIGEST] = send_bad_digest,
	};
	enum MHD_Result result;
	if (!admit(request, &result) || (request->server->share && serve_mirror_answer(request, &result)))
		return result;
	return answers[request->route.kind](request, &request->route);
}

static ServeRequest *request_free(ServeRequest *request)
{
	if (!request)
		return NULL;
	free(request->method);
	free(request->path);
	free(request->body);
	free(request);
	return NULL;
}

static ServeRequest *request_new(struct Server *server, struct MHD_Connection *connection, const char *path,
				 const char *method)
{
	ServeRequest *request = calloc(1, sizeof(*request));
	if (!request)
		return NULL;
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	request->server = server;
	request->connection = connection;
	request->peer = info ? info->socket_context : NULL;
	request->method = strdup(method);
	request->path = strdup(path);
	request->head = strcmp(method, MHD_HTTP_METHOD_HEAD) == 0;
	serve_route_parse(path, &request->route);
	(void)clock_gettime(CLOCK_MONOTONIC, &request->started);
	return request->method && request->path ? request : request_free(request);
}

/* Does a body follow the headers? A GET has none worth reading (RFC 9110 section 9.3.1). */
static bool announces_body(const ServeRequest *request)
{
	const char *length = serve_request_header(request, MHD_HTTP_HEADER_CONTENT_LENGTH);
	return serve_request_header(request, MHD_HTTP_HEADER_TRANSFER_ENCODING) ||
	       (length && strspn(length, "0") != strlen(length));
}

static enum MHD_Result count_lengths(void *arg, enum MHD_ValueKind kind _unused_, const char *name,
				     const char *value _unused_)
{
	*(unsigned *)arg += strcasecmp(name, MHD_HTTP_HEADER_CONTENT_LENGTH) == 0;
	return MHD_YES;
}

/* RFC 9112 section 6.3: of two lengths a proxy in front may believe the other one, and what then seems to be a request is none. */
static bool has_two_lengths(const ServeRequest *request)
{
	unsigned count = 0;
	(void)MHD_get_connection_values(request->connection, MHD_HEADER_KIND, count_lengths, &count);
	return count > 1;
}

static enum MHD_Result send_two_lengths(ServeRequest *request)
{
	ServeReply reply = serve_reply_error(MHD_HTTP_BAD_REQUEST, "UNSUPPORTED", "a request has one length at most");
	serve_reply_header(&reply, MHD_HTTP_HEADER_CONNECTION, "close");
	return serve_reply_send(request, &reply);
}

enum MHD_Result serve_handle(void *arg, struct MHD_Connection *connection, const char *path, const char *method,
			     const char *version _unused_, const char *data, size_t *data_size, void **context)
{
	ServeRequest *request = *context;
	if (request) {
		if (*data_size == 0)
			return request->puts ? serve_profile_put(request) : answer(request);
		/* The reply to any other request with a body was queued before it came. */
		bool taken = request->puts && serve_profile_collect(request, data, *data_size);
		*data_size = 0;
		return taken ? MHD_YES : MHD_NO;
	}
	struct Server *server = arg;
	request = request_new(server, connection, path, method);
	if (!request)
		return MHD_NO;
	*context = request;
	if (request->peer)
		connections_busy(server->connections, request->peer);
	if (has_two_lengths(request))
		return send_two_lengths(request);
	if (server->accept_profiles && request->route.kind == SERVE_ROUTE_PROFILE &&
	    strcmp(method, MHD_HTTP_METHOD_PUT) == 0) {
		enum MHD_Result result;
		return admit(request, &result) ? serve_profile_begin(request, &request->puts) : result;
	}
	/* An upload is refused before its body comes, and the connection ends with that reply. */
	if (!request->head && strcmp(method, MHD_HTTP_METHOD_GET) != 0)
		return send_method_not_allowed(request);
	if (announces_body(request))
		return serve_send_error(request, MHD_HTTP_BAD_REQUEST, "UNSUPPORTED",
					"a request that reads has no body here");
	return MHD_YES;
}

static double seconds_since(const struct timespec *then)
{
	struct timespec now;
	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)(now.tv_sec - then->tv_sec) + (double)(now.tv_nsec - then->tv_nsec) / 1e9;
}

void serve_completed(void *arg, struct MHD_Connection *connection _unused_, void **context,
		     enum MHD_RequestTerminationCode end)
{
	struct Server *server = arg;
	ServeRequest *request = *context;
	if (!request)
		return;
	bool complete = end == MHD_REQUEST_TERMINATED_COMPLETED_OK;
	double seconds = seconds_since(&request->started);
	serve_metrics_request(&server->metrics, request->route.kind, request->status, request->length, complete,
			      seconds);
	if (server->access_log >= 0)
		serve_log_request(request, seconds, complete);
	if (request->peer)
		connections_idle(server->connections, request->peer);
	*context = request_free(request);
}
