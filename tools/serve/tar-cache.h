/*
 * The layers whose tars are being served: open streams, least recently used ones closed first.
 * Any thread may call; no lock is held while a layer is opened.
 */
#pragma once

#include "tools/export/store.h"
#include "tools/serve/tar-stream.h"

typedef struct TarCache TarCache;

/* Keeps at most `streams` layers (a file descriptor each) and `memory` bytes of chunk tables open; those in use come on top. */
int tar_cache_new(Store *store, unsigned streams, size_t memory, TarCache **ret_cache) _must_check_;
TarCache *tar_cache_free(TarCache *cache); /* no call may be under way; streams handed out live on */
DEFINE_CLEANUP(TarCache, tar_cache_free);

/*
 * The stream of a layer, the caller's to unref; opened once however many ask for it at the same time. `cache`'s store must
 * outlive it. Errors: as tar_stream_open(), -ENOENT when the blob is gone.
 */
int tar_cache_get(TarCache *cache, const ManifestLayer *layer, TarStream **ret_stream, Error *error) _must_check_;

/* Closes the stream for further callers: what it read was wrong, and a new export may have put the blob right. */
void tar_cache_forget(TarCache *cache, const TarStream *stream);
