/*
 * What goes on by itself: images are brought back at the start and when the keeper was lost, and what somebody has unmounted by hand is let
 * go. A thread of its own does it, so that nobody who asks waits for it.
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "fs/base/deadline.h"
#include "fs/base/log.h"
#include "fs/mount/mount-table.h"
#include "fs/node/node-bind.h"
#include "fs/node/node-private.h"

#define RETRY_FIRST  1   /* seconds */
#define RETRY_LAST   60  /* between two rounds for what is away */
#define TABLE_PAUSE  200 /* milliseconds between two looks at the table of mounts */
#define KEEPER_WAIT  30  /* seconds for a keeper that somebody else starts */
#define KEEPER_PAUSE 100 /* milliseconds between two looks for it */
#define STOP_SECONDS 3

static void pause_ms(long milliseconds)
{
	struct timespec time = { .tv_sec = milliseconds / 1000, .tv_nsec = milliseconds % 1000 * 1000000 };
	(void)nanosleep(&time, NULL);
}

static int add_image(Node *node, const NodeRecord *record, NodeImage **ret_image)
{
	for (NodeImage *image = node->images; image; image = image->next) {
		if (digest_equal(&image->chain_id, &record->chain_id)) {
			image->users++;
			*ret_image = image;
			return 0;
		}
	}
	NodeImage *image = calloc(1, sizeof(*image));
	if (!image)
		return -ENOMEM;
	*image = (NodeImage){ .next = node->images, .users = 1, .slot = record->slot, .chain_id = record->chain_id };
	node->images = image;
	*ret_image = image;
	return 0;
}

/* One record, at the start. */
static int add_record(void *arg, NodeRecord *record, const char *name, const Error *error)
{
	Node *node = arg;
	NodeHolder *holder;
	if (!record) {
		node->unread++;
		log_error("a record cannot be used, and its image is not brought back: %s file=%s/attached/%s",
			  error->message, node->options.state, name);
		return 0;
	}
	int r = node_holder_take(node, record->request.owner, true, &holder);
	if (r < 0)
		return r;
	r = add_image(node, record, &holder->image);
	if (r == 0) {
		if (record->slot > node->slots.last)
			node->slots.last = record->slot;
		holder->record = *record;
		*record = (NodeRecord){ 0 };
	}
	node_holder_give(node, holder);
	return r;
}

/* What the keeper says of a slot. Returns whether anybody wants it. */
static bool note_slot(Node *node, const DaemonSlot *slot)
{
	bool wanted = false;
	node_lock(node);
	for (NodeImage *image = node->images; image; image = image->next) {
		char hex[DIGEST_HEX_SIZE];
		if (image->slot != slot->slot || strcmp(digest_hex(&image->chain_id, hex), slot->chain_id) != 0)
			continue;
		wanted = true;
		if (image->state == NODE_IMAGE_AWAY) {
			image->state = NODE_IMAGE_HERE;
			image->xattr = slot->xattr;
		}
	}
	node_changed(node);
	node_unlock(node);
	return wanted;
}

/*
 * Nobody is known to hold it, but a record that was lost may have said who does, and programs may use it: it stays until a manager starts that can read all.
 * Whoever attaches it meanwhile gets it under the number that it has. Returns false where it is not to stay.
 */
static bool adopt(Node *node, const DaemonSlot *slot)
{
	NodeRecord record = { .slot = slot->slot };
	NodeImage *image;
	if (node->unread == 0 || digest_from_hex(slot->chain_id, &record.chain_id) < 0)
		return false;
	node_lock(node);
	for (image = node->images; image && !digest_equal(&image->chain_id, &record.chain_id); image = image->next)
		;
	bool adopted = !image && add_image(node, &record, &image) == 0;
	if (adopted) {
		image->state = NODE_IMAGE_HERE;
		image->xattr = slot->xattr;
	}
	node_unlock(node);
	if (adopted)
		log_warning("the keeper has an image that nobody is known to hold; it stays, for a record that cannot "
			    "be used slot=%u chain=%s",
			    slot->slot, slot->chain_id);
	return adopted;
}

/* The kernel may still know files by the numbers that the keeper has or had, though the file of slots was lost: they are not given out again. */
static void raise_last(Node *node, uint32_t highest, const DaemonSlot *slots, size_t count)
{
	node_lock(node);
	while (node->slots_taken)
		(void)pthread_cond_wait(&node->changed, &node->mutex);
	if (highest > node->slots.last)
		node->slots.last = highest;
	for (size_t i = 0; i < count; i++)
		if (slots[i].slot > node->slots.last)
			node->slots.last = slots[i].slot;
	node_unlock(node);
}

