/*
 * What a cache has for others: a node that is a mirror. Nothing is given that was not checked: manifests by their digests, frames by SHA-256 (once
 * while a blob is open, and again when it may have been evicted), indexes by the digest in the manifest. Thread-safe; all calls block on the disk.
 */
#pragma once

#include "fs/cache/cache-store.h"

typedef struct FetchShare FetchShare;

/* `cache` stays the caller's and outlives it. Errors: -ENOMEM. */
int fetch_share_new(CacheStore *cache, FetchShare **ret_share) _must_check_;
FetchShare *fetch_share_free(FetchShare *share); /* no call may be under way */
DEFINE_CLEANUP(FetchShare, fetch_share_free);

/* A manifest, malloc'ed, the caller's. Errors: -ENOENT (not here, or rotten). */
int fetch_share_manifest(FetchShare *share, const Digest *digest, char **ret_json, size_t *ret_size) _must_check_;

/* What this node last saw a tag mean, at whatever host. Errors: -ENOENT (never seen), -ENOTUNIQ (two hosts mean different things). */
int fetch_share_tag(FetchShare *share, const char *name, const char *tag, Digest *ret_manifest) _must_check_;

/* The length of a blob that a manifest here names. Errors: -ENOENT. */
int fetch_share_size(FetchShare *share, const Digest *blob, uint64_t *ret_size) _must_check_;

/* Bytes of a blob, of whole chunks or not, or of its index. Errors: -ENOENT (no such blob), -ENODATA (not all of them are here), -ENOMEM. */
int fetch_share_read(FetchShare *share, const Digest *blob, uint64_t offset, size_t size, uint8_t *buffer) _must_check_;
