/* What the store's files share; nobody else includes this. */
#pragma once

#include "tools/export/store.h"

#define STORE_MARKER_NAME "imgfs-store"
#define STORE_MARKER_TEXT "imgfs store 1\n"
#define STORE_PATH_SIZE   512 /* of a path inside the store: repository name and tag are bounded by reference.h */

/* What a list of frames holds for a chunk: the XXH3 of its content. Older builds wrote its SHA-256, by which nothing is looked for. */
#define STORE_FRAME_KEY_SIZE     8
#define STORE_FRAME_OLD_KEY_SIZE DIGEST_SIZE

typedef struct StoreFrames StoreFrames;

/* Immutable after store_open() but for `frames`, which belongs to the one thread that calls store_frame_find(). */
struct Store {
	char *path;
	int fd; /* of the store's directory */
	StoreFrames *frames;
};

StoreFrames *store_frames_free(StoreFrames *frames);

/*
 * A file below tmp/, locked for as long as its descriptor is open. It has a name only from when it is published, but where the file system knows no
 * files without one. The lock is what tells a temporary being written from one a crash left behind, so no name is there unlocked for longer than a
 * sweep notices.
 */
typedef struct StoreTemporary {
	int fd;
	char path[64]; /* "" while it has no name */
} StoreTemporary;

#define STORE_TEMPORARY_NULL ((StoreTemporary){ .fd = -1 })

int store_temporary_new(Store *store, StoreTemporary *ret_temporary, Error *error) _must_check_;

/* Makes it durable and moves it to `path` below the store. The temporary is closed then. */
int store_temporary_publish(Store *store, StoreTemporary *temporary, const char *path, Error *error) _must_check_;

/* Closes, and removes what was not published; safe on STORE_TEMPORARY_NULL and twice. */
void store_temporary_done(Store *store, StoreTemporary *temporary);

/* Removes what crashed writers left in tmp/. Best effort: what cannot be removed stays for the next sweep. */
void store_temporary_sweep(Store *store);

/* Publishes `data` at `path` below the store. */
int store_put(Store *store, const char *path, const void *data, size_t size, Error *error) _must_check_;

/* mkdir -p below the store, each new directory durable in its parent. */
int store_make_directories(Store *store, const char *path, Error *error) _must_check_;

void store_blob_path(const Digest *digest, char ret_path[static STORE_PATH_SIZE]);

/* Removes directories of repositories/ that hold no tag any more. Nobody may be adding tags. Best effort. */
void store_tag_prune(Store *store);

int store_layer_put(Store *store, const ManifestLayer *layer, Error *error) _must_check_;
