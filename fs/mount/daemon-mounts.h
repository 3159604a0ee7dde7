/*
 * The mounts of the node daemon: two file systems below a runtime directory, in which images appear and disappear as directories named by
 * their chain IDs. A keeper and one server do the work (docs/architecture.md, "The node daemon"); this is how the manager
 * speaks to them. They go on when it ends, and it finds them again.
 *
 * One thread at a time may use a DaemonMounts. Every call blocks until the keeper has answered, at most a minute. Once a
 * call has failed with -EPIPE the keeper is gone: close, and open anew.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/base/error.h"
#include "fs/fetch/fetch-image.h"

#define DAEMON_RUNTIME   "/run/imgfs"
#define DAEMON_SLOT_MAX  0x7fffffffu /* of a node number 31 bits are the slot; 0 is the root's */
#define DAEMON_SLOTS_MAX 65535u      /* attached at once */

typedef struct DaemonMounts DaemonMounts;

typedef struct DaemonMountsOptions {
	const char *
		runtime; /* fs/plain, fs/xattr and keeper.sock are below it; created when missing; NULL: DAEMON_RUNTIME */
	unsigned read_ahead_kb; /* of both mounts, when this call makes them; 0 means 512 */
	const char
		*log_path; /* of keeper and server, when this call starts them; NULL: this process's standard error */
	bool start;        /* start a keeper where none answers; otherwise that is -ENOENT */
} DaemonMountsOptions;

/*
 * Connects to the keeper that is there, or takes away what a dead one left (mounts that answer ENOTCONN) and starts one. For root. Errors:
 * -ENOENT (there is none), -EBUSY (too many are connected, or a keeper is there that does not answer), -EPROTONOSUPPORT (a keeper of another version), mount's and the
 * like, each with a sentence.
 */
int daemon_mounts_open(const DaemonMountsOptions *options, DaemonMounts **ret_mounts, Error *error) _must_check_;

/* Keeper, server and mounts go on. */
DaemonMounts *daemon_mounts_close(DaemonMounts *mounts);
DEFINE_CLEANUP(DaemonMounts, daemon_mounts_close);

/* For poll(): POLLHUP once the keeper is gone, or has not answered in time: then it is to be opened anew. Nothing else ever comes of it; nobody but this object may read from it. */
int daemon_mounts_fd(const DaemonMounts *mounts);

/* Was it given up since it did not answer in time? By any thread. */
bool daemon_mounts_was_late(const DaemonMounts *mounts);

/* Its process, as this one sees it; 0: that cannot be said. By any thread. */
pid_t daemon_mounts_keeper(const DaemonMounts *mounts);

/* The highest slot that the keeper's mounts had ever had when it was opened: the kernel may still remember nodes of it. 0: none. */
uint32_t daemon_mounts_highest(const DaemonMounts *mounts);

typedef struct DaemonSlot {
	uint32_t slot;
	bool xattr;   /* it is below fs/xattr, not fs/plain */
	bool refused; /* its view or an index is damaged, or servers died of it: it answers EIO until it is detached */
	char chain_id[65];
} DaemonSlot;

typedef struct DaemonAttach {
	uint32_t slot; /* 1 to DAEMON_SLOT_MAX, never used before for another image */
	const FetchImage *image;
	const char *source; /* the reference with its digest, for the log */
	int64_t deadline;   /* of a read that waits for the network, milliseconds */
	bool no_fill;       /* leave absent what nobody reads */
	uint64_t
		quota; /* of the cache, which somebody else keeps: an image that it cannot hold is not filled; 0: none */
	uint64_t
		fill_rate; /* bytes a second for all fills of the server, of which the lowest counts; 0: what readers leave */
} DaemonAttach;

/*
 * Makes <runtime>/fs/<plain|xattr>/<chain ID> appear; returns when it answers. Whether it is plain or xattr is decided by the
 * view: any xattr in it. The image stays the caller's, who may let it go. Errors: -EEXIST (the slot or the chain is attached),
 * -ENFILE (out of descriptors), -EUCLEAN (view or index are damaged), -ENOSPC (too many slots), -EPIPE.
 */
int daemon_mounts_attach(DaemonMounts *mounts, const DaemonAttach *attach, DaemonSlot *ret_slot, Error *error)
	_must_check_;

/*
 * Takes an image away: its name at once, its memory and descriptors once the reads under way have ended. Its nodes then answer
 * ESTALE. Errors: -ENOENT (no such slot), -EPIPE.
 */
int daemon_mounts_detach(DaemonMounts *mounts, uint32_t slot, Error *error) _must_check_;

/* What is attached, in no order; malloc'ed, the caller's. For a manager that starts again. Errors: -EPIPE, -ENOMEM. */
int daemon_mounts_list(DaemonMounts *mounts, DaemonSlot **ret_slots, size_t *ret_count, Error *error) _must_check_;

/*
 * What the server counts (server-metrics.h), and what the reads of an image were (start-record.h): shared memory, to be read by
 * server_metrics_load() and start_record_load(); the caller's, close-on-exec. Errors: -ENOENT (no such slot), -EPIPE.
 */
int daemon_mounts_metrics(DaemonMounts *mounts, int *ret_fd, Error *error) _must_check_;
/* The access that the image of a slot was attached with, malloc'ed, a secret of the caller's; NULL: it has none. Errors as above. */
int daemon_mounts_access(DaemonMounts *mounts, uint32_t slot, char **ret_access, Error *error) _must_check_;
int daemon_mounts_record(DaemonMounts *mounts, uint32_t slot, int *ret_fd, Error *error) _must_check_;

/*
 * Keeper and server go on as the programs that belong to this build; who reads notices nothing, and this object stays connected. Errors:
 * -EOPNOTSUPP (this build cannot go on for the running one), -EIO (the new server does not start; the old one goes on).
 */
int daemon_mounts_upgrade(DaemonMounts *mounts, Error *error) _must_check_;

/*
 * Unmounts both, lazily where they are in use, and ends keeper and server. Errors: -EBUSY (they are still used, and end with their last
 * user), -EPIPE.
 */
int daemon_mounts_end(DaemonMounts *mounts, Error *error) _must_check_;
