/* What a cache holds, for those who look at it or clear it up; the files are those of cache-store.h. All calls block on the disk. */
#pragma once

#include "fs/cache/cache-store.h"

/* A tag that was seen. */
typedef struct CacheTag {
	char *reference; /* "HOST/NAME:TAG" */
	Digest manifest; /* what it was last seen to mean */
} CacheTag;

/* All tags, by reference. What is no tag is passed over. Errors: -ENOMEM, opendir's. */
int cache_contents_tags(CacheStore *store, CacheTag **ret_tags, size_t *ret_count) _must_check_;
CacheTag *cache_contents_tags_free(CacheTag *tags, size_t count);

/* What a tag of a repository was last seen to mean, at whatever host. Errors: -ENOENT (never seen), -ENOTUNIQ (not the same everywhere), opendir's. */
int cache_contents_tag_find(CacheStore *store, const char *name, const char *tag, Digest *ret_manifest) _must_check_;
int cache_contents_tag_remove(CacheStore *store, const CacheTag *tag) _must_check_;

typedef struct CacheObject {
	Digest digest;
	uint64_t bytes; /* that it takes on the disk */
	int64_t age;    /* seconds since it was written to */
} CacheObject;

/* All objects of a kind, in no order; malloc'ed. Errors: -ENOMEM, opendir's. */
int cache_contents_list(CacheStore *store, CacheKind kind, CacheObject **ret_objects, size_t *ret_count) _must_check_;

/* Removes an object. Who has its files open may use them still. Errors: unlink's; -ENOENT is none. */
int cache_contents_remove(CacheStore *store, CacheKind kind, const Digest *digest) _must_check_;
