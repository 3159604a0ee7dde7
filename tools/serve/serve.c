#include "tools/serve/serve.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "fs/base/fd.h"
#include "tools/serve/serve-listen.h"
#include "tools/serve/serve-request.h"

/* Chunk tables are some 400 kB for a layer of 1 GB. */
#define TAR_STREAMS_MAX 128
#define TAR_MEMORY_MAX  (64u << 20)

#define IDLE_SECONDS 60u

static enum MHD_Result send_base(ServeRequest *request, const ServeRoute *route _unused_)
{
	static char body[] = "{}";
	ServeReply reply = serve_reply_make(
		MHD_HTTP_OK, MHD_create_response_from_buffer(sizeof(body) - 1, body, MHD_RESPMEM_PERSISTENT),
		sizeof(body) - 1);
	serve_reply_header(&reply, MHD_HTTP_HEADER_CONTENT_TYPE, "application/json");
	return serve_reply_send(request, &reply);
}

static enum MHD_Result send_health(ServeRequest *request, const ServeRoute *route _unused_)
{
	static char body[] = "ok\n";
	ServeReply reply = serve_reply_make(
		MHD_HTTP_OK, MHD_create_response_from_buffer(sizeof(body) - 1, body, MHD_RESPMEM_PERSISTENT),
		sizeof(body) - 1);
	serve_reply_header(&reply, MHD_HTTP_HEADER_CONTENT_TYPE, "text/plain");
	return serve_reply_send(request, &reply);
}

static enum MHD_Result send_not_found(ServeRequest *request, const ServeRoute *route _unused_)
{
	return serve_send_error(request, MHD_HTTP_NOT_FOUND, "UNSUPPORTED", "this registry has no such end point");
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

static enum MHD_Result answer(ServeRequest *request)
{
	static enum MHD_Result (*const answers[])(ServeRequest *, const ServeRoute *) = {
		[SERVE_ROUTE_BASE] = send_base,
		[SERVE_ROUTE_CATALOG] = serve_catalog,
		[SERVE_ROUTE_TAGS] = serve_tags,
		[SERVE_ROUTE_MANIFEST_TAG] = serve_manifest_by_tag,
		[SERVE_ROUTE_MANIFEST_DIGEST] = serve_manifest_by_digest,
		[SERVE_ROUTE_BLOB] = serve_blob,
		[SERVE_ROUTE_HEALTH] = send_health,
		[SERVE_ROUTE_NOT_FOUND] = send_not_found,
		[SERVE_ROUTE_BAD_NAME] = send_bad_name,
		[SERVE_ROUTE_BAD_TAG] = send_bad_tag,
		[SERVE_ROUTE_BAD_DIGEST] = send_bad_digest,
	};
	ServeRoute route;
	serve_route_parse(request->path, &route);
	return answers[route.kind](request, &route);
}

static ServeRequest *request_free(ServeRequest *request)
{
	if (!request)
		return NULL;
	free(request->method);
	free(request->path);
	free(request);
	return NULL;
}

static ServeRequest *request_new(struct Server *server, struct MHD_Connection *connection, const char *path,
				 const char *method)
{
	ServeRequest *request = calloc(1, sizeof(*request));
	if (!request)
		return NULL;
	request->server = server;
	request->connection = connection;
	request->method = strdup(method);
	request->path = strdup(path);
	request->head = strcmp(method, MHD_HTTP_METHOD_HEAD) == 0;
	(void)clock_gettime(CLOCK_MONOTONIC, &request->started);
	return request->method && request->path ? request : request_free(request);
}

/*
 * Called by libmicrohttpd first when the headers are there, then for pieces of a body, then at the request's end, which is when
 * the reply is queued. `*context` is the request, freed by completed().
 */
static enum MHD_Result handle(void *arg, struct MHD_Connection *connection, const char *path, const char *method,
			      const char *version _unused_, const char *data _unused_, size_t *data_size,
			      void **context)
{
	ServeRequest *request = *context;
	bool readable = strcmp(method, MHD_HTTP_METHOD_GET) == 0 || strcmp(method, MHD_HTTP_METHOD_HEAD) == 0;
	if (!request) {
		request = request_new(arg, connection, path, method);
		if (!request)
			return MHD_NO;
		*context = request;
		/* An upload is refused before its body comes. */
		return readable ? MHD_YES : send_method_not_allowed(request);
	}
	/* A GET has no body worth reading (RFC 9110 section 9.3.1): whoever sends one is cut off. */
	if (*data_size > 0)
		return MHD_NO;
	return answer(request);
}

/* Copies `text` so that it cannot break a line of the log or a quoted field. */
static void log_safe(const char *text, char *ret_text, size_t size)
{
	size_t used = 0;
	for (; *text && used + sizeof("\\xff") < size; text++) {
		unsigned char byte = (unsigned char)*text;
		if (byte > ' ' && byte < 0x7f && byte != '"' && byte != '\\')
			ret_text[used++] = *text;
		else
			used += (size_t)snprintf(ret_text + used, size - used, "\\x%02x", byte);
	}
	ret_text[used] = '\0';
}

static double seconds_since(const struct timespec *then)
{
	struct timespec now;
	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)(now.tv_sec - then->tv_sec) + (double)(now.tv_nsec - then->tv_nsec) / 1e9;
}

