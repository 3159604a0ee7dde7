/*
 * The read-only registry over a store: OCI distribution-spec 1.1 "pull" and "content discovery" (tags), for any client, and
 * the imgfs blobs by range. It has threads of its own. It logs (fs/base/log.h) what the operator has to look after: a corrupt
 * or unreadable object, once a request.
 *
 * Memory: 32 MiB of decoded chunks, at most 64 MiB of chunk tables of layers that are served as tars, and for each connection what
 * docs/operations.md says, whatever it asks for and however slowly it reads.
 */
#pragma once

#include "fs/cache/cache-store.h"
#include "tools/export/store.h"
#include "tools/serve/serve-auth.h"
#include "tools/serve/serve-tls.h"

typedef struct ServeOptions {
	Store *store;         /* not taken; outlives the server; NULL: `cache` instead */
	CacheStore *cache;    /* of a node, to be a mirror of what it has; not taken; outlives the server */
	int listen_fd;        /* of serve_listen(); taken over by a server that starts */
	int access_log_fd;    /* a line a request, in one write(); -1: none; not taken */
	unsigned connections; /* at most this many at a time; further ones are closed at once */
	unsigned per_address; /* and this many from one address; 0: as many */
	ServeTls *tls;        /* not taken; NULL: plain HTTP */
	ServeAuth *auth;      /* not taken; NULL: anyone may read */
	bool accept_profiles; /* start-up profiles may be handed in; only where all clients are known by `tls` or `auth` */
	/* Milliseconds in which a connection must have sent its first request, and the next after a reply; 0: 20 and 60 seconds. */
	unsigned first_request, next_request;
} ServeOptions;

typedef struct Server Server;

/* Starts serving and returns. Errors: -ENOMEM, -EIO, with a sentence. */
int server_start(const ServeOptions *options, Server **ret_server, Error *error) _must_check_;

/* Takes no more connections, ends idle ones, and waits until the others have what they asked for, `milliseconds` at most. */
void server_drain(Server *server, unsigned milliseconds);

/* Closes socket and connections, ends the threads; blocks for the reads under way. Returns NULL. */
Server *server_stop(Server *server);
DEFINE_CLEANUP(Server, server_stop);
