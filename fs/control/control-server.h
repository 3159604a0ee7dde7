/*
 * The daemon's side of the control socket: one poll loop for all clients. Quick calls are answered in it; each of the others has a thread,
 * so that a long one, or a client that does not read, holds up nobody. Memory is bounded: so many clients, one call and one answer each.
 */
#pragma once

#include <poll.h>
#include <stdbool.h>
#include <sys/types.h>

#include "fs/control/control-request.h"

#define CONTROL_CLIENTS 128u

typedef struct ControlServer ControlServer;
typedef struct ControlCall ControlCall;

/*
 * Answers a request: sets `ret_answer`, the server's from then on, or fails with a sentence. Called by the thread of control_server_turn() for
 * quick calls, which must not block, by a thread of its own for others.
 */
typedef int ControlHandle(void *arg, ControlCall *call, const ControlRequest *request, json_t **ret_answer,
			  Error *error);

typedef struct ControlServerOptions {
	const char *path; /* of the socket, whose directory exists; what is there is replaced */
	uid_t user;       /* who may speak; anybody else is refused by the kernel's word for who it is */
	unsigned quick;   /* a bit (1 << ControlVerb) for each call that never blocks */
	ControlHandle *handle;
	void *arg;
} ControlServerOptions;

/* Listens. `options` is copied, its texts are not. For the time before threads start: it sets the umask. Errors: bind's, with a sentence. */
int control_server_new(const ControlServerOptions *options, ControlServer **ret_server, Error *error) _must_check_;

/* Hangs up on everybody, waits for the calls that run, and removes the socket. */
ControlServer *control_server_free(ControlServer *server);
DEFINE_CLEANUP(ControlServer, control_server_free);

/*
 * One turn of the loop: waits at most `timeout` milliseconds (-1: for ever) until there is something to do for a client or one of `more` is
 * ready, whose revents it sets, and does the former. Errors: -ENOMEM, poll's.
 */
int control_server_turn(ControlServer *server, struct pollfd *more, size_t count, int timeout) _must_check_;

/* How many calls run. Any thread. */
unsigned control_server_calls(ControlServer *server);

/* Does no call run, and has everybody been sent all there is for them? By the thread of control_server_turn(). */
bool control_server_is_quiet(ControlServer *server);

/* Says how far a call is; takes `progress` over. Left out while the client has not read what it was sent before. Any thread. */
void control_call_progress(ControlCall *call, json_t *progress);

/* Has the client hung up, so that nobody waits for the answer? Any thread. */
bool control_call_gone(ControlCall *call);
