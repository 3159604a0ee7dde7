/* Inside the server: one request on its way to its reply. A request belongs to the thread that serves its connection. */
#pragma once

#include <microhttpd.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "fs/fetch/fetch-share.h"
#include "tools/export/store.h"
#include "tools/serve/chunk-cache.h"
#include "tools/serve/connections.h"
#include "tools/serve/serve-auth.h"
#include "tools/serve/serve-body.h"
#include "tools/serve/serve-metrics.h"
#include "tools/serve/serve-route.h"
#include "tools/serve/serve-tls.h"
#include "tools/serve/tar-cache.h"

struct Server {
	Store *store;      /* not owned; NULL: `share` instead */
	FetchShare *share; /* owned; NULL: `store` instead */
	int access_log;    /* not owned; -1: none */
	ServeTls *tls;     /* not owned; NULL: plain HTTP */
	ServeAuth *auth;   /* not owned; NULL: anyone may read */
	bool accept_profiles;
	ServeMetrics metrics;
	TarCache *tars;
	ChunkCache *chunks;
	Connections *connections;
	struct MHD_Daemon *daemon;
};

typedef struct ServeRequest {
	struct Server *server;
	struct MHD_Connection *connection;
	Connection *peer; /* the same connection, as this side counts it */
	ServeRoute route;
	char *method; /* as they came, owned; for the access log */
	char *path;
	bool head;
	struct timespec started;
	unsigned status; /* of the reply; 0 before there is one */
	uint64_t length; /* of the reply's body */
	bool puts;       /* a profile that may be put; its body comes in pieces */
	uint8_t *body;   /* what of it has come; owned */
	size_t body_size, body_limit;
} ServeRequest;

/*
 * What libmicrohttpd calls: when the headers are there, for pieces of a body, at the request's end, which is when the reply is queued;
 * and when the reply has ended. `*context` is the request.
 */
enum MHD_Result serve_handle(void *arg, struct MHD_Connection *connection, const char *path, const char *method,
			     const char *version, const char *data, size_t *data_size, void **context);
void serve_completed(void *arg, struct MHD_Connection *connection, void **context, enum MHD_RequestTerminationCode end);

/* A line of the access log: `time peer method path status length seconds end`. */
void serve_log_request(const ServeRequest *request, double seconds, bool complete);

/* The value of a request header, or NULL. */
const char *serve_request_header(const ServeRequest *request, const char *name);

/* Copies a query argument, decoded, to `ret_value`: 1; 0 when it is not there. Errors: -EINVAL (too long, a broken escape). */
int serve_request_argument(const ServeRequest *request, const char *name, char *ret_value, size_t size) _must_check_;

/*
 * A reply being made. Headers that do not fit into memory are noted and found out by serve_reply_send(); MHD_NO from it makes
 * the connection end. `response` is taken over by send.
 */
typedef struct ServeReply {
	unsigned status;
	uint64_t length; /* of the body, for the access log */
	struct MHD_Response *response;
	bool broken;
} ServeReply;

/* An empty reply with the headers every reply has. */
ServeReply serve_reply_make(unsigned status, struct MHD_Response *response, uint64_t length);
void serve_reply_header(ServeReply *reply, const char *name, const char *value);
enum MHD_Result serve_reply_send(ServeRequest *request, ServeReply *reply);

/* A body in memory, taken over (malloc'ed). NULL: memory was out. */
struct MHD_Response *serve_response_of(char *data, size_t size);

/* The JSON error body of distribution-spec, "Error Codes". */
ServeReply serve_reply_error(unsigned status, const char *code, const char *message);
enum MHD_Result serve_send_error(ServeRequest *request, unsigned status, const char *code, const char *message);

/* 500 for a fault of this side, logged with its sentence. */
enum MHD_Result serve_send_fault(ServeRequest *request, int code, const Error *error);

/* What the operator can do about a corrupt object of what is served; for the log. */
const char *serve_way_out(const struct Server *server);

/* A manifest, or a blob with its ranges, whosever it is. `json`, and what `blob` has, are taken over. */
enum MHD_Result serve_send_manifest(ServeRequest *request, const Digest *digest, char *json, size_t size);
enum MHD_Result serve_send_blob(ServeRequest *request, const Digest *digest, ServeBlob *blob);

/* Answers from a cache what depends on what is served (serve-mirror.c); false: it does not. */
bool serve_mirror_answer(ServeRequest *request, enum MHD_Result *ret_result);

/* A start-up profile; `data` is taken over. */
enum MHD_Result serve_send_profile(ServeRequest *request, uint8_t *data, size_t size);

/* What the routes answer. */
enum MHD_Result serve_manifest_by_tag(ServeRequest *request, const ServeRoute *route);
enum MHD_Result serve_manifest_by_digest(ServeRequest *request, const ServeRoute *route);
enum MHD_Result serve_blob(ServeRequest *request, const ServeRoute *route);
enum MHD_Result serve_tags(ServeRequest *request, const ServeRoute *route);
enum MHD_Result serve_catalog(ServeRequest *request, const ServeRoute *route);
enum MHD_Result serve_profile(ServeRequest *request, const ServeRoute *route);

/*
 * A profile that is handed in (serve-profile.c): what its headers say is looked at before its body is taken. Returns the reply's result, or
 * sets `ret_goes_on`. Then each piece is collected, and at the end what came is judged and answered.
 */
enum MHD_Result serve_profile_begin(ServeRequest *request, bool *ret_goes_on);
bool serve_profile_collect(ServeRequest *request, const char *data, size_t size);
enum MHD_Result serve_profile_put(ServeRequest *request);
