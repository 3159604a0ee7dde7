/*
 * What a cache has for others: a node that is a mirror. Nothing is given that was not checked: manifests and configs by their digests, frames by SHA-256
 * (once while a blob is open, and again when it may have been evicted), indexes by the digest in the manifest. A blob's footer says nothing that manifest
 * and index do not, and no node keeps it: it is made again. Thread-safe; all calls block on the disk.
 */
#pragma once

#include "fs/cache/cache-store.h"
#include "fs/format/manifest.h"

typedef struct FetchShare FetchShare;

/* `cache` stays the caller's and outlives it. Errors: -ENOMEM. */
int fetch_share_new(CacheStore *cache, FetchShare **ret_share) _must_check_;
FetchShare *fetch_share_free(FetchShare *share); /* no call may be under way */
DEFINE_CLEANUP(FetchShare, fetch_share_free);

/* A manifest, or a config, malloc'ed, the caller's. Errors: -ENOENT (not here, or rotten). */
int fetch_share_manifest(FetchShare *share, const Digest *digest, char **ret_json, size_t *ret_size) _must_check_;
int fetch_share_config(FetchShare *share, const Digest *digest, char **ret_json, size_t *ret_size) _must_check_;

/* The start-up profile of an image, likewise. */
int fetch_share_profile(FetchShare *share, const Digest *manifest, uint8_t **ret_data, size_t *ret_size) _must_check_;

/* What this node last saw a tag mean, at whatever host. Errors: -ENOENT (never seen), -ENOTUNIQ (two hosts mean different things). */
int fetch_share_tag(FetchShare *share, const char *name, const char *tag, Digest *ret_manifest) _must_check_;

/* The length of a blob that a manifest here names. Errors: -ENOENT. */
int fetch_share_size(FetchShare *share, const Digest *blob, uint64_t *ret_size) _must_check_;

/* Bytes of a blob, of whole chunks or not, or of its index. Errors: -ENOENT (no such blob), -ENODATA (not all of them are here), -ENOMEM. */
int fetch_share_read(FetchShare *share, const Digest *blob, uint64_t offset, size_t size, uint8_t *buffer) _must_check_;

/* A blob that is sealed and all here, with its index, held open. Eviction may still take chunks once the image is not sealed any more. */
typedef struct FetchShareBlob FetchShareBlob;

/* Errors: -ENOENT (not here, or not whole), -ENOMEM. */
int fetch_share_blob_open(FetchShare *share, const Digest *blob, FetchShareBlob **ret_blob) _must_check_;
FetchShareBlob *fetch_share_blob_close(FetchShareBlob *blob); /* before the share is freed; returns NULL */
DEFINE_CLEANUP(FetchShareBlob, fetch_share_blob_close);
uint64_t fetch_share_blob_size(const FetchShareBlob *blob);

/* `size` bytes at `offset`, all within the blob. Errors: -ENODATA (they are not here any more, or have rotted), -ENOMEM. */
int fetch_share_blob_read(FetchShareBlob *blob, uint64_t offset, size_t size, void *buffer) _must_check_;

/* The layer with this diffID whose blob is whole, as above. Errors: -ENOENT, -ENOMEM. */
int fetch_share_layer(FetchShare *share, const Digest *diff_id, ManifestLayer *ret_layer) _must_check_;

/* The file of a blob that is whole, but for its footer; the caller's. Errors: -ENOENT. */
int fetch_share_file(FetchShare *share, const Digest *blob, int *ret_fd) _must_check_;
