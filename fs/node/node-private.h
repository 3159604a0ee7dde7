/* Private to the room: the manager's tables, and who may touch them. */
#pragma once

#include <pthread.h>

#include "fs/cache/cache-store.h"
#include "fs/control/control-server.h"
#include "fs/mount/daemon-mounts.h"
#include "fs/node/node-record.h"
#include "fs/node/node-slots.h"
#include "fs/node/node.h"

/* An image is one chain of layers and has one slot, however many hold it. */
typedef enum NodeImageState {
	NODE_IMAGE_AWAY,   /* the keeper does not have it */
	NODE_IMAGE_MOVING, /* some thread gives it to the keeper or takes it away; only that one may touch it */
	NODE_IMAGE_HERE,
} NodeImageState;

typedef struct NodeImage {
	struct NodeImage *next;
	NodeImageState state;
	unsigned users; /* holders */
	uint32_t slot;  /* 0: not given out yet */
	bool xattr;     /* below fs/xattr, not fs/plain */
	Digest chain_id;
} NodeImage;

/* Somebody who holds an image, by name. What it holds is changed only by the thread that has set `busy`, and only with the mutex. */
typedef struct NodeHolder {
	struct NodeHolder *next;
	char *owner;
	bool busy;
	unsigned waiting; /* threads that want it */

	NodeRecord record; /* its json is NULL: it holds nothing yet, or no more */
	NodeImage *image;  /* NULL likewise */
	unsigned bound;    /* generation of the keeper whose image is mounted at the record's directory; 0: none */
	char *fault;       /* why it is not back; NULL: it is */
} NodeHolder;

/* The settings with texts and hosts of its own. */
typedef struct NodeSettingsCopy {
	NodeSettings settings;
	char *certs, *login, *source;
	NetHosts hosts;
} NodeSettingsCopy;

/*
 * The mutex covers all that stands below it; it is held for moments only, never while the disk, the network or the keeper is waited for. Who wants the
 * keeper or the file of slots takes a turn instead.
 */
typedef struct Node {
	NodeOptions options;
	CacheStore *cache;
	int lock_fd; /* of the state: one manager at a time */
	int runtime_lock_fd;
	int attached_fd; /* records */
	int bound_fd;    /* marks of what is mounted, which go with the machine's memory */
	NodeSlots slots;
	int wake_fd;           /* wakes the main loop */
	ControlServer *server; /* the main loop's */
	char *socket;          /* its path */
	time_t started;        /* seconds since 1970 */

	pthread_mutex_t mutex;
	pthread_cond_t changed; /* anything of the below */
	NodeSettingsCopy defaults;
	NodeImage *images;
	NodeHolder *holders;
	DaemonMounts *mounts; /* NULL: there is no keeper now */
	unsigned generation;  /* 1, and one more with each keeper that was lost: its mounts are dead */
	bool mounts_taken, slots_taken;
	bool lost;          /* the keeper has died */
	bool table_changed; /* something was mounted or unmounted on this machine */
	bool ending;
	bool upgrade, end; /* somebody has asked for it */
	unsigned away;     /* holders whose image could not be brought back yet */
	unsigned unread;   /* records that were lost or could not be used when it started */
	bool is_keeping;
	pthread_t keeping; /* the thread of node-keeping.c */
	bool is_keeping_room;
	pthread_t room; /* that of node-room.c */
	bool is_keeping_logins;
	pthread_t logins; /* that of node-login.c */
} Node;

/* node.c: the tables, empty, and the directories; the lock of the state is held until node_free(). */
int node_new(const NodeOptions *options, Node **ret_node, Error *error) _must_check_;
Node *node_free(Node *node);
DEFINE_CLEANUP(Node, node_free);

void node_lock(Node *node);
void node_unlock(Node *node);
void node_changed(Node *node); /* with the mutex: wakes who waits for a change */
void node_wake(Node *node);    /* wakes the main loop */

/* Waits for the end of a thread that was told of it, for so long at most; false: it still runs. `running`: whether it was started, and then whether it is left. */
bool node_thread_stop(pthread_t thread, bool *running, unsigned seconds);

/* node-tables.c */

/* Waits until nobody else has that holder, and takes it; with `create`, one that holds nothing is made. Errors: -ENOENT, -ENOMEM. */
int node_holder_take(Node *node, const char *owner, bool create, NodeHolder **ret_holder) _must_check_;

/* Takes one that holds something, without waiting. Errors: -ENOENT, -EBUSY (somebody has it). */
int node_holder_try(Node *node, const char *owner, NodeHolder **ret_holder) _must_check_;

/* Gives it back; one that holds nothing goes. */
void node_holder_give(Node *node, NodeHolder *holder);

/* The names of all who hold something, malloc'ed with their texts in one block; NULL-terminated. NULL: out of memory. */
char **node_owners(Node *node);

/* One user more of the image of that chain, with its slot, which is new where the image is. Errors: -ENOSPC, write's. */
int node_image_join(Node *node, const Digest *chain_id, NodeImage **ret_image) _must_check_;

/* One user less; the last one takes the image away from the keeper. Accepts NULL. */
void node_image_leave(Node *node, NodeImage *image);

/* Gives the image to the keeper if it has it not; `wanted` has all but the slot. Errors: daemon_mounts_attach()'s. */
int node_image_bring(Node *node, NodeImage *image, const DaemonAttach *wanted, Error *error) _must_check_;

/* Where it is seen, malloc'ed; NULL when memory is out. With the mutex. */
char *node_image_path(const Node *node, const NodeImage *image);

/* node-keeper.c */

