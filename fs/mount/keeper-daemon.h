/*
 * imgfs-keeper as the node daemon's: two mounts, one server, and the descriptors of all attached images, which every new server is
 * given. One thread, which owns everything and never waits for a client or a server. Private to imgfs-keeper.
 */
#pragma once

#include <stdbool.h>

#include "fs/mount/daemon-message.h"
#include "fs/mount/keeper-mount.h"
#include "fs/mount/keeper-server.h"

#define KEEPER_CLIENTS      4u
#define KEEPER_SLOTS_MAX    65535u
#define KEEPER_SLOT_DEATHS  3u      /* of servers that died of one image: then it is refused */
#define KEEPER_DEATH_MEMORY 3600000 /* milliseconds after which a death is forgotten */

typedef enum KeeperSlotState {
	KEEPER_SLOT_WANTED,   /* the server that runs, or the next one, has to get it */
	KEEPER_SLOT_SENT,     /* it is being sent, or the answer has not come yet */
	KEEPER_SLOT_ATTACHED, /* the server that runs has it */
	KEEPER_SLOT_LEAVING,  /* the server has it and is to let it go */
} KeeperSlotState;

typedef struct KeeperSlot {
	uint32_t number;
	uint32_t flags; /* DAEMON_FLAG_* */
	char name[DAEMON_NAME_SIZE];
	KeeperSlotState state;
	bool unwanted;   /* it was detached while the server was just getting it */
	bool too_many;   /* there is no room for its descriptors: they are closed as they come */
	unsigned deaths; /* of servers, by it */
	int64_t died;    /* when the last one did */
	int client;      /* the socket of who waits for an answer about it; -1: nobody */
	size_t fd_total;
	size_t fd_count; /* that have come */
	int fds[];       /* the plan first, then what it names */
} KeeperSlot;

typedef struct KeeperClient {
	int fd; /* -1: unused */
	bool greeted;
	bool waiting;         /* for the answer to a request; it is not read from meanwhile */
	KeeperSlot *incoming; /* an image of which not all has come */
	int64_t heard;        /* when the last packet came */
} KeeperClient;

typedef struct KeeperDaemon {
	const char *directory; /* below which the two mounts are */
	char socket_path[108];
	KeeperMount mounts[2]; /* plain, xattr */
	char mount_paths[2][256];
	int metrics_fd;
	int listen_fd;
	int64_t deaf_until; /* no client is accepted before: descriptors had run out */
	int signal_fd;
	KeeperClient clients[KEEPER_CLIENTS];
	KeeperSlot **slots;
	size_t slot_count;
	uint32_t highest; /* number of a slot that there ever was on these mounts */
	bool ending;      /* unmounted, but somebody may still use it */

	KeeperServer server;
	int control_fd;     /* to the server that runs; -1: there is none */
	int64_t start_at;   /* when the next server may be started */
	KeeperSlot *busy;   /* what the server is at; NULL: it waits */
	size_t sent;        /* descriptors of it */
	bool blocked;       /* the socket to the server is full */
	bool start_sent;    /* the server was told that it has all */
	bool ready;         /* some server has answered that */
	int ready_fd;       /* who waits for the first server, or for that of an upgrade; -1: nobody */
	int old_program_fd; /* while a new program is tried; -1: none is */
	unsigned trial_kills;
	int64_t trial_until;

	int upgrade_pid, upgrade_number; /* a request that waits until nobody else does; 0: there is none */

	int spare_fds[2]; /* copies of the two mounts that are mounted nowhere; -1: none */
	int table_fd;     /* of mounts, for poll(); -1: it is not watched */
	bool table_changed;
	int64_t look_at, remake_at; /* when it may be looked at, and a mount made anew */
} KeeperDaemon;

/* keeper-slots.c */

KeeperSlot *keeper_slot_new(const DaemonMessage *attach, int client); /* NULL: out of memory */
KeeperSlot *keeper_slot_free(KeeperSlot *slot);                       /* closes what it has */
KeeperSlot *keeper_slot_find(const KeeperDaemon *daemon, uint32_t number);
/* Errors: -EEXIST (number, or name in this mount), -ENOSPC, -ENOMEM; the slot stays the caller's then. */
int keeper_slot_add(KeeperDaemon *daemon, KeeperSlot *slot) _must_check_;
void keeper_slot_remove(KeeperDaemon *daemon, KeeperSlot *slot); /* and frees it */
/* Notes that a server died of it; says whether that was once too often. */
bool keeper_slot_charge(KeeperSlot *slot, int64_t now);

/* keeper-clients.c: the manager's side. */

int keeper_clients_listen(KeeperDaemon *daemon, Error *error) _must_check_;
void keeper_clients_accept(KeeperDaemon *daemon);
void keeper_clients_handle(KeeperDaemon *daemon, KeeperClient *client); /* something has come from it */
void keeper_clients_expire(KeeperDaemon *daemon, int64_t now);
bool keeper_clients_idle(const KeeperDaemon *daemon);
/* Answers who waits for a slot, if anybody does. */
void keeper_clients_answer(KeeperDaemon *daemon, KeeperSlot *slot, int result, const char *text);
void keeper_daemon_end(KeeperDaemon *daemon); /* unmounts, and listens no more */

/* keeper-feed.c: the server's side. */

/* Starts a server if none runs and it is time. */
void keeper_feed_start(KeeperDaemon *daemon);
/* Sends what can be sent now. */
void keeper_feed(KeeperDaemon *daemon);
/* Something has come from the server. */
void keeper_feed_handle(KeeperDaemon *daemon);
/* The server has ended with this wait status. */
void keeper_feed_ended(KeeperDaemon *daemon, int status);
/* An upgrade: the next server is of this program, which has to show that it works. Errors carry a sentence; then all stays as it was. */
int keeper_feed_try(KeeperDaemon *daemon, Error *error) _must_check_;
void keeper_feed_expire(KeeperDaemon *daemon, int64_t now);

/* keeper-restore.c: what becomes of the two mounts while they are wanted. */

void keeper_restore_init(KeeperDaemon *daemon);
void keeper_restore_start(KeeperDaemon *daemon); /* once both are mounted */
void keeper_restore_stop(KeeperDaemon *daemon);  /* they are not wanted any more; before they are unmounted */
/* Puts back what somebody has unmounted, and makes anew what was aborted, unless both were. */
void keeper_restore(KeeperDaemon *daemon, int64_t now);

/* keeper-daemon-state.c: what a keeper passes on to its successor. */

/* Writes all to a memfd, and makes the descriptors survive an exec (or no longer). Errors: -ENOMEM, memfd_create's, write's. */
int keeper_daemon_save(KeeperDaemon *daemon, int *ret_fd) _must_check_;
void keeper_daemon_inherit(const KeeperDaemon *daemon, bool inherit);
/* Reads it; the descriptors are close-on-exec then. Errors: -EBADMSG, -ENOMEM, read's. */
int keeper_daemon_load(KeeperDaemon *daemon, int fd) _must_check_;

/* keeper-daemon.c */

#define KEEPER_DAEMON_WORD   "daemon"
#define KEEPER_DAEMON_RESUME "daemon-resume"
bool keeper_daemon_is_meant(int argc, char **argv);
int keeper_daemon_main(char **argv); /* the exit status */
