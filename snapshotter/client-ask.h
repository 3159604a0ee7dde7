/* A call of containerd's API with one message. */
#pragma once

#include <protobuf-c/protobuf-c.h>

#include "snapshotter/wire-client.h"

/* Packs the message and makes the call; `timeout` and `ret_reply` are wire_client_call()'s. Errors: as that, -ENOMEM, with a sentence. */
int client_ask(WireClient *wire, const char *method, const ProtobufCMessage *message, unsigned timeout,
	       Buffer *ret_reply, Error *error) _must_check_;