/* Compares what the keeper has with what is wanted. */
static int reconcile(Node *node, Error *error)
{
	DaemonMounts *mounts;
	_cleanup_free_ DaemonSlot *slots = NULL;
	size_t count = 0;
	int r = node_keeper_take(node, &mounts, error);
	if (r < 0)
		return r;
	r = daemon_mounts_list(mounts, &slots, &count, error);
	raise_last(node, daemon_mounts_highest(mounts), slots, count);
	for (size_t i = 0; r == 0 && i < count; i++) {
		if (note_slot(node, &slots[i]) || adopt(node, &slots[i]))
			continue;
		log_info("the keeper has an image that nobody holds; it goes slot=%u chain=%s", slots[i].slot,
			 slots[i].chain_id);
		r = daemon_mounts_detach(mounts, slots[i].slot, error);
		if (r == -EBUSY || r == -ENOENT) {
			log_warning("it stays for now: %s slot=%u", error_text(error, r), slots[i].slot);
			r = 0;
		}
	}
	node_keeper_give(node, r);
	return r;
}

static bool is_here(Node *node, const NodeHolder *holder)
{
	node_lock(node);
	bool here = holder->image->state == NODE_IMAGE_HERE;
	node_unlock(node);
	return here;
}

/* Where the shared mount is that has the holder's image, as mountinfo has it; malloc'ed. NULL: it cannot be said. */
static char *shared_mount(Node *node, const NodeHolder *holder)
{
	char runtime[PATH_MAX], *path;
	node_lock(node);
	bool xattr = holder->image->xattr;
	node_unlock(node);
	if (mount_table_path(node->options.runtime, runtime) < 0 ||
	    asprintf(&path, "%s/fs/%s", runtime, xattr ? "xattr" : "plain") < 0)
		return NULL;
	return path;
}

/* Is what is mounted for the holder of the keeper that lives? Something else may lie on top of it, an overlay say. */
static bool is_alive(Node *node, const NodeHolder *holder, const char *table)
{
	_cleanup_free_ char *path = shared_mount(node, holder);
	return path && node_bound_of(table, holder->record.request.directory, &holder->record.chain_id, path);
}

/* A keeper has it: was it unmounted while no manager looked, or is it still to be mounted? */
static void note_mount(Node *node, NodeHolder *holder)
{
	const NodeRecord *record = &holder->record;
	const char *directory = record->request.directory;
	Error error = { 0 };
	bool lingering;
	if (record->lingering && !is_here(node, holder)) {
		if (node_holder_forget(node, holder, &error) < 0)
			log_error("%s owner=%s", error.message, holder->owner);
		return;
	}
	_cleanup_free_ char *table = node_mount_table();
	if (!directory || !is_here(node, holder) || !table)
		return;
	if (node_bound_search(table, directory, &record->chain_id)) {
		/* What a dead keeper has left there looks alike; it is mounted anew later. */
		if (!is_alive(node, holder, table))
			return;
		node_lock(node);
		holder->bound = node->generation;
		node_unlock(node);
	} else if (node_mark_has(node, holder->owner)) {
		log_info("unmounted while imgfsd did not run; it goes directory=%s", directory);
		if (node_holder_unmounted(node, holder, node_overlay_on(directory), &lingering, &error) < 0)
			log_error("%s directory=%s", error.message, directory);
	}
}

/* What lies at the directory is of a keeper that is dead; other mounts are not touched. */
static int bind_again(Node *node, NodeHolder *holder, Error *error)
{
	const NodeRecord *record = &holder->record;
	const char *directory = record->request.directory;
	_cleanup_free_ char *table = node_mount_table();
	if (table && node_bound_search(table, directory, &record->chain_id) &&
	    !node_bound(directory, &record->chain_id))
		return error_set(error, -EBUSY,
				 "a mount of a keeper that has died lies at %s below another mount, which findmnt %s "
				 "shows; once that is unmounted, the image is mounted there again by itself",
				 directory, directory);
	int r = node_unbind(directory, &record->chain_id, true, error);
	return r < 0 ? r : node_holder_bind(node, holder, error);
}

static int bring_holder(Node *node, NodeHolder *holder, bool offline, Error *error)
{
	NodeRecord *record = &holder->record;
	int r = 0;
	if (!is_here(node, holder)) {
		FetchImage files = { 0 };
		char origin[NODE_ORIGIN_SIZE]; /* the record goes on naming the one it was attached from */
		r = node_files_open(node, NULL, &record->request, record, offline, &files, origin, error);
		if (r == 0 && !digest_equal(&files.chain_id, &record->chain_id))
			r = error_set(error, -EBADMSG, "what was opened is another image than the one that was held");
		if (r == 0)
			r = node_record_bring(node, holder->image, record, &files, error);
		fetch_image_done(&files);
	}
	if (r == 0 && record->request.directory && !node_holder_is_bound(node, holder))
		r = bind_again(node, holder, error);
	return r;
}

