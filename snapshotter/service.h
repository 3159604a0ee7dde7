/*
 * containerd.services.snapshots.v1 over metadata and directories: what each call means. A snapshot's directory is made before its row, the
 * row is durable before the reply; a removed one's row goes first, its directory in Cleanup. So a crash at any point leaves at most a
 * directory without a row, which service_reconcile() and Cleanup remove.
 */
#pragma once

#include "snapshotter/lazy.h"
#include "snapshotter/meta.h"
#include "snapshotter/mounts.h"
#include "snapshotter/wire-server.h"

typedef struct Service Service;

/* None is taken; all must outlive the service. */
typedef struct ServiceOptions {
	Meta *meta;
	const Mounts *mounts;
	const LazyBackend *lazy; /* NULL: all images are ordinary ones */
	const char *
		metrics; /* a file for Prometheus's textfile collector, written at each change of a counter; NULL: none */
	const char *whole; /* a file with the images that were pulled whole, and why, for `imgfs why`; NULL: none */
} ServiceOptions;

/* Errors: those of reading the metadata and directories, with a sentence. */
int service_new(const ServiceOptions *options, Service **ret_service, Error *error) _must_check_;
Service *service_free(Service *service);
DEFINE_CLEANUP(Service, service_free);

/*
 * Removes directories that no snapshot has, and lets go of trees that no snapshot has; returns how many directories in `ret_count`. Also what
 * the call Cleanup does. What is asked of the backend ends soon after `cancelled` has become true (NULL: once the process is to end); the next one goes on
 * with it. Errors: the first that came up, after all others were tried.
 */
int service_reconcile(Service *service, const atomic_bool *cancelled, size_t *ret_count, Error *error) _must_check_;

/* The methods, for WireServerOptions with the service as `arg`. */
extern const WireMethod service_methods[];
extern const size_t service_method_count;
