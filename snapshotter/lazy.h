/*
 * Layers that are fetched as they are read: whoever shows their trees, seen from the snapshotter. An interface, so that the rules can be
 * tried without a node daemon.
 */
#pragma once

#include <jansson.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "snapshotter/meta.h"

/* All functions may be called by several threads at a time, and block. `arg` is the backend's. An id is that of a snapshot, below INT64_MAX. */
typedef struct LazyBackend {
	/*
	 * Shows the merged tree of a chain of layers (array of objects as lazy_layer_encode() makes them, borrowed, the lowest first) and holds it
	 * for this snapshot until detach(); the same one again replaces. `reference` says where the bytes come from, or is NULL. Returns the directory,
	 * the caller's. Ends soon after `cancelled` has become true. Errors: any, with a sentence; then nothing is held, or what is held in the end,
	 * where the backend did not answer, is among owners().
	 */
	int (*attach)(void *arg, uint64_t id, const char *reference, const json_t *layers, const atomic_bool *cancelled,
		      char **ret_path, Error *error);
	/* Ends likewise (NULL: as soon as the process is to end). Errors: -ENOENT (nothing is held), -ETIMEDOUT (the backend does not answer), others. */
	int (*detach)(void *arg, uint64_t id, const atomic_bool *cancelled, Error *error);
	/* All ids for which something is held; the caller's. Ends likewise. */
	int (*owners)(void *arg, const atomic_bool *cancelled, uint64_t **ret_ids, size_t *ret_count, Error *error);
	/* Does the directory show a tree now? Cheap. */
	bool (*shown)(void *arg, const char *path);
	void *arg;
} LazyBackend;

/* Why a layer is not lazy. */
typedef enum LazyReason {
	LAZY_IS_LAZY,
	LAZY_NO_ANNOTATIONS, /* an ordinary image: its layer has no annotations of imgfs */
	LAZY_BAD_ANNOTATIONS,
	LAZY_NO_DIFF_ID,  /* no label says which layer it is */
	LAZY_OTHER_CHAIN, /* the labels are of a layer that does not make this chain */
	LAZY_PARENT,      /* what is below is not lazy */
	LAZY_UNAVAILABLE, /* the backend could not attach it */
	LAZY_REASONS,
} LazyReason;

const char *lazy_reason_name(LazyReason reason); /* as in logs and metrics: "no-annotations" */

/*
 * What the labels of a Prepare say of its layer, checked: the JSON that meta keeps, the caller's. `ref` is the chain ID that the snapshot is
 * to have, `parent_chain` that of its parent, or NULL. Pure. Errors: -EINVAL with a reason and sentence, -ENOMEM.
 */
int lazy_layer_encode(const MetaLabels *labels, const char *ref, const char *parent_chain, char **ret_layer,
		      LazyReason *ret_reason, Error *error) _must_check_;

/*
 * The node daemon behind a socket as backend. It knows a tree's holder by a text, which begins with a digest of the snapshotter's root, since
 * another snapshotter may use the same daemon: "snapshotter:DIGEST:ID".
 */
#define LAZY_PREFIX_SIZE 32

typedef struct LazyDaemon {
	const char *socket;
	int stop_fd; /* readable once the process is to end; not owned */
	char prefix[LAZY_PREFIX_SIZE];
} LazyDaemon;

/* `root` is a real path. `daemon`, `socket` and `stop_fd` must stay. Errors: -ENOMEM, with a sentence. */
int lazy_daemon(LazyDaemon *daemon, const char *socket, int stop_fd, const char *root, LazyBackend *ret_backend,
		Error *error) _must_check_;
