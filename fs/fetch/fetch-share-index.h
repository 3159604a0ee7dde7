/*
 * Private to the room: which layers the manifests of a cache name, by blob and by diffID. They are read once, and again after their directory has changed,
 * at most once a second, so that whoever asks for digests that are not here makes nobody read. Thread-safe; may block on the disk.
 */
#pragma once

#include "fs/cache/cache-store.h"
#include "fs/format/manifest.h"

typedef struct ShareIndex ShareIndex;

/* `cache` outlives it. Errors: -ENOMEM. */
int share_index_new(CacheStore *cache, ShareIndex **ret_index) _must_check_;
ShareIndex *share_index_free(ShareIndex *index); /* no call may be under way */
DEFINE_CLEANUP(ShareIndex, share_index_free);

typedef enum ShareKey { SHARE_BLOB, SHARE_DIFF_ID } ShareKey;

/*
 * The layers with this blob, or this diffID: images that were exported apart may have several of a diffID. malloc'ed, the caller's. Errors: -ENOENT, -ENOMEM, opendir's.
 */
int share_index_find(ShareIndex *index, ShareKey key, const Digest *digest, ManifestLayer **ret_layers,
		     size_t *ret_count) _must_check_;

/* How often manifests were read; for tests. */
unsigned long share_index_reads(const ShareIndex *index);
