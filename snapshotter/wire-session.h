/*
 * One gRPC connection, the server's side, without a socket: bytes go in, whole requests come out; replies go in, bytes come out. A thin
 * layer over nghttp2. Used by one thread. The bytes come from outside.
 *
 * A request is one message (all of snapshots.v1 are unary or stream only their reply). A reply is any number of messages and a status.
 */
#pragma once

#include <sys/types.h>

#include "fs/format/buffer.h"
#include "snapshotter/wire-message.h"

#define WIRE_STREAMS_MAX  1000        /* requests at a time on one connection */
#define WIRE_BUFFERED_MAX (64u << 20) /* bytes of unfinished requests on one connection */

typedef struct WireSession WireSession;

typedef struct WireSessionEvents {
	/* A whole request. `message` (without its prefix) is handed over; may call wire_session_reply(). */
	void (*request)(void *arg, int32_t stream, const char *path, Buffer *message);
	/* All that was replied so far is on its way, and the reply is not at its end. */
	void (*drained)(void *arg, int32_t stream);
	/* The stream is gone, answered, reset by the client, or with the connection. Only for those that request() was called for. */
	void (*closed)(void *arg, int32_t stream);
} WireSessionEvents;

/* `events` must stay. Errors: -ENOMEM. */
int wire_session_new(const WireSessionEvents *events, void *arg, WireSession **ret_session) _must_check_;
WireSession *wire_session_free(WireSession *session);
DEFINE_CLEANUP(WireSession, wire_session_free);

/* Takes in what has been read. Errors: -EPROTO (the connection is over once what there is to send was sent), -ENOMEM. */
int wire_session_receive(WireSession *session, const uint8_t *data, size_t size) _must_check_;

/* What to write next; valid until the next call, which takes the whole of it for written. 0: nothing. Errors: -EPROTO, -ENOMEM. */
ssize_t wire_session_send(WireSession *session, const uint8_t **ret_data) _must_check_;

/* Neither in need of bytes nor in possession of any to send: the connection is over. */
bool wire_session_ended(WireSession *session);

/* Streams that are open. */
size_t wire_session_streams(const WireSession *session);

/* Says that no further request is taken; those begun go on. */
void wire_session_goaway(WireSession *session);

/*
 * Adds messages, each with its prefix, to a stream's reply; `messages` is emptied. With `end` it ends with `status` and `text` (may be
 * NULL). A stream that is gone is no error. Errors: -ENOMEM (the stream is then reset).
 */
int wire_session_reply(WireSession *session, int32_t stream, Buffer *messages, bool end, WireStatus status,
		       const char *text) _must_check_;
