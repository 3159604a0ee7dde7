/*
 * The layers whose tars are being served: open streams, least recently used ones closed first.
 * Any thread may call; no lock is held while a layer is opened.
 */
#pragma once

#include "tools/serve/tar-stream.h"

typedef struct TarCache TarCache;

/* Opens a blob for reading: 0, or a negative errno, -ENOENT when it is not there. The descriptor is the caller's. Any thread may call. */
typedef int TarCacheOpen(void *arg, const Digest *blob, int *ret_fd);

/* Keeps at most `streams` layers (a file descriptor each) and `memory` bytes of chunk tables open; those in use come on top. */
int tar_cache_new(TarCacheOpen *open_blob, void *arg, unsigned streams, size_t memory, TarCache **ret_cache)
	_must_check_;
TarCache *tar_cache_free(TarCache *cache); /* no call may be under way; streams handed out live on */
DEFINE_CLEANUP(TarCache, tar_cache_free);

/*
 * The stream of a layer, the caller's to unref; opened once however many ask for it at the same time.
 * Errors: as tar_stream_open(), -ENOENT when the blob is gone.
 */
int tar_cache_get(TarCache *cache, const ManifestLayer *layer, TarStream **ret_stream, Error *error) _must_check_;

/* Closes the stream for further callers: what it read was wrong, and a new export may have put the blob right. */
void tar_cache_forget(TarCache *cache, const TarStream *stream);
