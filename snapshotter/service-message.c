/* Between messages and what the calls work with. */
#include <string.h>

#include "snapshotter/service-private.h"

#define NANOSECONDS 1000000000

void *service_unpack(const WireCall *call, const ProtobufCMessageDescriptor *type, Error *error)
{
	void *message = protobuf_c_message_unpack(type, NULL, call->size, call->message);
	if (!message)
		(void)error_set(error, -EINVAL, "the request is no %s, or memory is out", type->name);
	return message;
}

int service_reply(WireCall *call, const ProtobufCMessage *message, Error *error)
{
	uint8_t *room = wire_call_message(call, protobuf_c_message_get_packed_size(message));
	if (!room)
		return error_set(error, -ENOMEM, "the reply is too large, or memory is out");
	(void)protobuf_c_message_pack(message, room);
	return 0;
}

int service_reply_empty(WireCall *call, Error *error)
{
	Snapshots__Empty empty = SNAPSHOTS__EMPTY__INIT;
	return service_reply(call, &empty.base, error);
}

/* Info with all that it points to but the texts, in one piece of memory. */
typedef struct InfoMessage {
	Snapshots__Info info;
	Snapshots__Time created, updated;
	Snapshots__Info__LabelsEntry *labels[];
} InfoMessage;

static Snapshots__Time time_message(int64_t nanoseconds)
{
	Snapshots__Time message = SNAPSHOTS__TIME__INIT;
	message.seconds = nanoseconds / NANOSECONDS;
	message.nanoseconds = (int32_t)(nanoseconds % NANOSECONDS);
	return message;
}

static Snapshots__Kind kind_message(MetaKind kind)
{
	switch (kind) {
	case META_VIEW:
		return SNAPSHOTS__KIND__VIEW;
	case META_ACTIVE:
		return SNAPSHOTS__KIND__ACTIVE;
	case META_COMMITTED:
		return SNAPSHOTS__KIND__COMMITTED;
	}
	return SNAPSHOTS__KIND__UNKNOWN;
}

int service_info_message(const MetaInfo *info, Snapshots__Info **ret_message)
{
	size_t count = info->labels.count;
	InfoMessage *message =
		malloc(sizeof(*message) + count * (sizeof(message->labels[0]) + sizeof(*message->labels[0])));
	if (!message)
		return -ENOMEM;
	Snapshots__Info__LabelsEntry *entries = (void *)&message->labels[count];
	snapshots__info__init(&message->info);
	message->created = time_message(info->created);
	message->updated = time_message(info->updated);
	message->info.name = info->key;
	message->info.parent = info->parent ?: (char *)(uintptr_t)protobuf_c_empty_string;
	message->info.kind = kind_message(info->kind);
	message->info.created_at = &message->created;
	message->info.updated_at = &message->updated;
	message->info.n_labels = count;
	message->info.labels = message->labels;
	for (size_t i = 0; i < count; i++) {
		snapshots__info__labels_entry__init(&entries[i]);
		entries[i].key = info->labels.labels[i].name;
		entries[i].value = info->labels.labels[i].value;
		message->labels[i] = &entries[i];
	}
	*ret_message = &message->info;
	return 0;
}

Snapshots__Info *service_info_message_free(Snapshots__Info *message)
{
	free(message); /* is an InfoMessage's first member */
	return NULL;
}

int service_reply_info(WireCall *call, const MetaInfo *info, Error *error)
{
	Snapshots__InfoReply reply = SNAPSHOTS__INFO_REPLY__INIT;
	if (service_info_message(info, &reply.info) < 0)
		return error_set(error, -ENOMEM, "out of memory");
	int r = service_reply(call, &reply.base, error);
	(void)service_info_message_free(reply.info);
	return r;
}

static int lower_directories(const Service *service, const MetaChain *chain, size_t count, char **lowers, Error *error)
{
	for (size_t i = 0; i < count; i++) {
		lowers[i] = i < chain->count ? plan_directory(&service->mounts->host, chain->ids[i], "fs")
					     : strdup(chain->lazy_path);
		if (!lowers[i])
			return error_set(error, -ENOMEM, "out of memory");
	}
	return 0;
}

static int reply_mount(WireCall *call, PlanMount *plan, Error *error)
{
	Snapshots__MountsReply reply = SNAPSHOTS__MOUNTS_REPLY__INIT;
	Snapshots__Mount mount, *mounts = &mount;
	snapshots__mount__init(&mount);
	mount.type = (char *)(uintptr_t)plan->type;
	mount.source = plan->source;
	mount.options = plan->options;
	mount.n_options = plan->option_count;
	reply.mounts = &mounts;
	reply.n_mounts = 1;
	return service_reply(call, &reply.base, error);
}

int service_reply_mounts(Service *service, WireCall *call, uint64_t id, MetaKind kind, MetaChain *chain, Error *error)
{
	_cleanup_(plan_mount_done) PlanMount plan = { 0 };
	int r = chain->lazy_id ? service_lazy_ensure(service, chain, error) : 0;
	if (r < 0)
		return r;
	size_t count = chain->count + (chain->lazy_id ? 1 : 0);
	char **lowers = calloc(count ? count : 1, sizeof(*lowers));
	if (!lowers)
		return error_set(error, -ENOMEM, "out of memory");
	r = lower_directories(service, chain, count, lowers, error);
	if (r == 0 && plan_mount(&service->mounts->host, id, kind, lowers, count, &plan) < 0)
		r = error_set(error, -ENOMEM, "out of memory");
	for (size_t i = 0; i < count; i++)
		free(lowers[i]);
	free(lowers);
	return r < 0 ? r : reply_mount(call, &plan, error);
}