/* Opens the keeper, or starts one. Blocks. */
int node_keeper_open(Node *node, Error *error) _must_check_;

/* Waits for a keeper, and for one's turn with it. Errors: -ETIMEDOUT, with a sentence. */
int node_keeper_take(Node *node, DaemonMounts **ret_mounts, Error *error) _must_check_;

/* Lets a keeper go that was lost: all images are away then, and all that was mounted of it is dead. */
void node_keeper_drop(Node *node);

/* Ends the turn; `result` is that of the last call. -EPIPE: the keeper is gone, and another will be started. */
void node_keeper_give(Node *node, int result);

/* For poll(); -1: there is none, or it is lost already. */
int node_keeper_fd(Node *node);

/* node-files.c */

/* A copy of the settings that count now. Errors: -ENOMEM. */
int node_settings_copy(Node *node, NodeSettingsCopy *ret_copy) _must_check_;
int node_settings_set(Node *node, const NodeSettings *settings) _must_check_;
void node_settings_done(NodeSettingsCopy *copy);

/*
 * Opens what a request names. `known`: its record, by whose digest it is opened again; NULL: it is new. Blocks on the network unless `offline`, and
 * no longer than who made the `call` (NULL: nobody) waits for it: then -ECANCELED.
 * `ret_origin`: as node_origin_open() has it.
 */
int node_files_open(Node *node, ControlCall *call, const ControlRequest *request, const NodeRecord *known, bool offline,
		    FetchImage *ret_image, char ret_origin[static NODE_ORIGIN_SIZE], Error *error) _must_check_;

/* node-origin.c */

/*
 * Opens layers from where they can be had: what the request names, else a host whose tag this node has seen, of an image with these layers; else the `source`
 * of the settings, else the [source ...] sections in their order. The first that has all layers is taken. `remote` has the request's reference, if
 * it has one, and its access, which only that host and the settings' `source` get. `ret_origin`: which one it was, for the record; "" where the request says it.
 */
int node_origin_open(const FetchRemote *remote, const ControlRequest *request, const NodeSettings *settings,
		     const NodeRecord *known, FetchImage *ret_image, char ret_origin[static NODE_ORIGIN_SIZE],
		     Error *error) _must_check_;

/* node-attach.c: the calls. */
int node_attach(Node *node, ControlCall *call, const ControlRequest *request, json_t **ret_answer, Error *error)
	_must_check_;
int node_detach(Node *node, const char *owner, bool lazy, json_t **ret_answer, Error *error) _must_check_;

/* Is the holder's image mounted where its record wants it, by a keeper that lives? With the mutex, or by who has taken it. */
bool node_holder_is_bound(const Node *node, const NodeHolder *holder);

/* Gives the image of a record, whose files are open, to the keeper. */
int node_record_bring(Node *node, NodeImage *image, const NodeRecord *record, const FetchImage *files, Error *error)
	_must_check_;

/* Mounts the holder's image where its record wants it, and marks it. The holder is taken. */
int node_holder_bind(Node *node, NodeHolder *holder, Error *error) _must_check_;

/* Forgets a holder that is taken: its record and its image. */
int node_holder_forget(Node *node, NodeHolder *holder, Error *error) _must_check_;

/*
 * The mount of a holder that is taken is gone, though users of it may be left: it lets the image go,
 * or else (`lazy`) keeps it under another name until the keeper's end.
 */
int node_holder_unmounted(Node *node, NodeHolder *holder, bool lazy, bool *ret_lingering, Error *error) _must_check_;

/* What a holder has, as attach answers it; NULL when memory is out. With the mutex. */
json_t *node_holder_answer(const Node *node, const NodeHolder *holder);

/* node-mark.c: what was mounted since the machine started. */
void node_mark_set(Node *node, const char *owner, const char *directory); /* NULL: nothing is mounted any more */
bool node_mark_has(Node *node, const char *owner);

/* At the start, once the records are read: logs what is mounted without one, and returns how much that is. Marks of what is no longer mounted go. */
unsigned node_marks_lost(Node *node);

/* node-keeping.c: what goes on by itself. */

/* The state as the disk and the keeper have it; brings back what can be without a network. */
int node_restore(Node *node, Error *error) _must_check_;
int node_keeping_start(Node *node) _must_check_;

/* Asks the thread to end, and waits some seconds for that. False: it still waits for the network. */
bool node_keeping_stop(Node *node);

/* node-calls.c */

/* By the main loop's thread. */
int node_reload(Node *node, Error *error) _must_check_;
int node_handle(void *arg, ControlCall *call, const ControlRequest *request, json_t **ret_answer, Error *error);
#define NODE_QUICK_CALLS (1u << CONTROL_PING | 1u << CONTROL_RELOAD)

/* node-list.c */
int node_list(Node *node, const char *after, json_t **ret_answer, Error *error) _must_check_;
int node_status(Node *node, json_t **ret_answer, Error *error) _must_check_;

/* node-pull.c */
int node_pull(Node *node, ControlCall *call, const ControlRequest *request, json_t **ret_answer, Error *error)
	_must_check_;
int node_pin(Node *node, ControlCall *call, const ControlRequest *request, json_t **ret_answer, Error *error)
	_must_check_;
int node_unpin(Node *node, const ControlRequest *request, json_t **ret_answer, Error *error) _must_check_;

/* node-room.c: a thread that evicts. It ends by itself once `ending` is set; false: it is still at it after some seconds. */
int node_room_start(Node *node) _must_check_;
bool node_room_stop(Node *node);

/* node-login.c: a thread that asks for logins again; likewise. */
int node_logins_start(Node *node) _must_check_;
bool node_logins_stop(Node *node);
