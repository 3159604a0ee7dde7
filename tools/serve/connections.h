/*
 * The open connections, each with the time by which it must have sent a request. Headers that trickle in, TLS handshakes that stop and
 * connections that stay idle end then; a thread of its own sees to it. Any thread may call.
 */
#pragma once

#include <gnutls/gnutls.h>
#include <stdbool.h>

#include "fs/base/error.h"
#include "tools/serve/serve-metrics.h"
#include "tools/serve/serve-tls.h"

typedef struct Connections Connections;

typedef struct Connection {
	struct Connection *prev, *next;
	int fd;                   /* open while the connection is in the list */
	int64_t deadline;         /* monotonic milliseconds; INT64_MAX while a request is served */
	bool cut;                 /* was shut down */
	gnutls_session_t session; /* NULL: no TLS */
	ServeTlsKeys *keys;       /* owned */
	bool client_checked, client_known;
} Connection;

typedef struct ConnectionsOptions {
	int64_t first_request; /* milliseconds from the connection to the end of its first headers */
	int64_t next_request;  /* and from the end of a reply to that of the next headers */
} ConnectionsOptions;

int connections_new(const ConnectionsOptions *options, ServeMetrics *metrics, Connections **ret_connections)
	_must_check_;
Connections *connections_free(Connections *connections); /* all must be closed */
DEFINE_CLEANUP(Connections, connections_free);

/* A connection was accepted: NULL when memory is out, and then it is shut down. `keys` is taken over. */
Connection *connections_add(Connections *connections, int fd, gnutls_session_t session, ServeTlsKeys *keys);

/* Before its descriptor is closed. */
void connections_remove(Connections *connections, Connection *connection);

/* A request's headers are there; its reply has ended. */
void connections_busy(Connections *connections, Connection *connection);
void connections_idle(Connections *connections, Connection *connection);

/* Shuts idle connections down, now and when they become idle, and waits `milliseconds` for the others at most. */
void connections_drain(Connections *connections, int64_t milliseconds);
