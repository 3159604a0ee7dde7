/* Lazy layers: the protocol of containerd's remote snapshotters, and what keeps their trees shown. */
#include <inttypes.h>
#include <string.h>

#include "fs/base/log.h"
#include "snapshotter/service-private.h"

#define LABEL_REF       "containerd.io/snapshot.ref"
#define LABEL_IMAGE_REF "containerd.io/snapshot/cri.image-ref"
#define LABEL_REFERENCE "containerd.io/snapshot/imgfs.reference" /* imgfs pull --containerd */

/* The layers of a chain as the backend wants them: those below, and `layer`, which may be NULL. */
static json_t *join_layers(const MetaLayers *below, const char *layer)
{
	json_auto_t *layers = json_array();
	for (size_t i = 0; i < below->count + (layer ? 1 : 0); i++) {
		const char *text = i < below->count ? below->layers[i] : layer;
		if (json_array_append_new(layers, json_loads(text, 0, NULL)) < 0)
			return NULL;
	}
	return json_incref(layers);
}

/* A layer that is about to become a snapshot. */
typedef struct Wanted {
	const char *ref, *parent, *reference;
	const MetaLabels *labels;
	MetaLayers below;
	char *layer;
	LazyReason reason;
} Wanted;

static int read_parent(Service *service, Wanted *wanted, char **ret_chain, Error *error)
{
	_cleanup_(meta_info_done) MetaInfo parent = { 0 };
	wanted->reason = LAZY_PARENT;
	int r = meta_lazy_layers(service->meta, wanted->parent, &wanted->below, error);
	if (r == 0)
		r = meta_stat(service->meta, wanted->parent, &parent, error);
	if (r < 0)
		return r;
	const char *chain = meta_labels_get(&parent.labels, LABEL_REF);
	*ret_chain = chain ? strdup(chain) : NULL;
	return *ret_chain ? 0 : error_set(error, -EINVAL, "the parent has no chain ID");
}

/* All that can be said without asking anybody. The reason is set when it fails. */
static int judge(Service *service, Wanted *wanted, Error *error)
{
	_cleanup_free_ char *parent_chain = NULL;
	wanted->reason = LAZY_NO_ANNOTATIONS;
	if (!meta_labels_get(wanted->labels, "containerd.io/snapshot/imgfs.version"))
		return error_set(error, -EINVAL, "the layer has no annotations of imgfs");
	int r = wanted->parent ? read_parent(service, wanted, &parent_chain, error) : 0;
	if (r < 0)
		return r;
	r = lazy_layer_encode(wanted->labels, wanted->ref, parent_chain, &wanted->layer, &wanted->reason, error);
	if (r < 0)
		return r;
	const char *image = meta_labels_get(wanted->labels, LABEL_IMAGE_REF);
	const char *own = meta_labels_get(wanted->labels, LABEL_REFERENCE);
	/* What the client says of the image counts before what a manifest may say. */
	wanted->reference = image ?: own ?: wanted->below.reference;
	return 0;
}

/* The tree becomes a lower directory: see mounts_open(). */
static int check_path(const char *path, Error *error)
{
	return strpbrk(path, ":,\\") ? error_set(error, -EINVAL,
						 "imgfsd shows the tree at %s, and overlayfs takes ':', ',' and '\\' "
						 "for separators: give "
						 "imgfsd another runtime directory",
						 path)
				     : 0;
}

/*
 * A daemon that hangs, or its file system, must not take all threads of the pool: containerd waits for Commit with its own database locked.
 */
static int begin_waiting(Service *service, Error *error)
{
	if (atomic_fetch_add(&service->lazy_waiting, 1) < SERVICE_LAZY_WAITING_MAX)
		return 0;
	atomic_fetch_sub(&service->lazy_waiting, 1);
	return error_set(error, -EAGAIN, "%u calls wait for the node daemon already", SERVICE_LAZY_WAITING_MAX);
}

static void end_waiting(Service *service)
{
	atomic_fetch_sub(&service->lazy_waiting, 1);
}

