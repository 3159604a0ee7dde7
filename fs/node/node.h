/*
 * The manager of a node's images, imgfsd: which images are attached, for whom, and where they are bind-mounted. It resolves images, hands
 * them to the keeper (fs/mount/daemon-mounts.h) and remembers on the disk what it was asked for. No read of a file passes through it: it
 * may end or die at any time and start again, and finds everything as it left it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "fs/base/error.h"
#include "fs/fetch/fetch-image.h"

/* What may change while it runs. All of it is copied where it is kept. */
typedef struct NodeSettings {
	int64_t deadline;  /* of a read that waits for the network, where a request does not say, milliseconds */
	int64_t timeout;   /* of a request to a registry, likewise */
	const char *certs; /* as NetAccessOptions, likewise; NULL: as usual */
	const char *login;
	uint64_t quota;        /* of the cache, bytes; 0: none */
	bool decoded;          /* have the fill make decoded copies, also where a request does not ask for it */
	const NetHosts *hosts; /* what the configuration says of hosts; NULL: nothing */
	const char *source;    /* HOST:PORT that layers come from whose request names no reference; NULL: nowhere */
} NodeSettings;

/* Opens an image of a local store. `reference` is NAME[:TAG][@DIGEST]. Errors carry a sentence. */
typedef int NodeOpenLocal(void *arg, const char *store, const char *reference, CacheStore *cache, FetchImage *ret_image,
			  Error *error);

/* Reads the configuration again; what it sets belongs to the callee and is copied at once. Called by the thread of node_run(). Errors carry a sentence. */
typedef int NodeReload(void *arg, NodeSettings *ret_settings, Error *error);

typedef struct NodeOptions {
	const char *runtime; /* sockets and mounts are below it */
	const char *state;   /* what is remembered */
	const char *cache;
	const char *version;    /* of imgfs, for who asks */
	unsigned read_ahead_kb; /* as DaemonMountsOptions */
	const char *log_path;   /* likewise */
	bool start_keeper;      /* start a keeper where none answers; otherwise wait for one */
	NodeSettings settings;
	NodeOpenLocal *open_local; /* NULL: there are no local stores */
	NodeReload *reload;
	void *arg;
	int ready_fd; /* gets one byte once requests are answered, and is closed; -1: nobody waits */
} NodeOptions;

/* What node_run() ended for. */
typedef enum NodeEnd {
	NODE_ENDED,   /* a signal, or everything was asked to end */
	NODE_UPGRADE, /* the caller executes the program again */
} NodeEnd;

/*
 * Runs the manager until SIGTERM or SIGINT; mounts, keeper and server go on then. SIGHUP reads the configuration again. To be called before
 * the process has threads; blocks these signals. What is under way at the end is given some seconds, and may then still run in threads of its own:
 * the caller ends the process, by _exit(2), or executes another program. Errors, with a sentence: -EBUSY (another manager has the state), mkdir's, bind's,
 * daemon_mounts_open()'s.
 */
int node_run(const NodeOptions *options, NodeEnd *ret_end, Error *error) _must_check_;
