/* What the parts of the server share: loop, connections, calls. All but `job` of a call is the loop thread's. */
#pragma once

#include <pthread.h>
#include <uthash.h>

#include "snapshotter/wire-pool.h"
#include "snapshotter/wire-server.h"
#include "snapshotter/wire-session.h"

typedef struct WireConnection WireConnection;

typedef struct WireTask {
	WireCall call;
	WireJob job; /* in the pool, then in the server's list of those done */
	WireServer *server;
	const WireMethod *method;
	Buffer message;
	int result;
	Error error;

	int32_t stream;
	WireConnection *connection; /* NULL: closed */
	bool running;               /* between wire_pool_add() and wire_server_collect() */
	UT_hash_handle hh;          /* in the connection's `tasks` */
} WireTask;

struct WireConnection {
	WireConnection *prev, *next;
	WireServer *server;
	int fd;
	WireSession *session;
	WireTask *tasks; /* by stream */
	Buffer output;   /* taken from the session, not yet written from `written` on */
	size_t written;
	bool wants_write; /* is in the epoll set for writing, too */
	bool failed;      /* what came is no HTTP/2: nothing more is taken */
	bool lingers;     /* all is written and the write side shut: waits for the other's end */
	bool dead;        /* to be freed at the end of the turn */
};

struct WireServer {
	WireServerOptions options;
	int epoll_fd;
	int done_fd; /* an eventfd: tasks are in `done` */
	WirePool *pool;
	WireConnection *connections;
	size_t tasks; /* running */
	bool stopping;
	int64_t deaf_until; /* no connection is accepted before: descriptors had run out; 0: one is */

	pthread_mutex_t lock;
	WireJob *done; /* under the lock */
};

/* A connection that was accepted; takes `fd` also when it fails. */
int wire_connection_new(WireServer *server, int fd, WireConnection **ret_connection) _must_check_;
WireConnection *wire_connection_free(WireConnection *connection);

/* Reads what is there, and writes what came of it. Marks the connection dead when it is at its end. */
void wire_connection_read(WireConnection *connection);
void wire_connection_write(WireConnection *connection);

/* Hands a task to the pool. */
void wire_task_start(WireTask *task);
WireTask *wire_task_free(WireTask *task);