/* Between begin_waiting() and end_waiting(). */
static int attach_layers(Service *service, const WireCall *call, uint64_t id, const char *reference,
			 const MetaLayers *below, const char *layer, char **ret_path, Error *error)
{
	json_auto_t *layers = join_layers(below, layer);
	if (!layers)
		return error_set(error, -ENOMEM, "out of memory");
	return service->lazy->attach(service->lazy->arg, id, reference, layers, &call->cancelled, ret_path, error);
}

static int let_go(Service *service, uint64_t id, const atomic_bool *cancelled)
{
	Error error = { 0 };
	int r = service->lazy->detach(service->lazy->arg, id, cancelled, &error);
	if (r == 0) {
		atomic_fetch_add(&service->lazy_removed, 1);
		service_write_metrics(service);
	} else if (r != -ENOENT) {
		log_warning("a tree could not be let go id=%" PRIu64 " reason=\"%s\"; the next Cleanup tries again", id,
			    error_text(&error, r));
	}
	return r;
}

/* Tree, then row. */
static int make_lazy(Service *service, const WireCall *call, Wanted *wanted, uint64_t id, Error *error)
{
	_cleanup_free_ char *path = NULL, *name = NULL;
	wanted->reason = LAZY_UNAVAILABLE;
	int r = begin_waiting(service, error);
	if (r < 0)
		return r;
	r = attach_layers(service, call, id, wanted->reference, &wanted->below, wanted->layer, &path, error);
	end_waiting(service);
	if (r < 0)
		return r;
	r = check_path(path, error);
	if (r < 0) {
		(void)let_go(service, id, NULL);
		return r;
	}
	if (asprintf(&name, "imgfs/%" PRIu64 "/%s", id, wanted->ref) < 0)
		return error_set(error, -ENOMEM, "out of memory");
	const MetaLazy lazy = {
		.id = id,
		.name = name,
		.parent = wanted->parent,
		.labels = wanted->labels,
		.layer = wanted->layer,
		.reference = wanted->reference,
		.path = path,
		.now = service_now(),
	};
	r = meta_create_lazy(service->meta, &lazy, error);
	if (r == 0 || r == -EEXIST)
		wanted->reason = LAZY_IS_LAZY;
	if (r < 0)
		(void)let_go(service, id, NULL);
	return r;
}

/* 0: made; -EEXIST: somebody else made it meanwhile. */
static int try_lazy(Service *service, const WireCall *call, Wanted *wanted, Error *error)
{
	uint64_t id;
	int r = judge(service, wanted, error);
	if (r == 0)
		r = service_id_begin(service, &id, error);
	if (r < 0)
		return r;
	r = make_lazy(service, call, wanted, id, error);
	service_id_end(service, id);
	return r;
}

int service_lazy_prepare(Service *service, const WireCall *call, const char *key, const char *parent,
			 const MetaLabels *labels, Error *error)
{
	Error why = { 0 };
	Wanted wanted = { .ref = meta_labels_get(labels, LABEL_REF), .parent = parent, .labels = labels };
	if (!wanted.ref)
		return 0;
	int r = meta_has_ref(service->meta, parent, wanted.ref, error);
	if (r < 0)
		return r;
	if (r == 0) {
		r = try_lazy(service, call, &wanted, &why);
		meta_layers_done(&wanted.below);
		free(wanted.layer);
		/* No reason to pull it whole, nor one to speak of. */
		if (r < 0 && r != -EEXIST && atomic_load(&call->cancelled))
			return error_set(error, -ECANCELED, "the call was cancelled");
		atomic_fetch_add(&service->lazy_outcomes[wanted.reason], 1);
		service_write_metrics(service);
	}
	if (r > 0 || r == -EEXIST)
		wanted.reason = LAZY_IS_LAZY; /* somebody else's */
	const char *image = meta_labels_get(labels, LABEL_IMAGE_REF) ?: meta_labels_get(labels, LABEL_REFERENCE);
	service_whole_note(service, image, wanted.ref, !parent, wanted.reason, error_text(&why, r));
	if (r >= 0 || r == -EEXIST)
		return error_set(error, -EEXIST, "the snapshot of %s is there already", wanted.ref);
	/* An ordinary image is nothing to complain of. */
	log_write(wanted.reason == LAZY_NO_ANNOTATIONS ? LOG_LEVEL_DEBUG : LOG_LEVEL_WARNING,
		  "a layer is pulled whole reason=%s chain=%s key=\"%s\" why=\"%s\"", lazy_reason_name(wanted.reason),
		  wanted.ref, key, error_text(&why, r));
	return 0;
}

