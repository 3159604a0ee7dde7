/*
 * The chunks of one blob as a running server sees them: what is present, and what is trusted.
 *
 * A chunk is ABSENT, PRESENT (the bitmap says so; nobody checked since this process started) or TRUSTED (its SHA-256 was
 * checked by this process). Only the bytes of a TRUSTED chunk are ever decoded, and LZ4's checksum is verified at each
 * decode. A failed check makes a chunk ABSENT again, or PRESENT in a blob that is not writable, since its file may be
 * repaired meanwhile. Other processes may evict chunks at any time (cache-evict.h); a read never gives bytes of a chunk that was being evicted
 * meanwhile, unless they have passed SHA-256. Thread-safe; the states are atomics, no lock is held across I/O.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "fs/format/chunk-table.h"

typedef struct CacheBlob CacheBlob;

/*
 * The bitmap of `count` chunks in a blob's file `present`, malloc'ed. It is a hint: what cannot be read of it counts as absent. NULL: out
 * of memory.
 */
uint8_t *cache_bits_read(int present_fd, uint32_t count);

static inline bool cache_bits_have(const uint8_t *bits, uint32_t chunk)
{
	return bits[chunk / 8] >> (chunk % 8) & 1;
}

/* When a chunk of `count` was last used, in seconds since 1970, by the same file; some ten seconds late. 0: never, or nobody knows. */
int64_t cache_bits_used(int present_fd, uint32_t count);

/*
 * `table` must outlive the blob; the descriptors become the blob's, also on failure. With present_fd < 0 every chunk counts as PRESENT and nothing is
 * ever written: the file is a whole blob, of a local store. Errors: -ENOMEM.
 */
int cache_blob_new(const ChunkTable *table, int data_fd, int present_fd, CacheBlob **ret_blob) _must_check_;
CacheBlob *cache_blob_free(CacheBlob *blob);
DEFINE_CLEANUP(CacheBlob, cache_blob_free);

const ChunkTable *cache_blob_table(const CacheBlob *blob);
bool cache_blob_writable(const CacheBlob *blob);

/* Is the chunk PRESENT or TRUSTED? A hint: the next read may find it rotten. */
bool cache_blob_has(const CacheBlob *blob, uint32_t chunk);

/*
 * Reads the frame of a chunk into `frame` (FORMAT_FRAME_MAX bytes) and makes sure it is the right one.
 * Errors: -ENODATA (absent, or found rotten or unreadable, and therefore absent now).
 */
int cache_blob_read(CacheBlob *blob, uint32_t chunk, uint8_t *frame, uint32_t *ret_size) _must_check_;

/* Does its frame have the right digest? As cache_blob_read(), but SHA-256 decides each time, and it is no use of the chunk. */
int cache_blob_check(CacheBlob *blob, uint32_t chunk, uint8_t *frame) _must_check_;

/*
 * Stores the frame of a chunk whose digest the caller has just verified, and makes it TRUSTED.
 * Errors: -EBUSY (the chunk is being evicted just now; that is no fault), pwrite's (-ENOSPC...); the chunk then stays ABSENT.
 */
int cache_blob_write(CacheBlob *blob, uint32_t chunk, const uint8_t *frame, uint32_t size) _must_check_;

/* Has the disk write what is not on it yet, and waits for that. It is a help only: who has to know calls cache_seal_write(). */
void cache_blob_sync(const CacheBlob *blob);

/* Looks at the bitmap again: what other processes have stored since is PRESENT now. It is a help only: without memory nothing changes. */
void cache_blob_look(CacheBlob *blob);

/*
 * Has the bitmap say of every chunk that it is here, as whoever seals the blob is about to: a bit that another writer of the same byte has undone is set
 * again. All chunks have to be TRUSTED. Nothing to do for a whole blob. Errors: -ENODATA (a chunk is not here, or was evicted since, which this process
 * need not have noticed), -ENOMEM.
 */
int cache_blob_settle(CacheBlob *blob) _must_check_;

/* Makes a chunk ABSENT: its frame passed SHA-256 once but no longer decodes. */
void cache_blob_forget(CacheBlob *blob, uint32_t chunk);
