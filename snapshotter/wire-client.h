/*
 * A gRPC client on a Unix socket, one call at a time: what talks to containerd's own API. Blocks, up to a deadline. One owner, no locking.
 */
#pragma once

#include "fs/base/error.h"
#include "fs/format/buffer.h"
#include "snapshotter/wire-message.h"

typedef struct WireClient WireClient;

/*
 * `name_space` (NULL: none) goes along with each call as "containerd-namespace". Errors: -ENOENT, -ECONNREFUSED and others of connect(),
 * -ETIMEDOUT (nobody takes the connection within ten seconds), with a sentence.
 */
int wire_client_connect(const char *path, const char *name_space, WireClient **ret_client, Error *error) _must_check_;
WireClient *wire_client_close(WireClient *client);
DEFINE_CLEANUP(WireClient, wire_client_close);

/* From now on each call has this lease ("containerd-lease"). Errors: -ENOMEM. */
int wire_client_set_lease(WireClient *client, const char *lease, Error *error) _must_check_;

/* Adds room for a message of `size` bytes, with its prefix, to a request. NULL when memory is out. */
uint8_t *wire_client_message(Buffer *request, size_t size) _must_check_;

/*
 * Sends `request`, any number of messages, and takes the whole reply, messages with their prefixes, which wire_client_next() takes apart.
 * Within `timeout` milliseconds. Errors: that of a status by wire_status_errno() with the text that came with it, -ETIMEDOUT, -EPROTO,
 * -ECONNRESET, -ENOMEM. After one of the last four the connection is of no use any more.
 */
int wire_client_call(WireClient *client, const char *method, const Buffer *request, unsigned timeout, Buffer *ret_reply,
		     Error *error) _must_check_;

/* The message at `*offset`, which then goes past it; valid as long as `reply`. False at the end. */
bool wire_client_next(const Buffer *reply, size_t *offset, const uint8_t **ret_message, size_t *ret_size);
