/* Prepare, View and Commit: the calls that make snapshots. */
#include <string.h>
#include <sys/stat.h>

#include "fs/base/log.h"
#include "snapshotter/service-private.h"

/* Both kinds of entries of a map<string, string> have this layout. */
_Static_assert(sizeof(Snapshots__CreateRequest__LabelsEntry) == sizeof(Snapshots__CommitRequest__LabelsEntry), "");

static int copy_labels(Snapshots__CreateRequest__LabelsEntry *const *entries, size_t count, MetaLabels *ret_labels,
		       Error *error)
{
	int r = 0;
	for (size_t i = 0; r == 0 && i < count; i++)
		r = meta_labels_set(ret_labels, entries[i]->key, entries[i]->value, error);
	return r;
}

static int check_key(const char *key, Error *error)
{
	if (!key[0])
		return error_set(error, -EINVAL, "a snapshot needs a key");
	if (strlen(key) > META_KEY_MAX)
		return error_set(error, -EINVAL, "a snapshot's key has at most %u bytes", META_KEY_MAX);
	return 0;
}

static const char *or_null(const char *text)
{
	return text[0] ? text : NULL;
}

/* The ids a container's root has outside, where the client asks for a user namespace. */
static int map_owner(const MetaLabels *labels, uid_t *uid, gid_t *gid, Error *error)
{
	const char *uids = meta_labels_get(labels, PLAN_LABEL_UID_MAPPING);
	const char *gids = meta_labels_get(labels, PLAN_LABEL_GID_MAPPING);
	int r = uids ? plan_map_id(uids, *uid, uid, error) : 0;
	return r < 0 || !gids ? r : plan_map_id(gids, *gid, gid, error);
}

/* The owner of a lazy snapshot's root directory. */
static int lazy_owner(Service *service, const WireCall *call, MetaInfo *info, uid_t *ret_uid, gid_t *ret_gid,
		      Error *error)
{
	_cleanup_(meta_chain_done) MetaChain chain = { .lazy_id = info->id, .lazy_path = TAKE_PTR(info->lazy_path) };
	struct stat status;
	int r = service_lazy_ensure(service, call, &chain, error);
	if (r < 0)
		return r;
	if (stat(chain.lazy_path, &status) < 0)
		return error_set(error, -EAGAIN, "looking at %s failed: %s", chain.lazy_path, strerror(errno));
	*ret_uid = status.st_uid;
	*ret_gid = status.st_gid;
	return 0;
}

/* The new root directory belongs to who owns the parent's. */
static int choose_owner(Service *service, const WireCall *call, const MetaCreate *create, uid_t *ret_uid,
			gid_t *ret_gid, Error *error)
{
	_cleanup_(meta_info_done) MetaInfo parent = { 0 };
	*ret_uid = *ret_gid = 0;
	if (create->parent) {
		int r = meta_stat(service->meta, create->parent, &parent, error);
		if (r < 0)
			return error_prefix(error, r, "the parent is missing");
		if (parent.kind != META_COMMITTED)
			return error_set(error, -EINVAL, "the parent %s is not a committed snapshot", create->parent);
		if (parent.lazy_path)
			r = lazy_owner(service, call, &parent, ret_uid, ret_gid, error);
		else
			r = mounts_owner(service->mounts, parent.id, ret_uid, ret_gid, error);
		if (r < 0)
			return r;
	}
	return map_owner(create->labels, ret_uid, ret_gid, error);
}

/* Directory, then row. */
static int make_snapshot(Service *service, const WireCall *call, MetaCreate *create, MetaChain *ret_chain, Error *error)
{
	uid_t uid;
	gid_t gid;
	int r = choose_owner(service, call, create, &uid, &gid, error);
	if (r < 0)
		return r;
	r = mounts_create(service->mounts, create->id, create->kind == META_ACTIVE, uid, gid, error);
	if (r < 0)
		return r;
	create->now = service_now();
	if (atomic_load(&call->cancelled))
		r = error_set(error, -ECANCELED, "the call was cancelled");
	else
		r = meta_create(service->meta, create, ret_chain, error);
	/* Where that fails, too, Cleanup does it. */
	if (r < 0 && mounts_remove(service->mounts, create->id, NULL) < 0)
		return r;
	return r;
}