/* `time peer method path status length seconds end`; length is what was announced, end tells whether it was sent. */
static void write_access_log(const ServeRequest *request, enum MHD_RequestTerminationCode end)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(request->connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
	char peer[SERVE_ADDRESS_TEXT] = "?", method[32], path[1024], date[32], line[1280];
	if (info && info->client_addr)
		(void)serve_address_text(info->client_addr, peer);
	log_safe(request->method, method, sizeof(method));
	log_safe(request->path, path, sizeof(path));
	time_t now = time(NULL);
	struct tm utc;
	(void)strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
	int length = snprintf(line, sizeof(line), "%s %s %s %s %u %" PRIu64 " %.6f %s\n", date, peer, method, path,
			      request->status, request->length, seconds_since(&request->started),
			      end == MHD_REQUEST_TERMINATED_COMPLETED_OK ? "ok" : "cut");
	/* Serving goes on when the log's disk is full. */
	if (length > 0 && fd_write_all(request->server->access_log, line, (size_t)length) < 0)
		return;
}

static void completed(void *arg _unused_, struct MHD_Connection *connection _unused_, void **context,
		      enum MHD_RequestTerminationCode end)
{
	ServeRequest *request = *context;
	if (request && request->server->access_log >= 0)
		write_access_log(request, end);
	*context = request_free(request);
}

/* Escapes stay as they came: serve-route.c decodes them, and refuses what MHD would let through. */
static size_t keep_escapes(void *arg _unused_, struct MHD_Connection *connection _unused_, char *text)
{
	return strlen(text);
}

/*
 * A thread a connection: reading the disk and decoding a tar block, and one client's must not hold up another's. An epoll pool
 * needs about the same processor time for a byte, so nothing is paid for that but some 50 kB a connection.
 */
static struct MHD_Daemon *start_daemon(struct Server *server, const ServeOptions *options)
{
	const unsigned flags =
		MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION | MHD_USE_POLL | MHD_USE_ITC;
	return MHD_start_daemon(flags, 0, NULL, NULL, handle, server, MHD_OPTION_LISTEN_SOCKET, options->listen_fd,
				MHD_OPTION_CONNECTION_LIMIT, options->connections, MHD_OPTION_CONNECTION_TIMEOUT,
				IDLE_SECONDS, MHD_OPTION_NOTIFY_COMPLETED, completed, NULL,
				MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes, NULL, MHD_OPTION_END);
}

int server_start(const ServeOptions *options, Server **ret_server, Error *error)
{
	Server *server = calloc(1, sizeof(*server));
	if (!server)
		return error_set(error, -ENOMEM, "no memory to start the server");
	server->store = options->store;
	server->access_log = options->access_log_fd;
	int r = tar_cache_new(options->store, TAR_STREAMS_MAX, TAR_MEMORY_MAX, &server->tars);
	if (r < 0) {
		free(server);
		return error_set(error, r, "no memory to start the server");
	}
	server->daemon = start_daemon(server, options);
	if (!server->daemon) {
		(void)server_stop(server);
		return error_set(error, -EIO,
				 "the HTTP server did not start; is the limit of threads or open files reached?");
	}
	*ret_server = server;
	return 0;
}

Server *server_stop(Server *server)
{
	if (!server)
		return NULL;
	if (server->daemon)
		MHD_stop_daemon(server->daemon);
	(void)tar_cache_free(server->tars);
	free(server);
	return NULL;
}
