/* The tables of images and of those who hold them. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "fs/base/log.h"
#include "fs/node/node-private.h"

#define BUSY_TURNS 50     /* in which a keeper that is busy with an image is asked again */
#define BUSY_PAUSE 100000 /* microseconds between two */

void node_lock(Node *node)
{
	(void)pthread_mutex_lock(&node->mutex);
}

void node_unlock(Node *node)
{
	(void)pthread_mutex_unlock(&node->mutex);
}

void node_changed(Node *node)
{
	(void)pthread_cond_broadcast(&node->changed);
}

void node_wake(Node *node)
{
	ssize_t written = write(node->wake_fd, &(uint64_t){ 1 }, sizeof(uint64_t));
	(void)written; /* it is full of wakes then */
}

bool node_thread_stop(pthread_t thread, bool *running, unsigned seconds)
{
	struct timespec until;
	(void)clock_gettime(CLOCK_REALTIME, &until); /* what this call waits by */
	until.tv_sec += seconds;
	if (*running && pthread_timedjoin_np(thread, NULL, &until) != 0)
		return false;
	*running = false;
	return true;
}

static void wait_changed(Node *node)
{
	(void)pthread_cond_wait(&node->changed, &node->mutex);
}

static NodeHolder *find_holder(const Node *node, const char *owner)
{
	for (NodeHolder *holder = node->holders; holder; holder = holder->next)
		if (strcmp(holder->owner, owner) == 0)
			return holder;
	return NULL;
}

static NodeHolder *add_holder(Node *node, const char *owner)
{
	NodeHolder *holder = calloc(1, sizeof(*holder));
	if (holder)
		holder->owner = strdup(owner);
	if (!holder || !holder->owner) {
		free(holder);
		return NULL;
	}
	holder->next = node->holders;
	node->holders = holder;
	return holder;
}

int node_holder_take(Node *node, const char *owner, bool create, NodeHolder **ret_holder)
{
	node_lock(node);
	NodeHolder *holder = find_holder(node, owner);
	if (!holder && create)
		holder = add_holder(node, owner);
	if (!holder) {
		node_unlock(node);
		return create ? -ENOMEM : -ENOENT;
	}
	holder->waiting++;
	while (holder->busy)
		wait_changed(node);
	holder->waiting--;
	holder->busy = true;
	/* Who had it before may have let it go. */
	bool wanted = create || holder->record.request.json;
	node_unlock(node);
	if (!wanted) {
		node_holder_give(node, holder);
		return -ENOENT;
	}
	*ret_holder = holder;
	return 0;
}

int node_holder_try(Node *node, const char *owner, NodeHolder **ret_holder)
{
	node_lock(node);
	NodeHolder *holder = find_holder(node, owner);
	int r = !holder ? -ENOENT : holder->busy ? -EBUSY : !holder->record.request.json ? -ENOENT : 0;
	if (r == 0) {
		holder->busy = true;
		*ret_holder = holder;
	}
	node_unlock(node);
	return r;
}

void node_holder_give(Node *node, NodeHolder *holder)
{
	node_lock(node);
	holder->busy = false;
	if (!holder->record.request.json && holder->waiting == 0) {
		NodeHolder **at = &node->holders;
		while (*at != holder)
			at = &(*at)->next;
		*at = holder->next;
		free(holder->owner);
		free(holder->fault);
		free(holder);
	}
	node_changed(node);
	node_unlock(node);
}

char **node_owners(Node *node)
{
	size_t count = 1, bytes = 0;
	node_lock(node);
	for (const NodeHolder *holder = node->holders; holder; holder = holder->next, count++)
		bytes += strlen(holder->owner) + 1;
	char **owners = malloc(count * sizeof(*owners) + bytes);
	char *text = owners ? (char *)(owners + count) : NULL;
	size_t at = 0;
	for (const NodeHolder *holder = node->holders; owners && holder; holder = holder->next) {
		owners[at++] = text;
		text = stpcpy(text, holder->owner) + 1;
	}
	if (owners)
		owners[at] = NULL;
	node_unlock(node);
	return owners;
}

static NodeImage *find_image(const Node *node, const Digest *chain_id)
{
	for (NodeImage *image = node->images; image; image = image->next)
		if (digest_equal(&image->chain_id, chain_id))
			return image;
	return NULL;
}

/* With the mutex. */
static void drop_image(Node *node, NodeImage *image)
{
	NodeImage **at = &node->images;
	while (*at != image)
		at = &(*at)->next;
	*at = image->next;
	free(image);
	node_changed(node);
}

static int take_slot(Node *node, const Digest *chain_id, uint32_t *ret_slot)
{
	node_lock(node);
	while (node->slots_taken)
		wait_changed(node);
	node->slots_taken = true;
	node_unlock(node);
	int r = node_slots_take(&node->slots, chain_id, ret_slot);
	node_lock(node);
	node->slots_taken = false;
	node_changed(node);
	node_unlock(node);
	return r;
}