/* A client that was told of a failure may come again with the same key. */
static void undo(Service *service, const MetaCreate *create)
{
	Error error = { 0 };
	int r = meta_remove(service->meta, create->key, &error);
	if (r == 0)
		r = mounts_remove(service->mounts, create->id, &error);
	if (r < 0)
		log_warning("a snapshot that cannot be mounted is left behind key=\"%s\" reason=\"%s\"", create->key,
			    error_text(&error, r));
}

static int create_snapshot(Service *service, WireCall *call, const Snapshots__CreateRequest *request, MetaKind kind,
			   Error *error)
{
	_cleanup_(meta_labels_done) MetaLabels labels = { 0 };
	_cleanup_(meta_chain_done) MetaChain chain = { 0 };
	MetaCreate create = {
		.kind = kind, .key = request->key, .parent = or_null(request->parent), .labels = &labels
	};
	int r = check_key(create.key, error);
	if (r == 0)
		r = copy_labels(request->labels, request->n_labels, &labels, error);
	if (r == 0 && kind == META_ACTIVE && service->lazy)
		r = service_lazy_prepare(service, call, create.key, create.parent, &labels, error);
	if (r == 0)
		r = service_id_begin(service, &create.id, error);
	if (r < 0)
		return r;
	r = make_snapshot(service, call, &create, &chain, error);
	if (r == 0) {
		const MetaInfo info = { .id = create.id, .kind = kind, .labels = labels };
		r = service_reply_mounts(service, call, &info, &chain, error);
		if (r < 0)
			undo(service, &create);
	}
	service_id_end(service, create.id);
	return r;
}

static int create_of(WireCall *call, void *arg, MetaKind kind, Error *error)
{
	Snapshots__CreateRequest *request = service_unpack(call, &snapshots__create_request__descriptor, error);
	if (!request)
		return -EINVAL;
	int r = create_snapshot(arg, call, request, kind, error);
	snapshots__create_request__free_unpacked(request, NULL);
	return r;
}

int service_prepare(WireCall *call, void *arg, Error *error)
{
	return create_of(call, arg, META_ACTIVE, error);
}

int service_view(WireCall *call, void *arg, Error *error)
{
	return create_of(call, arg, META_VIEW, error);
}

/*
 * The size is taken before the change, so that nobody waits for it; what has happened to the key meanwhile is seen by meta_commit(), which
 * also says in which order errors come.
 */
static int commit_snapshot(Service *service, WireCall *call, const Snapshots__CommitRequest *request, Error *error)
{
	_cleanup_(meta_labels_done) MetaLabels labels = { 0 };
	_cleanup_(meta_info_done) MetaInfo active = { 0 };
	MetaCommit commit = {
		.key = request->key, .name = request->name, .parent = or_null(request->parent), .labels = &labels
	};
	int r = check_key(commit.name, error);
	if (r == 0)
		r = copy_labels((Snapshots__CreateRequest__LabelsEntry *const *)request->labels, request->n_labels,
				&labels, error);
	if (r < 0)
		return r;
	r = meta_stat(service->meta, request->key, &active, NULL);
	if (r < 0 && r != -ENOENT)
		return error_set(error, r, "reading snapshot %s failed", request->key);
	if (r == 0 && active.kind == META_ACTIVE)
		r = mounts_usage(service->mounts, active.id, &commit.size, &commit.inodes, error);
	if (r < 0 && r != -ENOENT)
		return r;
	if (atomic_load(&call->cancelled))
		return error_set(error, -ECANCELED, "the call was cancelled");
	commit.id = active.id;
	commit.now = service_now();
	r = meta_commit(service->meta, &commit, error);
	return r < 0 ? r : service_reply_empty(call, error);
}

int service_commit(WireCall *call, void *arg, Error *error)
{
	Snapshots__CommitRequest *request = service_unpack(call, &snapshots__commit_request__descriptor, error);
	if (!request)
		return -EINVAL;
	int r = commit_snapshot(arg, call, request, error);
	snapshots__commit_request__free_unpacked(request, NULL);
	return r;
}
