/* Attaching images for those who ask, and letting them go. */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "fs/base/log.h"
#include "fs/node/node-bind.h"
#include "fs/node/node-private.h"

/* What is under way for a holder that is taken. */
typedef struct Attach {
	Node *node;
	NodeHolder *holder;
	NodeRecord record; /* to be */
	NodeImage *image;
	FetchImage files;
} Attach;

static void attach_done(Attach *attach)
{
	fetch_image_done(&attach->files);
	node_record_done(&attach->record);
	node_image_leave(attach->node, attach->image);
}

/* A copy of the request that outlives it, with the directory as mountinfo shows it. */
static int copy_request(const ControlRequest *request, const char *directory, ControlRequest *ret_copy, Error *error)
{
	json_t *json = json_deep_copy(request->json);
	if (!json || (directory && json_object_set_new(json, "directory", json_string(directory)) < 0)) {
		json_decref(json);
		return error_set(error, -ENOMEM, "out of memory");
	}
	return control_request_parse(json, ret_copy, error);
}

/* With the mount that the holder leaves, what is mounted below it would go as well. */
static int check_below(const NodeHolder *holder, const char *path, Error *error)
{
	const char *before = holder->bound ? holder->record.request.directory : NULL;
	size_t length = before ? strlen(before) : 0;
	if (!before || strncmp(path, before, length) != 0 || path[length] != '/')
		return 0;
	return error_set(error, -EBUSY,
			 "%s is inside what is mounted on %s for the same owner; unmount that first: imgfs umount %s",
			 path, before, before);
}

static int check_request(Attach *attach, const ControlRequest *request, Error *error)
{
	char path[PATH_MAX];
	int r = request->directory ? node_bind_check(request->directory, path, error) : 0;
	if (r == 0 && request->directory)
		r = check_below(attach->holder, path, error);
	return r < 0 ? r : copy_request(request, request->directory ? path : NULL, &attach->record.request, error);
}

static char *source_of(const NodeRecord *record)
{
	char digest[DIGEST_TEXT_SIZE], *source;
	const char *reference = record->request.reference ?: "layers";
	const Digest *shown = record->request.layers ? &record->chain_id : &record->manifest;
	return asprintf(&source, "imgfs:%s%s%s", reference, strchr(reference, '@') ? " " : "@",
			digest_text(shown, digest)) < 0
		       ? NULL
		       : source;
}

int node_record_bring(Node *node, NodeImage *image, const NodeRecord *record, const FetchImage *files, Error *error)
{
	_cleanup_(node_settings_done) NodeSettingsCopy copy = { 0 };
	_cleanup_free_ char *source = source_of(record);
	if (!source || node_settings_copy(node, &copy) < 0)
		return error_set(error, -ENOMEM, "out of memory");
	DaemonAttach wanted = {
		.image = files,
		.source = source,
		.deadline = record->request.deadline ?: copy.settings.deadline,
		.no_fill = record->request.no_fill,
		.fill_rate = (uint64_t)record->request.fill_rate,
		.quota = copy.settings.quota,
	};
	return node_image_bring(node, image, &wanted, error);
}

bool node_holder_is_bound(const Node *node, const NodeHolder *holder)
{
	return holder->bound != 0 && holder->bound == node->generation;
}

int node_holder_bind(Node *node, NodeHolder *holder, Error *error)
{
	const ControlRequest *request = &holder->record.request;
	node_lock(node);
	_cleanup_free_ char *path = node_image_path(node, holder->image);
	node_unlock(node);
	if (!path)
		return error_set(error, -ENOMEM, "out of memory");
	int r = node_bind(path, request->directory, request->noexec, error);
	if (r < 0)
		return r;
	node_mark_set(node, holder->owner, holder->record.request.directory);
	node_lock(node);
	holder->bound = node->generation;
	node_unlock(node);
	return 0;
}

/* Puts another record and image in the place of what the holder has; what it had is in their place then. */
static void swap(Node *node, NodeHolder *holder, NodeRecord *record, NodeImage **image)
{
	node_lock(node);
	NodeRecord record_before = holder->record;
	NodeImage *image_before = holder->image;
	holder->record = *record;
	holder->image = *image;
	*record = record_before;
	*image = image_before;
	node_unlock(node);
}

