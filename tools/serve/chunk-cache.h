/*
 * Decoded stretches of tars, shared by all transfers, and the memory to decode in. However many transfers there are, and however slow
 * their clients, this holds at most `slots` chunks (FORMAT_CHUNK_MAX bytes each, allocated when first used) and `decoders` scratches. Any
 * thread may call; nobody waits for a client in here, only for the disk and for decoding.
 */
#pragma once

#include "tools/serve/tar-stream.h"

typedef struct ChunkCache ChunkCache;

/* `slots` must exceed `decoders`, which is at least 1. Errors: -ENOMEM. */
int chunk_cache_new(unsigned slots, unsigned decoders, ChunkCache **ret_cache) _must_check_;
ChunkCache *chunk_cache_free(ChunkCache *cache); /* no call may be under way */
DEFINE_CLEANUP(ChunkCache, chunk_cache_free);

/* As tar_stream_read(), without a scratch of the caller's. */
ssize_t chunk_cache_read(ChunkCache *cache, TarStream *stream, uint64_t offset, void *buffer, size_t size, Error *error)
	_must_check_;
