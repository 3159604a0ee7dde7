/* What the calls share. */
#pragma once

#include <pthread.h>

#include "snapshots.pb-c.h"
#include "snapshotter/mounts-idmap.h"
#include "snapshotter/service.h"

#define SERVICE_PATH "/containerd.services.snapshots.v1.Snapshots/"

/* Well below WIRE_THREADS_MAX, and below CONTROL_CLIENTS of imgfsd, which `imgfs status` asks, too. */
#define SERVICE_LAZY_WAITING_MAX 96u

struct Service {
	Meta *meta;
	const Mounts *mounts;
	const LazyBackend *lazy;                      /* NULL: none */
	atomic_ullong lazy_outcomes[LAZY_REASONS];    /* of Prepares that ask for a layer */
	atomic_uint lazy_waiting;                     /* calls that wait for the backend, or for a tree of it */
	atomic_ullong lazy_unreachable, lazy_removed; /* calls that answered Unavailable; trees let go of */
	pthread_mutex_t mapping_lock;                 /* also held while a mount is taken away */
	unsigned mappings_cleaners; /* Cleanups that look for such; under that lock, as are the next two */
	char **mappings_spared;     /* directories that were asked for since the first of them began */
	size_t mappings_spared_count;
	const char *metrics;
	pthread_mutex_t metrics_lock; /* of writing that file */
	const char *whole_file;       /* NULL: none */
	pthread_mutex_t whole_lock;
	json_t *whole; /* under that lock */
	pthread_mutex_t lock;
	uint64_t next_id;    /* under the lock, as are the next two */
	uint64_t *beginning; /* ids whose directory may be there and whose row may not be yet */
	size_t beginning_count;
};

/* Nanoseconds since 1970. */
int64_t service_now(void);

/* Gives out an id, which Cleanup spares until service_id_end(). Errors: -ENOMEM. */
int service_id_begin(Service *service, uint64_t *ret_id, Error *error);
void service_id_end(Service *service, uint64_t id);

/* Requests and replies. A request that is no such message is -EINVAL. */
void *service_unpack(const WireCall *call, const ProtobufCMessageDescriptor *type, Error *error);
int service_reply(WireCall *call, const ProtobufCMessage *message, Error *error);
int service_reply_empty(WireCall *call, Error *error);
int service_reply_info(WireCall *call, const MetaInfo *info, Error *error);

/* A message in memory of its own. `info` must outlive it. */
int service_info_message(const MetaInfo *info, Snapshots__Info **ret_message);
Snapshots__Info *service_info_message_free(Snapshots__Info *message);

/*
 * Makes the snapshot that a Prepare asks for by the label containerd.io/snapshot.ref, if it can be a lazy one or is there already: -EEXIST, as
 * the protocol wants it. 0: the layer has to be fetched and unpacked by the client; why is in the log. -ECANCELED: nobody waits for it any more.
 */
int service_lazy_prepare(Service *service, const WireCall *call, const char *key, const char *parent,
			 const MetaLabels *labels, Error *error);

/*
 * Sees to it that the tree at the end of a chain is shown; may change chain->lazy_path. -EAGAIN when it cannot be had now, -ECANCELED when nobody
 * waits for it any more.
 */
int service_lazy_ensure(Service *service, const WireCall *call, MetaChain *chain, Error *error);

/* Lets go of trees that no lazy snapshot has. As service_reconcile(). */
int service_lazy_reconcile(Service *service, const atomic_bool *cancelled, Error *error);

/*
 * What Cleanup must spare: ids given out after this, all of which are above `above` and not below *ret_next, and those whose row may come yet,
 * sorted; the caller's. Errors: -ENOMEM.
 */
int service_ids_spared(Service *service, uint64_t above, uint64_t *ret_next, uint64_t **ret_ids, size_t *ret_count,
		       Error *error);

/* Writes the file of metrics, if there is to be one. */
void service_write_metrics(Service *service);

/*
 * What `imgfs why` knows of images whose layers are not lazy. `image` is what the client calls it, or NULL; `lowest`: this layer begins a pull.
 * A layer that is lazy is noted too, since what was said of its image before holds no more. Blocks on the disk where something changes.
 */
void service_whole_load(Service *service);
void service_whole_note(Service *service, const char *image, const char *chain, bool lowest, LazyReason reason,
			const char *why);

/* mounts_idmap() for a snapshot whose row is there, so that no Cleanup takes away what is handed out. */
int service_map(Service *service, const MountsIdmap *idmap, char **ret_directory, Error *error);

/* Takes away what layers are seen through with other owners, where no snapshot has that mapping any more. */
int service_clean_mappings(Service *service, Error *error);

bool service_has_id(const uint64_t *ids, size_t count, uint64_t id);

/*
 * The directories to be mounted below a snapshot whose ancestors these are, and the reply that says so. Of `info` id, kind and labels count.
 */
int service_reply_mounts(Service *service, WireCall *call, const MetaInfo *info, MetaChain *chain, Error *error);

/* Calls. */
int service_prepare(WireCall *call, void *arg, Error *error);
int service_view(WireCall *call, void *arg, Error *error);
int service_mounts(WireCall *call, void *arg, Error *error);
int service_commit(WireCall *call, void *arg, Error *error);
int service_remove(WireCall *call, void *arg, Error *error);
int service_stat(WireCall *call, void *arg, Error *error);
int service_update(WireCall *call, void *arg, Error *error);
int service_list(WireCall *call, void *arg, Error *error);
int service_usage(WireCall *call, void *arg, Error *error);
int service_cleanup(WireCall *call, void *arg, Error *error);