static int write_record(Node *node, const NodeRecord *record, Error *error)
{
	int r = node_record_write(node->attached_fd, record);
	return r < 0 ? error_set(error, r, "it cannot be remembered in %s: %s", node->options.state, strerror(-r)) : 0;
}

/* Unmounts what the holder had mounted elsewhere. */
static void leave_directory(const NodeHolder *holder, const NodeRecord *before)
{
	const char *now = holder->record.request.directory, *then = before->request.directory;
	Error error = { 0 };
	if (then && !(now && strcmp(now, then) == 0) && node_unbind(then, &before->chain_id, true, &error) < 0)
		log_warning("%s owner=%s", error.message, holder->owner);
}

/* From where the holder's image was mounted to where it is wanted now, if anywhere. What cannot be mounted there leaves all as it was. */
static int change_directory(Node *node, NodeHolder *holder, const NodeRecord *before, Error *error)
{
	bool bound = holder->bound != 0;
	if (holder->record.request.directory) {
		int r = node_holder_bind(node, holder, error);
		if (r < 0)
			return r;
	} else if (bound) {
		node_mark_set(node, holder->owner, NULL);
		node_lock(node);
		holder->bound = 0;
		node_unlock(node);
	}
	if (bound)
		leave_directory(holder, before);
	return 0;
}

/*
 * The record is durable before the keeper has the image: a crash on the way leaves something that the next manager completes, never a mount
 * that nobody knows of.
 */
static int put_in_place(Attach *attach, Error *error)
{
	Node *node = attach->node;
	NodeHolder *holder = attach->holder;
	int r = write_record(node, &attach->record, error);
	if (r == 0)
		r = node_record_bring(node, attach->image, &attach->record, &attach->files, error);
	if (r == 0) {
		swap(node, holder, &attach->record, &attach->image);
		r = change_directory(node, holder, &attach->record, error);
		if (r < 0)
			swap(node, holder, &attach->record, &attach->image);
	}
	if (r == 0)
		return 0;
	/* As it was. */
	int undone = holder->record.request.json ? node_record_write(node->attached_fd, &holder->record)
						 : node_record_remove(node->attached_fd, holder->owner);
	if (undone < 0)
		log_error("what failed is still remembered, and is tried at the next start: %s owner=%s",
			  strerror(-undone), holder->owner);
	return r;
}

static int attach_held(Attach *attach, ControlCall *call, const ControlRequest *request, Error *error)
{
	Node *node = attach->node;
	NodeRecord *record = &attach->record;
	int r = check_request(attach, request, error);
	if (r == 0)
		r = node_files_open(node, call, &record->request, NULL, false, &attach->files, record->origin, error);
	if (r < 0)
		return r;
	if (call && control_call_gone(call))
		return error_set(error, -ECANCELED, "whoever asked for it has gone");
	record->manifest = attach->files.manifest;
	record->config = attach->files.config;
	record->chain_id = attach->files.chain_id;
	record->time = (int64_t)time(NULL);
	r = node_image_join(node, &record->chain_id, &attach->image);
	if (r < 0)
		return error_set(error, r, "no slot can be given out in %s: %s", node->options.state, strerror(-r));
	record->slot = attach->image->slot;
	return put_in_place(attach, error);
}

json_t *node_holder_answer(const Node *node, const NodeHolder *holder)
{
	char manifest[DIGEST_TEXT_SIZE], config[DIGEST_TEXT_SIZE], chain_id[DIGEST_TEXT_SIZE];
	const NodeRecord *record = &holder->record;
	_cleanup_free_ char *path = node_image_path(node, holder->image);
	if (!path)
		return NULL;
	return json_pack("{s:I, s:s, s:s, s:s*, s:s*, s:s*}", "slot", (json_int_t)record->slot, "path", path, "chainId",
			 digest_text(&record->chain_id, chain_id), "manifest",
			 record->request.layers ? NULL : digest_text(&record->manifest, manifest), "image",
			 record->request.layers ? NULL : digest_text(&record->config, config), "directory",
			 record->request.directory);
}

