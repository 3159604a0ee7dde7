#include "snapshotter/client-containers.h"

#include <errno.h>

#include "containerd.pb-c.h"
#include "snapshotter/client-ask.h"

#define CALL_MILLIS 5000
#define LABELS_MAX  64u

/* One call with one message, whose reply is one, too; it is the caller's, to be freed by protobuf_c_message_free_unpacked(). */
static int ask(const char *socket, const char *name_space, const char *method, const ProtobufCMessage *message,
	       const ProtobufCMessageDescriptor *type, ProtobufCMessage **ret_reply, Error *error)
{
	_cleanup_(wire_client_close_p) WireClient *wire = NULL;
	_cleanup_(buffer_done) Buffer reply = { 0 };
	size_t offset = 0, size;
	const uint8_t *bytes;
	int r = wire_client_connect(socket, name_space, &wire, error);
	if (r == 0)
		r = client_ask(wire, method, message, CALL_MILLIS, &reply, error);
	if (r < 0)
		return r;
	if (!wire_client_next(&reply, &offset, &bytes, &size))
		return error_set(error, -EBADMSG, "the reply has no message");
	*ret_reply = protobuf_c_message_unpack(type, NULL, size, bytes);
	return *ret_reply ? 0 : error_set(error, -EBADMSG, "the reply is not what it should be");
}

static int tell(const Containerd__Container *container, ClientEach *each, void *arg, Error *error)
{
	ClientLabel labels[LABELS_MAX + 1];
	size_t count = 0;
	for (; count < container->n_labels && count < LABELS_MAX; count++)
		labels[count] = (ClientLabel){ container->labels[count]->key, container->labels[count]->value };
	labels[count] = (ClientLabel){ 0 };
	return each(arg, container->id, labels, error);
}

static int list_containers(const char *socket, const char *name_space, const Containerd__Filters *filters,
			   ClientEach *each, void *arg, Error *error)
{
	ProtobufCMessage *reply = NULL;
	int r = ask(socket, name_space, "/containerd.services.containers.v1.Containers/List", &filters->base,
		    &containerd__containers__descriptor, &reply, error);
	const Containerd__Containers *list = (const Containerd__Containers *)reply;
	for (size_t i = 0; r == 0 && i < list->n_containers; i++)
		r = tell(list->containers[i], each, arg, error);
	if (reply)
		protobuf_c_message_free_unpacked(reply, NULL);
	return r;
}

int client_containers(const char *socket, const char *const *filters, size_t count, ClientEach *each, void *arg,
		      Error *error)
{
	Containerd__Filters none, wanted;
	ProtobufCMessage *reply = NULL;
	containerd__filters__init(&none);
	containerd__filters__init(&wanted);
	wanted.n_filters = count;
	wanted.filters = (char **)(uintptr_t)filters;
	int r = ask(socket, NULL, "/containerd.services.namespaces.v1.Namespaces/List", &none.base,
		    &containerd__namespaces__descriptor, &reply, error);
	const Containerd__Namespaces *list = (const Containerd__Namespaces *)reply;
	for (size_t i = 0; r == 0 && i < list->n_namespaces; i++)
		r = list_containers(socket, list->namespaces[i]->name, &wanted, each, arg, error);
	if (reply)
		protobuf_c_message_free_unpacked(reply, NULL);
	return r < 0 ? error_prefix(error, r, "containerd at %s", socket) : 0;
}