/* Notes why it is away, or that it is back. Returns whether that is news. */
static bool note_fault(Node *node, NodeHolder *holder, const char *fault)
{
	char *copy = fault ? strdup(fault) : NULL;
	node_lock(node);
	bool news = !holder->fault != !copy || (copy && strcmp(holder->fault, copy) != 0);
	free(holder->fault);
	holder->fault = copy;
	node_unlock(node);
	return news;
}

static bool is_ending(Node *node)
{
	node_lock(node);
	bool ending = node->ending;
	node_unlock(node);
	return ending;
}

/*
 * A round over all who hold something. Nobody is waited for who is being attached or detached: these see to themselves. Returns how many were
 * passed over for that.
 */
static unsigned each_holder(Node *node, void (*each)(Node *node, NodeHolder *holder, void *arg), void *arg)
{
	_cleanup_free_ char **owners = node_owners(node);
	unsigned passed = owners ? 0 : 1;
	for (char **owner = owners; owner && *owner && !is_ending(node); owner++) {
		NodeHolder *holder;
		int r = node_holder_try(node, *owner, &holder);
		passed += r == -EBUSY;
		if (r < 0)
			continue;
		each(node, holder, arg);
		node_holder_give(node, holder);
	}
	return passed;
}

typedef struct Round {
	bool offline;
	unsigned away;
} Round;

static void bring_one(Node *node, NodeHolder *holder, void *arg)
{
	Round *round = arg;
	Error error = { 0 };
	int r = bring_holder(node, holder, round->offline, &error);
	round->away += r < 0;
	if (!note_fault(node, holder, r < 0 ? error_text(&error, r) : NULL))
		return;
	if (r < 0)
		log_warning("cannot be brought back yet: %s owner=%s", error_text(&error, r), holder->owner);
	else
		log_info("is back after all owner=%s", holder->owner);
}

static void look_one(Node *node, NodeHolder *holder, void *arg _unused_)
{
	note_mount(node, holder);
}

static void bring_back(Node *node, bool offline)
{
	Round round = { .offline = offline };
	unsigned passed = each_holder(node, bring_one, &round);
	node_lock(node);
	node->away = round.away + passed;
	node_changed(node);
	node_unlock(node);
}

/* Where somebody else starts the keeper, it may not be there yet. */
static int wait_for_keeper(Node *node, Error *error)
{
	for (int i = 0;; i++) {
		int r = node_keeper_open(node, error);
		if (r != -ENOENT || node->options.start_keeper || i == KEEPER_WAIT * 1000 / KEEPER_PAUSE ||
		    is_ending(node))
			return r;
		pause_ms(KEEPER_PAUSE);
	}
}

int node_restore(Node *node, Error *error)
{
	int r = node_records_read(node->attached_fd, true, add_record, node);
	if (r < 0)
		return error_set(error, r, "cannot read what was attached in %s: %s", node->options.state,
				 strerror(-r));
	node->unread += node_marks_lost(node);
	r = wait_for_keeper(node, error);
	if (r == 0)
		r = reconcile(node, error);
	if (r < 0)
		return r;
	(void)each_holder(node, look_one, NULL);
	bring_back(node, true);
	return 0;
}

static void log_death(void)
{
	log_error(
		"the keeper of the mounts has died; another one takes over, and programs that used them have to start "
		"again");
}

static pid_t keeper_of(Node *node)
{
	node_lock(node);
	pid_t keeper = node->mounts ? daemon_mounts_keeper(node->mounts) : 0;
	node_unlock(node);
	return keeper;
}

/* The keeper has died, and all mounts with it; or else it was not waited for any longer, and what it said meanwhile is not known. */
static void recover(Node *node)
{
	Error error = { 0 };
	node_lock(node);
	bool late = node->mounts && daemon_mounts_was_late(node->mounts);
	node_unlock(node);
	pid_t before = keeper_of(node);
	if (late)
		log_warning("the keeper of the mounts has not answered in time; it is connected to anew, and what is "
			    "mounted stays");
	else
		log_death();
	node_keeper_drop(node);
	for (unsigned pause = RETRY_FIRST; !is_ending(node); pause = pause < RETRY_LAST ? 2 * pause : RETRY_LAST) {
		int r = wait_for_keeper(node, &error);
		bool open = r == 0;
		if (open)
			r = reconcile(node, &error);
		if (r == 0)
			break;
		log_error("no keeper: %s", error_text(&error, r));
		if (open) /* one that stays connected and unused takes another client's place */
			node_keeper_drop(node);
		for (unsigned i = 0; i < pause * 10 && !is_ending(node); i++)
			pause_ms(100);
	}
	if (late && keeper_of(node) != before && !is_ending(node))
		log_death();
	(void)each_holder(node, look_one, NULL);
	bring_back(node, true);
}

