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

/* Where what is below a snapshot is seen. */
typedef struct View {
	PlanHost host;               /* has the directory of ordinary layers */
	const char *lazy_path;       /* of the lazy tree */
	char *directory, *lazy_copy; /* what the two above point to where owners are mapped */
	char *lazy_link;             /* what lazy_path points to where there are many layers over it */
} View;

static void view_done(View *view)
{
	free(view->directory);
	free(view->lazy_copy);
	free(view->lazy_link);
}

static int lower_directories(const View *view, const MetaChain *chain, size_t count, char **lowers, Error *error)
{
	for (size_t i = 0; i < count; i++) {
		lowers[i] =
			i < chain->count ? plan_directory(&view->host, chain->ids[i], "fs") : strdup(view->lazy_path);
		if (!lowers[i])
			return error_set(error, -ENOMEM, "out of memory");
	}
	return 0;
}

/*
 * Where the client wants owners mapped here, layers are seen through mounts that do it. The upper directory stays as it is: what the
 * container writes has the host's ids already.
 */
static int choose_view(Service *service, const MetaLabels *labels, const MetaChain *chain, View *view, Error *error)
{
	MountsIdmap idmap = {
		.uids = meta_labels_get(labels, PLAN_LABEL_UID_MAPPING),
		.gids = meta_labels_get(labels, PLAN_LABEL_GID_MAPPING),
	};
	view->host = service->mounts->host;
	view->lazy_path = chain->lazy_path;
	if (!idmap.uids && !idmap.gids)
		return 0;
	int r = chain->count > 0 ? service_map(service, &idmap, &view->directory, error) : 0;
	if (r == 0 && view->directory)
		view->host.snapshots = view->directory;
	idmap.lazy_id = chain->lazy_id;
	idmap.tree = chain->lazy_path;
	if (r == 0 && chain->lazy_id)
		r = service_map(service, &idmap, &view->lazy_copy, error);
	if (r == 0 && view->lazy_copy)
		view->lazy_path = view->lazy_copy;
	return r;
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

static int plan_lowers(Service *service, const View *view, const MetaInfo *info, const MetaChain *chain,
		       PlanMount *ret_plan, Error *error)
{
	size_t count = chain->count + (chain->lazy_id ? 1 : 0);
	char **lowers = calloc(count ? count : 1, sizeof(*lowers));
	if (!lowers)
		return error_set(error, -ENOMEM, "out of memory");
	int r = lower_directories(view, chain, count, lowers, error);
	if (r == 0 && plan_mount(&service->mounts->host, info->id, info->kind, lowers, count, ret_plan) < 0)
		r = error_set(error, -ENOMEM, "out of memory");
	for (size_t i = 0; i < count; i++)
		free(lowers[i]);
	free(lowers);
	return r;
}

/* Where owners are mapped, all lower directories are in one as it is. */
static int shorten_lowers(Service *service, View *view, const MetaInfo *info, const MetaChain *chain, PlanMount *plan,
			  Error *error)
{
	if (!chain->lazy_id || view->lazy_copy || !plan_mount_is_long(plan))
		return 0;
	int r = mounts_link(service->mounts, chain->lazy_id, chain->lazy_path, &view->lazy_link, error);
	if (r < 0)
		return r;
	view->lazy_path = view->lazy_link;
	plan_mount_done(plan);
	return plan_lowers(service, view, info, chain, plan, error);
}

int service_reply_mounts(Service *service, WireCall *call, const MetaInfo *info, MetaChain *chain, Error *error)
{
	_cleanup_(plan_mount_done) PlanMount plan = { 0 };
	_cleanup_(view_done) View view = { 0 };
	int r = chain->lazy_id ? service_lazy_ensure(service, call, chain, error) : 0;
	if (r == 0)
		r = choose_view(service, &info->labels, chain, &view, error);
	if (r == 0)
		r = plan_lowers(service, &view, info, chain, &plan, error);
	if (r == 0)
		r = shorten_lowers(service, &view, info, chain, &plan, error);
	return r < 0 ? r : reply_mount(call, &plan, error);
}
