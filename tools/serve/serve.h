/*
 * The read-only registry over a store: OCI distribution-spec 1.1 "pull" and "content discovery" (tags), for any client, and
 * the imgfs blobs by range. It has threads of its own. It logs (fs/base/log.h) what the operator has to look after: a corrupt
 * or unreadable object, once a request.
 */
#pragma once

#include "tools/export/store.h"

typedef struct ServeOptions {
	Store *store;         /* not taken; outlives the server */
	int listen_fd;        /* of serve_listen(); taken over by a server that starts */
	int access_log_fd;    /* a line a request, in one write(); -1: none; not taken */
	unsigned connections; /* at most this many at a time; further ones are closed at once */
} ServeOptions;

typedef struct Server Server;

/* Starts serving and returns. Errors: -ENOMEM, -EIO, with a sentence. */
int server_start(const ServeOptions *options, Server **ret_server, Error *error) _must_check_;

/* Closes socket and connections, ends the threads; blocks for the reads under way. Returns NULL. */
Server *server_stop(Server *server);
DEFINE_CLEANUP(Server, server_stop);