/*
 * The keeper has made one of its mounts anew, since it was aborted: binds of the old one are dead. While it is not there, nothing is said of them.
 */
static void look_after(Node *node, NodeHolder *holder, const char *table)
{
	const char *directory = holder->record.request.directory;
	_cleanup_free_ char *whole = shared_mount(node, holder), *copy = strdup(table);
	Error error = { 0 };
	MountEntry entry;
	if (!whole || !copy || !is_here(node, holder) || mount_table_search(copy, whole, &entry) < 0 ||
	    node_bound_in(table, directory, whole) || !node_bound(directory, &holder->record.chain_id))
		return;
	_cleanup_free_ char *now = node_mount_table(); /* the table may be older than the bind */
	if (!now || is_alive(node, holder, now))
		return;
	if (bind_again(node, holder, &error) < 0)
		log_error("%s owner=%s", error.message, holder->owner);
	else
		log_info("is mounted again, since what it was of was aborted owner=%s", holder->owner);
}

static void reap_one(Node *node, NodeHolder *holder, void *arg)
{
	const char *table = arg, *directory = holder->record.request.directory;
	Error error = { 0 };
	bool lingering = false;
	if (directory && !node_holder_is_bound(node, holder) && is_here(node, holder))
		bring_one(node, holder, &(Round){ .offline = true }); /* what was in the way may be gone */
	if (!directory || !node_holder_is_bound(node, holder))
		return;
	if (node_bound_search(table, directory, &holder->record.chain_id)) {
		look_after(node, holder, table);
		return;
	}
	/* The table was read before this holder was taken: it may have been mounted since. */
	_cleanup_free_ char *again = node_mount_table();
	if (!again || node_bound_search(again, directory, &holder->record.chain_id))
		return;
	if (is_ending(node)) /* then it was this process, on its way out */
		return;
	if (node_holder_unmounted(node, holder, node_overlay_search(again, directory), &lingering, &error) < 0)
		log_error("%s directory=%s", error.message, directory);
	else
		log_info("was unmounted by hand%s owner=%s",
			 lingering ? ", but an overlay uses it: it stays attached" : "", holder->owner);
}

static void reap(Node *node)
{
	_cleanup_free_ char *table = node_mount_table();
	if (!table || each_holder(node, reap_one, table) == 0)
		return;
	node_lock(node);
	node->table_changed = true; /* once more, for those who were passed over */
	node_unlock(node);
}

typedef struct Work {
	bool lost, table, retry;
} Work;

/* Waits for something to do: not before `table` for mounts, not before `retry` for what is away. False: the end. */
static bool await_work(Node *node, const struct timespec *table, const struct timespec *retry, Work *work)
{
	node_lock(node);
	for (;;) {
		*work = (Work){
			.lost = node->lost,
			.table = node->table_changed && deadline_is_over(table),
			.retry = node->away > 0 && deadline_is_over(retry),
		};
		if (node->ending || work->lost || work->table || work->retry)
			break;
		const struct timespec *until = node->table_changed ? table : node->away > 0 ? retry : NULL;
		(void)(until ? pthread_cond_timedwait(&node->changed, &node->mutex, until)
			     : pthread_cond_wait(&node->changed, &node->mutex));
	}
	if (work->table)
		node->table_changed = false;
	bool goes_on = !node->ending;
	node_unlock(node);
	return goes_on;
}

static void *keep(void *arg)
{
	Node *node = arg;
	Work work;
	unsigned pause = RETRY_FIRST;
	struct timespec table = deadline_in(0), retry = deadline_in(0);
	while (await_work(node, &table, &retry, &work)) {
		if (work.lost) {
			recover(node);
			pause = RETRY_FIRST;
			retry = deadline_in(0);
		} else if (work.retry) {
			bring_back(node, false);
			retry = deadline_in((int64_t)pause * 1000);
			pause = pause < RETRY_LAST / 2 ? 2 * pause : RETRY_LAST;
		}
		if (work.table) {
			reap(node);
			table = deadline_in(TABLE_PAUSE);
		}
	}
	return NULL;
}

int node_keeping_start(Node *node)
{
	int r = -pthread_create(&node->keeping, NULL, keep, node);
	node->is_keeping = r == 0;
	if (r == 0)
		r = node_room_start(node);
	return r == 0 ? node_logins_start(node) : r;
}

bool node_keeping_stop(Node *node)
{
	node_lock(node);
	node->ending = true;
	node_changed(node);
	node_unlock(node);
	if (!node_thread_stop(node->keeping, &node->is_keeping, STOP_SECONDS))
		return false;
	bool stopped = node_room_stop(node);
	return node_logins_stop(node) && stopped;
}
