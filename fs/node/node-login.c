/*
 * Newer logins for images that are attached: what a credential helper gives is valid for hours only, and an image is held for months. The server counts what was
 * refused (login-box.h); then whoever has logins is asked again, for every image as when it was attached.
 */
#include <errno.h>
#include <string.h>

#include "fs/base/deadline.h"
#include "fs/base/log.h"
#include "fs/mount/login-box.h"
#include "fs/net/net-secret.h"
#include "fs/node/node-private.h"

#define INTERVAL     2  /* seconds between two looks */
#define PAUSE_MAX    60 /* and at most between two rounds, while nobody has another login */
#define STOP_SECONDS 3

typedef struct Logins {
	LoginBoxes *boxes;   /* NULL: there are none */
	unsigned generation; /* of the keeper that has them */
	uint64_t refused;    /* when it was looked at last */
	LoginPair *pairs;
	size_t count;
} Logins;

static void pairs_done(Logins *logins)
{
	for (size_t i = 0; i < logins->count; i++) {
		net_secret_wipe(&logins->pairs[i].before);
		net_secret_wipe(&logins->pairs[i].now);
	}
	free(logins->pairs);
	logins->pairs = NULL;
	logins->count = 0;
}

/* False: it is time to end. */
static bool pause_for(Node *node, unsigned seconds)
{
	struct timespec until = deadline_in((int64_t)seconds * 1000);
	node_lock(node);
	while (!node->ending && pthread_cond_timedwait(&node->changed, &node->mutex, &until) == 0)
		;
	bool ending = node->ending;
	node_unlock(node);
	return !ending;
}

/* Maps that of the keeper that there is now. */
static void open_boxes(Node *node, Logins *logins)
{
	DaemonMounts *mounts;
	Error error = { 0 };
	_cleanup_close_ int fd = -1;
	node_lock(node);
	bool current = !node->mounts || node->lost || node->generation == logins->generation;
	node_unlock(node);
	if (current || node_keeper_take(node, &mounts, &error) < 0)
		return;
	logins->generation = node->generation; /* it cannot change during the turn */
	int r = daemon_mounts_metrics(mounts, &fd, &error);
	node_keeper_give(node, r);
	login_box_close(logins->boxes);
	logins->boxes = NULL;
	if (r < 0 || login_box_open(fd, &logins->boxes) < 0)
		log_info("logins are not renewed: the keeper is of an older build");
	else
		logins->refused = atomic_load(&logins->boxes->box.refused);
}

static int access_of(Node *node, uint32_t slot, char **ret_access)
{
	DaemonMounts *mounts;
	Error error = { 0 };
	int r = node_keeper_take(node, &mounts, &error);
	if (r < 0)
		return r;
	r = daemon_mounts_access(mounts, slot, ret_access, &error);
	node_keeper_give(node, r);
	return r;
}

static int add_pair(Logins *logins, char **before, char **now)
{
	LoginPair *larger = reallocarray(logins->pairs, logins->count + 1, sizeof(*larger));
	if (!larger)
		return -ENOMEM;
	logins->pairs = larger;
	larger[logins->count++] = (LoginPair){ .before = TAKE_PTR(*before), .now = TAKE_PTR(*now) };
	return 0;
}

static bool has_pair(const Logins *logins, const char *before)
{
	for (size_t i = 0; i < logins->count; i++)
		if (strcmp(logins->pairs[i].before, before) == 0)
			return true;
	return false;
}

/* As whom would the image of a holder, which is taken, be asked for now? */
static void renew_one(Node *node, NodeHolder *holder, Logins *logins)
{
	const ControlRequest *request = &holder->record.request;
	char origin[NODE_ORIGIN_SIZE], *before = NULL, *now = NULL;
	FetchImage files = { 0 };
	Error error = { 0 };
	node_lock(node);
	bool here = holder->image && holder->image->state == NODE_IMAGE_HERE;
	node_unlock(node);
	if (!here || request->store || access_of(node, holder->record.slot, &before) < 0 || !before)
		return;
	if (!has_pair(logins, before)) {
		int r = node_files_open(node, NULL, request, &holder->record, true, &files, origin, &error);
		if (r == 0)
			now = TAKE_PTR(files.access);
		if (now && strcmp(now, before) != 0 && add_pair(logins, &before, &now) < 0)
			log_warning("out of memory for a login owner=%s", holder->owner);
		fetch_image_done(&files);
	}
	net_secret_wipe(&before);
	net_secret_wipe(&now);
}

/* Says whether there is any other login than those that the images were attached with. */
static bool renew_all(Node *node, Logins *logins)
{
	_cleanup_free_ char **owners = node_owners(node);
	for (char **owner = owners; owner && *owner; owner++) {
		NodeHolder *holder;
		if (node_holder_try(node, *owner, &holder) < 0)
			continue;
		renew_one(node, holder, logins);
		node_holder_give(node, holder);
	}
	int r = logins->count > 0 ? login_box_write(logins->boxes, logins->pairs, logins->count) : 0;
	if (r < 0)
		log_warning("newer logins cannot be handed on reason=\"%s\"", strerror(-r));
	else if (logins->count > 0)
		log_info("a login was refused, and newer ones were got count=%zu", logins->count);
	bool renewed = r == 0 && logins->count > 0;
	pairs_done(logins);
	return renewed;
}

static void *keep_logins(void *arg)
{
	Node *node = arg;
	Logins logins = { 0 };
	unsigned pause = INTERVAL;
	while (pause_for(node, pause)) {
		open_boxes(node, &logins);
		uint64_t refused = logins.boxes ? atomic_load(&logins.boxes->box.refused) : 0;
		bool wanted = refused != logins.refused;
		logins.refused = refused;
		/* A helper that has nothing new is not run every other second. */
		if (!wanted || renew_all(node, &logins))
			pause = INTERVAL;
		else
			pause = 2 * pause < PAUSE_MAX ? 2 * pause : PAUSE_MAX;
	}
	login_box_close(logins.boxes);
	return NULL;
}

int node_logins_start(Node *node)
{
	int r = -pthread_create(&node->logins, NULL, keep_logins, node);
	node->is_keeping_logins = r == 0;
	return r;
}

bool node_logins_stop(Node *node)
{
	return node_thread_stop(node->logins, &node->is_keeping_logins, STOP_SECONDS);
}