/* Shows a tree again that is not shown any more: the node has started anew, or the daemon has lost it. */
static int show_again(Service *service, const WireCall *call, MetaChain *chain, Error *error)
{
	_cleanup_free_ char *key = NULL, *path = NULL;
	_cleanup_(meta_layers_done) MetaLayers layers = { 0 };
	int r = meta_lazy_key(service->meta, chain->lazy_id, &key, error);
	if (r == 0)
		r = meta_lazy_layers(service->meta, key, &layers, error);
	if (r == 0)
		r = attach_layers(service, call, chain->lazy_id, layers.reference, &layers, NULL, &path, error);
	if (r == 0)
		r = check_path(path, error);
	if (r < 0)
		return r;
	if (!service->lazy->shown(service->lazy->arg, path))
		return error_set(error, -EAGAIN, "%s shows no tree", path);
	if (!chain->lazy_path || strcmp(path, chain->lazy_path) != 0)
		r = meta_move_lazy(service->meta, chain->lazy_id, path, error);
	free(chain->lazy_path);
	chain->lazy_path = TAKE_PTR(path);
	return r;
}

int service_lazy_ensure(Service *service, const WireCall *call, MetaChain *chain, Error *error)
{
	Error why = { 0 };
	if (!service->lazy)
		return error_set(error, -EAGAIN,
				 "the parent is a lazy image, and this imgfs-snapshotter was started with --no-daemon");
	int r = begin_waiting(service, &why);
	if (r == 0) {
		if (!chain->lazy_path || !service->lazy->shown(service->lazy->arg, chain->lazy_path))
			r = show_again(service, call, chain, &why);
		end_waiting(service);
	}
	if (r == 0)
		return 0;
	if (atomic_load(&call->cancelled))
		return error_set(error, -ECANCELED, "the call was cancelled");
	atomic_fetch_add(&service->lazy_unreachable, 1);
	service_write_metrics(service);
	log_warning("a lazy parent cannot be had id=%" PRIu64 " reason=\"%s\"", chain->lazy_id, error_text(&why, r));
	return error_set(error, -EAGAIN, "the lazy parent cannot be had now: %s", error_text(&why, r));
}

/*
 * In this order: what is held, then ids that begin, then rows. So what is held for an id that neither begins nor has a lazy row is of a call that
 * failed, of a snapshot that was removed, or of a predecessor that was killed before the row was there. Nobody gets such an id meanwhile,
 * since from the second step on those given out are above all that is held.
 */
int service_lazy_reconcile(Service *service, const atomic_bool *cancelled, Error *error)
{
	_cleanup_free_ uint64_t *owners = NULL, *spared = NULL, *rows = NULL;
	size_t owner_count, spared_count, row_count;
	uint64_t highest = 0, next;
	Error why = { 0 };
	int r = service->lazy->owners(service->lazy->arg, cancelled, &owners, &owner_count, &why);
	/* Without a daemon nothing is held; what it remembers is seen by the next Cleanup. */
	if (r < 0) {
		log_info("the node daemon was not asked what it holds reason=\"%s\"", error_text(&why, r));
		return 0;
	}
	for (size_t i = 0; i < owner_count; i++)
		highest = owners[i] > highest ? owners[i] : highest;
	r = service_ids_spared(service, highest, &next, &spared, &spared_count, error);
	if (r == 0)
		r = meta_lazy_ids(service->meta, &rows, &row_count, error);
	for (size_t i = 0; r == 0 && i < owner_count; i++) {
		uint64_t id = owners[i];
		if (service_has_id(spared, spared_count, id) || service_has_id(rows, row_count, id))
			continue;
		/* One that hangs is not waited for once for each: the next Cleanup tries again. */
		int gone = let_go(service, id, cancelled);
		if (gone == -ETIMEDOUT || gone == -ECANCELED)
			break;
	}
	return r;
}
