/*
 * The gRPC server: one thread with an epoll loop has the sockets and their sessions; handlers run on a pool's threads, so that no call is
 * held up by a slow one (containerd opens one connection for all of its calls). A reply is matched with its stream by number and
 * thrown away when the client has gone meanwhile.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>

#include "fs/base/error.h"
#include "fs/format/buffer.h"

#define WIRE_THREADS_MAX 192

/* One call, owned by the server; the handler's while it runs. */
typedef struct WireCall {
	const uint8_t *message; /* the request */
	size_t size;
	uint64_t cursor; /* the handler's own, 0 at first */
	bool again;      /* set by the handler of a streamed reply: call it again once the client has what there is */
	Buffer reply;    /* whole messages with their prefixes: wire_call_message() */
	atomic_bool cancelled; /* nobody waits for the answer any more; what was done stays done */
} WireCall;

/* Room for a message of `size` bytes in the reply; valid until the next call. NULL when memory is out, or for more than WIRE_MESSAGE_MAX. */
uint8_t *wire_call_message(WireCall *call, size_t size) _must_check_;

/* 0: the reply is what was added. An error becomes a status by wire_status_of(), with the sentence. Any number run at a time. */
typedef int WireHandler(WireCall *call, void *arg, Error *error);

typedef struct WireMethod {
	const char *path; /* "/package.Service/Method" */
	WireHandler *handle;
} WireMethod;

typedef struct WireServerOptions {
	int listen_fd; /* listening, not blocking; not taken */
	int stop_fd;   /* the server ends once this is readable; not taken */
	const WireMethod *methods;
	size_t method_count;
	void *arg;
} WireServerOptions;

typedef struct WireServer WireServer;

/* Errors: -ENOMEM and those of epoll, with a sentence. */
int wire_server_new(const WireServerOptions *options, WireServer **ret_server, Error *error) _must_check_;

/*
 * Serves until `stop_fd` is readable, then takes no more calls, finishes those begun (ten seconds at most) and returns. Errors: epoll's,
 * with a sentence.
 */
int wire_server_run(WireServer *server, Error *error) _must_check_;

/* Cancels the calls that run, and waits for their handlers. */
WireServer *wire_server_free(WireServer *server);
DEFINE_CLEANUP(WireServer, wire_server_free);
