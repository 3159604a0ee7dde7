/*
 * Any bytes as what a client sends: HTTP/2, gRPC's frame and the messages of every call. Each request that comes out is unpacked as its call would,
 * and answered.
 */
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "snapshots.pb-c.h"
#include "snapshotter/wire-session.h"

#define PREFACE "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct Fuzz {
	WireSession *session;
	unsigned requests;
} Fuzz;

static void unpack(const Buffer *message)
{
	const ProtobufCMessageDescriptor *const types[] = {
		&snapshots__create_request__descriptor, &snapshots__commit_request__descriptor,
		&snapshots__key_request__descriptor,    &snapshots__update_request__descriptor,
		&snapshots__list_request__descriptor,
	};
	for (size_t i = 0; i < ELEMENTS(types); i++) {
		ProtobufCMessage *one = protobuf_c_message_unpack(types[i], NULL, message->size, message->data);
		if (one)
			protobuf_c_message_free_unpacked(one, NULL);
	}
}

static void on_request(void *arg, int32_t stream, const char *path, Buffer *message)
{
	Fuzz *fuzz = arg;
	Buffer reply = { 0 };
	unpack(message);
	int r = buffer_append(&reply, "\0\0\0\0\1x", 6);
	assert(r == 0);
	bool error = strlen(path) % 2;
	if (error)
		buffer_done(&reply);
	r = wire_session_reply(fuzz->session, stream, &reply, true, error ? WIRE_NOT_FOUND : WIRE_OK,
			       error ? path : NULL);
	assert(r == 0);
	buffer_done(message);
	fuzz->requests++;
}

static void on_nothing(void *arg _unused_, int32_t stream _unused_)
{
}

static void feed(Fuzz *fuzz, const uint8_t *data, size_t size)
{
	const uint8_t *out;
	if (wire_session_receive(fuzz->session, data, size) < 0)
		return;
	while (wire_session_send(fuzz->session, &out) > 0)
		;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const WireSessionEvents events = { on_request, on_nothing, on_nothing };
	Fuzz fuzz = { 0 };
	int r = wire_session_new(&events, &fuzz, &fuzz.session);
	assert(r == 0);
	feed(&fuzz, (const uint8_t *)PREFACE, sizeof(PREFACE) - 1);
	/* In two pieces, as a socket may hand it out. */
	size_t half = size / 2;
	feed(&fuzz, data, half);
	feed(&fuzz, data + half, size - half);
	fuzz.session = wire_session_free(fuzz.session);
	return 0;
}