int node_image_join(Node *node, const Digest *chain_id, NodeImage **ret_image)
{
	node_lock(node);
	NodeImage *image;
	/* Found anew after each wait: one that is being taken away is gone then. */
	while ((image = find_image(node, chain_id)) && image->state == NODE_IMAGE_MOVING)
		wait_changed(node);
	if (image) {
		image->users++;
		node_unlock(node);
		*ret_image = image;
		return 0;
	}
	image = calloc(1, sizeof(*image));
	if (!image) {
		node_unlock(node);
		return -ENOMEM;
	}
	*image = (NodeImage){ .next = node->images, .state = NODE_IMAGE_MOVING, .users = 1, .chain_id = *chain_id };
	node->images = image;
	node_unlock(node);

	int r = take_slot(node, chain_id, &image->slot);
	node_lock(node);
	if (r < 0) {
		drop_image(node, image);
	} else {
		image->state = NODE_IMAGE_AWAY;
		node_changed(node);
		*ret_image = image;
	}
	node_unlock(node);
	return r;
}

/*
 * While a server starts, the keeper may be busy giving it the very image. What cannot be taken away at all is found when the image is attached again, or
 * when the manager starts again.
 */
static void take_away(Node *node, uint32_t slot)
{
	Error error = { 0 };
	int r = -EBUSY;
	for (int turn = 0; turn < BUSY_TURNS && r == -EBUSY; turn++) {
		DaemonMounts *mounts;
		if (turn > 0)
			(void)usleep(BUSY_PAUSE);
		r = node_keeper_take(node, &mounts, &error);
		if (r < 0)
			break;
		r = daemon_mounts_detach(mounts, slot, &error);
		node_keeper_give(node, r);
	}
	if (r < 0 && r != -ENOENT && r != -EPIPE)
		log_warning("an image that nobody holds stays for now: %s slot=%u", error_text(&error, r), slot);
}

void node_image_leave(Node *node, NodeImage *image)
{
	if (!image)
		return;
	node_lock(node);
	while (image->state == NODE_IMAGE_MOVING)
		wait_changed(node);
	if (--image->users > 0) {
		node_unlock(node);
		return;
	}
	bool here = image->state == NODE_IMAGE_HERE;
	image->state = NODE_IMAGE_MOVING;
	node_unlock(node);
	if (here)
		take_away(node, image->slot);
	node_lock(node);
	drop_image(node, image);
	node_unlock(node);
}

/*
 * The keeper has the image already: from an attach whose answer nobody heard, since a manager died or lost its patience, or a detach that failed. Under the
 * same number it is what is wanted; under another one nobody holds it, and it goes.
 */
static int settle(DaemonMounts *mounts, const DaemonAttach *attach, DaemonSlot *slot, Error *error)
{
	_cleanup_free_ DaemonSlot *slots = NULL;
	size_t count = 0;
	char hex[DIGEST_HEX_SIZE];
	(void)digest_hex(&attach->image->chain_id, hex);
	int r = daemon_mounts_list(mounts, &slots, &count, error);
	if (r < 0)
		return r;
	for (size_t i = 0; i < count; i++) {
		if (strcmp(slots[i].chain_id, hex) != 0)
			continue;
		if (slots[i].slot == attach->slot) {
			*slot = slots[i];
			return 0;
		}
		r = daemon_mounts_detach(mounts, slots[i].slot, error);
		return r < 0 ? r : daemon_mounts_attach(mounts, attach, slot, error);
	}
	return error_set(error, -EEXIST, "the keeper of the mounts is still busy with an earlier attach of it");
}

/*
 * A keeper that dies meanwhile is replaced, and the next one is asked. `ret_generation` is that of the keeper that has the image: whether it
 * still lives is another question.
 */
static int give_to_keeper(Node *node, const DaemonAttach *attach, DaemonSlot *slot, unsigned *ret_generation,
			  Error *error)
{
	int r = 0;
	for (int turn = 0; turn < 3; turn++) {
		DaemonMounts *mounts;
		r = node_keeper_take(node, &mounts, error);
		if (r < 0)
			return r;
		/* It cannot change during the turn. */
		*ret_generation = node->generation;
		r = daemon_mounts_attach(mounts, attach, slot, error);
		if (r == -EEXIST)
			r = settle(mounts, attach, slot, error);
		node_keeper_give(node, r);
		if (r != -EPIPE)
			break;
	}
	return r;
}

int node_image_bring(Node *node, NodeImage *image, const DaemonAttach *wanted, Error *error)
{
	node_lock(node);
	while (image->state == NODE_IMAGE_MOVING)
		wait_changed(node);
	bool here = image->state == NODE_IMAGE_HERE;
	if (!here)
		image->state = NODE_IMAGE_MOVING;
	node_unlock(node);
	DaemonAttach attach = *wanted;
	attach.slot = image->slot;
	int r = 0;
	while (r == 0 && !here) {
		DaemonSlot slot = { 0 };
		unsigned generation = 0;
		r = give_to_keeper(node, &attach, &slot, &generation, error);
		node_lock(node);
		here = r == 0 && generation == node->generation;
		if (here || r < 0) {
			image->state = here ? NODE_IMAGE_HERE : NODE_IMAGE_AWAY;
			image->xattr = slot.xattr;
			node_changed(node);
		}
		node_unlock(node);
	}
	return r;
}

char *node_image_path(const Node *node, const NodeImage *image)
{
	char hex[DIGEST_HEX_SIZE], *path;
	return asprintf(&path, "%s/fs/%s/%s", node->options.runtime, image->xattr ? "xattr" : "plain",
			digest_hex(&image->chain_id, hex)) < 0
		       ? NULL
		       : path;
}
