/*
 * A server's side of the FUSE connection that its keeper holds. Every start is a takeover: libfuse is told of the FUSE_INIT
 * that the keeper answered long ago, then what the journal holds is answered, then the receive threads start.
 *
 * The threads read requests into journal slots themselves and hand them to libfuse. No descriptor is cloned and nothing is
 * spliced: a clone would take its requests along when the server dies.
 */
#pragma once

#include "fs/mount/journal.h"
#include "fs/mount/ops.h"
#include "fs/mount/worker.h"

typedef struct Session Session;

/*
 * `ops` and `journal` must outlive the session, `fuse_fd` becomes its own. `init` is the FUSE_INIT the keeper answered.
 * Errors: -EPROTO (libfuse refuses it), -ENOMEM.
 */
int session_new(int fuse_fd, const void *init, size_t init_size, const Ops *ops, Journal *journal,
		Session **ret_session, Error *error) _must_check_;
Session *session_free(Session *session);
DEFINE_CLEANUP(Session, session_free);

/* Answers what the predecessor left behind, in the calling thread; returns how many requests that were. */
size_t session_recover(Session *session);

/* Starts the receive threads. Errors: pthread_create's. */
int session_start(Session *session) _must_check_;

/* Waits until the file system is unmounted. Errors: what read() of the FUSE descriptor said; threads may then still run. */
int session_wait(Session *session) _must_check_;
