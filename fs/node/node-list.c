/* What the manager says of itself. */
#include <errno.h>
#include <string.h>

#include "fs/cache/cache-pins.h"
#include "fs/fetch/fetch-seal.h"
#include "fs/node/node-private.h"

#define PAGE (512u << 10) /* bytes of a list in one answer, and one entry more */

static const char *const states[] = {
	[NODE_IMAGE_AWAY] = "away",
	[NODE_IMAGE_MOVING] = "moving",
	[NODE_IMAGE_HERE] = "attached",
};

static int compare(const void *left, const void *right)
{
	return strcmp(*(char *const *)left, *(char *const *)right);
}

static int set(json_t *entry, const char *key, json_t *value)
{
	return json_object_set_new(entry, key, value) < 0 ? -ENOMEM : 0;
}

static int set_text(json_t *entry, const char *key, const char *text)
{
	return text ? set(entry, key, json_string(text)) : 0;
}

/* With the mutex. */
static int describe(const Node *node, const NodeHolder *holder, json_t *entry)
{
	const ControlRequest *request = &holder->record.request;
	int r = set_text(entry, "owner", holder->owner);
	if (r == 0)
		r = set_text(entry, "reference", request->reference);
	if (r == 0)
		r = set_text(entry, "store", request->store);
	if (r == 0)
		r = set_text(entry, "fault", holder->fault);
	if (r == 0)
		r = set(entry, "state", json_string(states[holder->image->state]));
	if (r == 0)
		r = set(entry, "mounted", json_boolean(node_holder_is_bound(node, holder)));
	if (r == 0)
		r = set(entry, "lingering", json_boolean(holder->record.lingering));
	if (r == 0)
		r = set(entry, "time", json_integer(holder->record.time));
	return r;
}

static const NodeHolder *find(const Node *node, const char *owner)
{
	for (const NodeHolder *holder = node->holders; holder; holder = holder->next)
		if (holder->record.request.json && strcmp(holder->owner, owner) == 0)
			return holder;
	return NULL;
}

/* One entry; NULL with 0: it is gone meanwhile. */
static int make_entry(Node *node, const char *owner, json_t **ret_entry)
{
	int r = 0;
	node_lock(node);
	const NodeHolder *holder = find(node, owner);
	Digest manifest = { 0 };
	bool sealed = false;
	json_t *entry = NULL;
	if (holder) {
		manifest = holder->record.manifest;
		entry = node_holder_answer(node, holder);
		r = entry ? describe(node, holder, entry) : -ENOMEM;
	}
	node_unlock(node);
	/* These ask the disk. What servers have sealed layer by layer gets the seal of the image here. */
	const char *reference = json_string_value(json_object_get(entry, "reference"));
	if (entry && reference && json_object_get(entry, "manifest"))
		sealed = fetch_seal_check(node->cache, &manifest, reference);
	if (r == 0 && entry)
		r = set(entry, "sealed", json_boolean(sealed));
	if (r == 0 && entry)
		r = set(entry, "pinned", json_boolean(cache_pin_has(node->cache, CACHE_PIN, &manifest)));
	if (r < 0)
		json_decref(entry);
	else
		*ret_entry = entry;
	return r;
}

static int fill_list(Node *node, char **owners, const char *after, json_t *list, const char **ret_next)
{
	size_t bytes = 0;
	const char *last = NULL;
	for (; *owners; owners++) {
		json_t *entry = NULL;
		if (after && strcmp(*owners, after) <= 0)
			continue;
		if (bytes > PAGE) {
			*ret_next = last;
			return 0;
		}
		int r = make_entry(node, *owners, &entry);
		if (r < 0)
			return r;
		last = *owners;
		if (!entry)
			continue;
		bytes += json_dumpb(entry, NULL, 0, JSON_COMPACT) + 1;
		if (json_array_append_new(list, entry) < 0)
			return -ENOMEM;
	}
	return 0;
}

int node_list(Node *node, const char *after, json_t **ret_answer, Error *error)
{
	_cleanup_free_ char **owners = node_owners(node);
	size_t count = 0;
	const char *next = NULL;
	json_t *list = json_array();
	while (owners && owners[count])
		count++;
	if (owners)
		qsort(owners, count, sizeof(*owners), compare);
	int r = owners && list ? fill_list(node, owners, after, list, &next) : -ENOMEM;
	if (r == 0)
		r = (*ret_answer = json_pack("{s:O, s:s*}", "attached", list, "next", next)) ? 0 : -ENOMEM;
	json_decref(list);
	return r < 0 ? error_set(error, r, "out of memory") : 0;
}

int node_status(Node *node, json_t **ret_answer, Error *error)
{
	unsigned images = 0, holders = 0;
	/* This one is none. */
	unsigned calls = node->server ? control_server_calls(node->server) - 1 : 0;
	node_lock(node);
	for (const NodeImage *image = node->images; image; image = image->next)
		images += image->state == NODE_IMAGE_HERE;
	for (const NodeHolder *holder = node->holders; holder; holder = holder->next)
		holders += holder->record.request.json != NULL;
	unsigned away = node->away, losses = node->generation - 1;
	bool keeper = node->mounts && !node->lost;
	node_unlock(node);
	*ret_answer = json_pack("{s:s, s:i, s:s, s:s, s:s, s:I, s:b, s:i, s:i, s:i, s:i, s:i}", "version",
				node->options.version, "pid", (int)getpid(), "runtime", node->options.runtime, "state",
				node->options.state, "cache", node->options.cache, "started", (json_int_t)node->started,
				"keeper", keeper, "keeperLosses", (int)losses, "images", (int)images, "owners",
				(int)holders, "away", (int)away, "calls", (int)calls);
	return *ret_answer ? 0 : error_set(error, -ENOMEM, "out of memory");
}
