#include "snapshotter/client-ask.h"

#include <errno.h>

int client_ask(WireClient *wire, const char *method, const ProtobufCMessage *message, unsigned timeout,
	       Buffer *ret_reply, Error *error)
{
	_cleanup_(buffer_done) Buffer request = { 0 };
	uint8_t *room = wire_client_message(&request, protobuf_c_message_get_packed_size(message));
	if (!room)
		return error_set(error, -ENOMEM, "out of memory");
	(void)protobuf_c_message_pack(message, room);
	return wire_client_call(wire, method, &request, timeout, ret_reply, error);
}
