/* The calls about one snapshot that is there: Mounts, Remove, Stat, Update, Usage; and Cleanup. */
#include <string.h>

#include "fs/base/log.h"
#include "snapshotter/service-private.h"

typedef int KeyFunction(Service *service, WireCall *call, const char *key, Error *error);

static int with_key(WireCall *call, void *arg, KeyFunction *function, Error *error)
{
	Snapshots__KeyRequest *request = service_unpack(call, &snapshots__key_request__descriptor, error);
	if (!request)
		return -EINVAL;
	int r = function(arg, call, request->key, error);
	snapshots__key_request__free_unpacked(request, NULL);
	return r;
}

static int mounts_of(Service *service, WireCall *call, const char *key, Error *error)
{
	_cleanup_(meta_info_done) MetaInfo info = { 0 };
	_cleanup_(meta_chain_done) MetaChain chain = { 0 };
	int r = meta_chain(service->meta, key, &info, &chain, error);
	if (r < 0)
		return r;
	if (info.kind == META_COMMITTED)
		return error_set(error, -EBUSY, "snapshot %s is committed: only active ones and views are mounted",
				 key);
	return service_reply_mounts(service, call, &info, &chain, error);
}

int service_mounts(WireCall *call, void *arg, Error *error)
{
	return with_key(call, arg, mounts_of, error);
}

static int remove_key(Service *service, WireCall *call, const char *key, Error *error)
{
	int r = meta_remove(service->meta, key, error);
	return r < 0 ? r : service_reply_empty(call, error);
}

int service_remove(WireCall *call, void *arg, Error *error)
{
	return with_key(call, arg, remove_key, error);
}

static int stat_key(Service *service, WireCall *call, const char *key, Error *error)
{
	_cleanup_(meta_info_done) MetaInfo info = { 0 };
	int r = meta_stat(service->meta, key, &info, error);
	return r < 0 ? r : service_reply_info(call, &info, error);
}

int service_stat(WireCall *call, void *arg, Error *error)
{
	return with_key(call, arg, stat_key, error);
}

static int usage_of(Service *service, WireCall *call, const char *key, Error *error)
{
	_cleanup_(meta_info_done) MetaInfo info = { 0 };
	Snapshots__UsageReply reply = SNAPSHOTS__USAGE_REPLY__INIT;
	int r = meta_stat(service->meta, key, &info, error);
	if (r == 0 && info.kind == META_ACTIVE)
		r = mounts_usage(service->mounts, info.id, &info.size, &info.inodes, error);
	if (r < 0)
		return r;
	reply.size = info.size;
	reply.inodes = info.inodes;
	return service_reply(call, &reply.base, error);
}

int service_usage(WireCall *call, void *arg, Error *error)
{
	return with_key(call, arg, usage_of, error);
}

static int update_snapshot(Service *service, WireCall *call, const Snapshots__UpdateRequest *request, Error *error)
{
	_cleanup_(meta_labels_done) MetaLabels labels = { 0 };
	_cleanup_(meta_info_done) MetaInfo info = { 0 };
	const Snapshots__Info *wanted = request->info;
	if (!wanted)
		return error_set(error, -EINVAL, "the request names no snapshot");
	int r = 0;
	for (size_t i = 0; r == 0 && i < wanted->n_labels; i++)
		r = meta_labels_set(&labels, wanted->labels[i]->key, wanted->labels[i]->value, error);
	if (r < 0)
		return r;
	const MetaUpdate update = {
		.key = wanted->name,
		.labels = &labels,
		.paths = request->update_mask ? request->update_mask->paths : NULL,
		.path_count = request->update_mask ? request->update_mask->n_paths : 0,
		.now = service_now(),
	};
	r = meta_update(service->meta, &update, &info, error);
	return r < 0 ? r : service_reply_info(call, &info, error);
}

int service_update(WireCall *call, void *arg, Error *error)
{
	Snapshots__UpdateRequest *request = service_unpack(call, &snapshots__update_request__descriptor, error);
	if (!request)
		return -EINVAL;
	int r = update_snapshot(arg, call, request, error);
	snapshots__update_request__free_unpacked(request, NULL);
	return r;
}

int service_cleanup(WireCall *call, void *arg, Error *error)
{
	size_t count;
	int r = service_reconcile(arg, &call->cancelled, &count, error);
	if (r < 0) {
		log_warning("cleanup left something reason=\"%s\"", error_text(error, r));
		return r;
	}
	return service_reply_empty(call, error);
}
