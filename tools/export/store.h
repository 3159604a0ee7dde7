/*
 * The build host's store, a directory that a static web server can serve:
 *
 *   imgfs-store                                   marker: "imgfs store 1\n"
 *   blobs/sha256/<hex>                            manifests, configs, imgfs blobs; content-addressed, immutable
 *   layers/<diffID hex>                           JSON: which blob is this layer, and where its index is
 *   repositories/<name>/_manifests/<tag>          the manifest a tag means, byte for byte
 *   frames/<blob hex>                             per chunk of a blob: XXH3 of its content (8, little-endian); lets exports reuse frames
 *   profiles/<manifest hex>                       start-up profile of an image (docs/format.md section 7)
 *   tmp/                                          what is being written; locked by its writer, swept by anyone
 *   gc-gate, gc-lock                              who may delete: store-lock.h
 *
 * Publishing renames complete, fsynced files into place in the order blob, layer record, config, manifest, tag: whatever is
 * visible is complete. Several exports and servers may use one store at once. Calls may block on the disk.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "fs/base/digest.h"
#include "fs/base/error.h"
#include "fs/format/manifest.h"
#include "fs/format/profile.h"

typedef struct Store Store;

/* The store used when no --store is given: /var/lib/imgfs/store for root, else below $XDG_DATA_HOME. malloc'ed. */
char *store_default_path(void);

/* Opens a store; with `create`, makes it where nothing or an empty directory is. Errors: -ENOENT, -EEXIST (something else is there). */
int store_open(const char *path, bool create, Store **ret_store, Error *error) _must_check_;
Store *store_free(Store *store);
DEFINE_CLEANUP(Store, store_free);

/* As it was opened; the store's. */
const char *store_path(const Store *store);

/* Says that writing `what` into this store failed with `code`, and what to do where the disk is full; returns `code`. */
int store_error(const Store *store, int code, const char *what, Error *error);

/* Opens an object of blobs/ read-only. Errors: -ENOENT. */
int store_blob_open(Store *store, const Digest *digest, int *ret_fd, uint64_t *ret_size) _must_check_;

/* Puts small bytes (config, manifest) into blobs/; there already is success. */
int store_blob_put(Store *store, const void *data, size_t size, Digest *ret_digest, Error *error) _must_check_;

/* The record of a layer. Errors: -ENOENT, -EBADMSG. */
int store_layer_get(Store *store, const Digest *diff_id, ManifestLayer *ret_layer, Error *error) _must_check_;

/* A layer blob being written. */
typedef struct StoreUpload StoreUpload;
int store_upload_new(Store *store, StoreUpload **ret_upload, Error *error) _must_check_;
StoreUpload *store_upload_free(StoreUpload *upload); /* without a commit: removes the temporary */
DEFINE_CLEANUP(StoreUpload, store_upload_free);
int store_upload_fd(const StoreUpload *upload); /* written from its start to its end */

/* Publishes blob, frames list (layer->blob names it; `contents`: one XXH3 a chunk) and layer record. */
int store_upload_commit(StoreUpload *upload, const ManifestLayer *layer, const uint64_t *contents, size_t count,
			Error *error) _must_check_;

/*
 * A frame whose content has this XXH3 (64 bits, seed 0): for the caller to compare, since other content may have it too. Loaded from
 * frames/ at the first call; one thread at a time. Errors: -ENOENT.
 */
typedef struct StoreFrame {
	int fd; /* of the blob that has it; the store's */
	uint64_t offset;
	uint32_t size;
	Digest digest;
} StoreFrame;
int store_frame_find(Store *store, uint64_t content, StoreFrame *ret_frame) _must_check_;

/*
 * The start-up profile of an image; its bytes are malloc'ed, the caller's, and not checked. Putting one replaces what was there; without
 * `replace` only one that was carried over. Errors: -ENOENT, -EFBIG; -EEXIST; -EBADMSG (damaged, to be replaced only).
 */
int store_profile_get(Store *store, const Digest *manifest, uint8_t **ret_data, size_t *ret_size) _must_check_;
int store_profile_put(Store *store, const Profile *profile, bool replace, Error *error) _must_check_;

/* Tags. The manifest's bytes are malloc'ed, the caller's. Errors: -ENOENT. */
int store_tag_get(Store *store, const char *name, const char *tag, char **ret_json, size_t *ret_size) _must_check_;
int store_tag_put(Store *store, const char *name, const char *tag, const char *json, size_t size, Error *error)
	_must_check_;

/* Takes a tag away, durably. What it named stays for `imgfs gc`. Errors: -ENOENT, unlink's. */
int store_tag_remove(Store *store, const char *name, const char *tag, Error *error) _must_check_;

/* Calls `visit` for each tag, in order of names and then tags; stops at its first return other than 0, and returns that. */
typedef int StoreTagVisitor(void *arg, const char *name, const char *tag, time_t changed);
int store_tag_each(Store *store, StoreTagVisitor *visit, void *arg) _must_check_;