static int answer(Node *node, const NodeHolder *holder, bool stale, json_t **ret_answer, Error *error)
{
	node_lock(node);
	json_t *json = node_holder_answer(node, holder);
	node_unlock(node);
	if (!json || json_object_set_new(json, "stale", json_boolean(stale)) < 0) {
		json_decref(json);
		return error_set(error, -ENOMEM, "out of memory");
	}
	*ret_answer = json;
	return 0;
}

int node_attach(Node *node, ControlCall *call, const ControlRequest *request, json_t **ret_answer, Error *error)
{
	Attach attach = { .node = node };
	int r = node_holder_take(node, request->owner, true, &attach.holder);
	if (r < 0)
		return error_set(error, r, "out of memory");
	r = attach_held(&attach, call, request, error);
	if (r == 0) {
		node_lock(node);
		free(attach.holder->fault);
		attach.holder->fault = NULL;
		node_unlock(node);
		r = answer(node, attach.holder, attach.files.stale, ret_answer, error);
	}
	attach_done(&attach);
	node_holder_give(node, attach.holder);
	return r;
}

int node_holder_forget(Node *node, NodeHolder *holder, Error *error)
{
	NodeRecord record = { 0 };
	NodeImage *image = NULL;
	int r = node_record_remove(node->attached_fd, holder->owner);
	if (r < 0)
		return error_set(error, r, "it cannot be forgotten in %s: %s", node->options.state, strerror(-r));
	node_mark_set(node, holder->owner, NULL);
	swap(node, holder, &record, &image);
	node_record_done(&record);
	node_image_leave(node, image);
	return 0;
}

/* The same image for a holder of another name, without a directory. */
static int linger(Node *node, NodeHolder *holder, Error *error)
{
	_cleanup_free_ char *owner = NULL;
	if (asprintf(&owner, "%s (unmounted lazily, slot %u)", holder->owner, holder->record.slot) < 0)
		return error_set(error, -ENOMEM, "out of memory");
	Attach attach = { .node = node };
	json_t *json = json_deep_copy(holder->record.request.json);
	if (!json || json_object_set_new(json, "owner", json_string(owner)) < 0 ||
	    json_object_del(json, "directory") < 0) {
		json_decref(json);
		return error_set(error, -ENOMEM, "out of memory");
	}
	attach.record = holder->record;
	attach.record.request = (ControlRequest){ 0 };
	attach.record.lingering = true;
	int r = control_request_parse(json, &attach.record.request, error);
	if (r == 0)
		r = node_holder_take(node, owner, true, &attach.holder);
	if (r < 0) {
		node_record_done(&attach.record);
		return r;
	}
	r = write_record(node, &attach.record, error);
	if (r == 0)
		r = node_image_join(node, &attach.record.chain_id, &attach.image);
	if (r == 0)
		swap(node, attach.holder, &attach.record, &attach.image);
	attach_done(&attach);
	node_holder_give(node, attach.holder);
	return r;
}

int node_holder_unmounted(Node *node, NodeHolder *holder, bool lazy, bool *ret_lingering, Error *error)
{
	node_lock(node);
	holder->bound = 0;
	bool here = holder->image && holder->image->state == NODE_IMAGE_HERE;
	node_unlock(node);
	*ret_lingering = lazy && here;
	int r = *ret_lingering ? linger(node, holder, error) : 0;
	return r < 0 ? r : node_holder_forget(node, holder, error);
}

static int detach_held(Node *node, NodeHolder *holder, bool lazy, bool *ret_lingering, Error *error)
{
	const NodeRecord *record = &holder->record;
	if (record->request.directory) {
		int r = node_unbind(record->request.directory, &record->chain_id, lazy, error);
		if (r < 0)
			return r;
	}
	return node_holder_unmounted(node, holder, lazy && record->request.directory, ret_lingering, error);
}

int node_detach(Node *node, const char *owner, bool lazy, json_t **ret_answer, Error *error)
{
	NodeHolder *holder;
	bool lingering = false;
	int r = node_holder_take(node, owner, false, &holder);
	if (r < 0)
		return error_set(error, r, "imgfsd holds no image for %s; `imgfs list` shows what it holds", owner);
	r = detach_held(node, holder, lazy, &lingering, error);
	node_holder_give(node, holder);
	if (r < 0)
		return r;
	*ret_answer = json_pack("{s:b}", "lingering", lingering);
	return *ret_answer ? 0 : error_set(error, -ENOMEM, "out of memory");
}
