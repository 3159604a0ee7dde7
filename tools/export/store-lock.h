/*
 * Who may be in the store together. Whoever follows references from tags to blobs, or relies on an object that no tag reaches yet
 * (an export that found a layer "already there"), holds the store; `imgfs gc` deletes only while nobody holds it. Servers hold
 * nothing: what they have open outlives its name.
 *
 * Two lock files, gc-gate and gc-lock, by flock(2), so a process that dies lets go: a holder passes the gate (shared, for a moment) and
 * keeps the lock shared. The collector takes the gate first, so that holders who come while it waits wait behind it, and then the
 * lock exclusively. It waits a bounded time, and thereby so do they.
 */
#pragma once

#include "tools/export/store.h"

/*
 * Holds the store until `ret_fd`, the caller's, is closed; -1 where the store is another's, read-only and without locks. Blocks
 * while a collector waits or works. A process must not hold a store twice. Errors: -ENOMEM, open's.
 */
int store_hold(Store *store, int *ret_fd, Error *error) _must_check_;

/* What the collector keeps while it works. */
typedef struct StoreCollector {
	int gate;
	int lock;
} StoreCollector;

#define STORE_COLLECTOR_NULL ((StoreCollector){ .gate = -1, .lock = -1 })

/*
 * Waits up to `seconds` until nobody holds the store, then keeps everybody out; calls `waiting` (may be NULL) once if it has to wait.
 * Errors: -EBUSY (still held then), -EACCES and others of open (the store is not ours to collect).
 */
int store_collector_enter(Store *store, unsigned seconds, void (*waiting)(void *arg), void *arg,
			  StoreCollector *ret_collector, Error *error) _must_check_;
void store_collector_leave(StoreCollector *collector); /* safe on STORE_COLLECTOR_NULL and twice */
