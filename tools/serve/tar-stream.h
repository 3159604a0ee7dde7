/*
 * A layer's ordinary tar, made from its imgfs blob while it is read: any range of it, nothing stored. Each frame's SHA-256 is
 * checked the first time the frame is used, LZ4's content checksum at every decode.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "fs/base/error.h"
#include "fs/format/manifest.h"

/* An open layer: blob and chunk table. Immutable to its users, shared by any number of threads, counted. */
typedef struct TarStream TarStream;

/* Memory to decode in, about 0.8 MiB. One thread at a time. */
typedef struct TarScratch TarScratch;

int tar_scratch_new(TarScratch **ret_scratch) _must_check_;
TarScratch *tar_scratch_free(TarScratch *scratch);
DEFINE_CLEANUP(TarScratch, tar_scratch_free);

/*
 * Opens the blob `fd` (taken over on success) of the layer whose record is `layer`; reads and checks the index, and keeps the
 * chunk table of it. Blocks on the disk. Errors: -EBADMSG (blob, index or record do not fit each other; the sentence names the
 * blob), -EPROTONOSUPPORT, -EFBIG, -ENOMEM, or read's.
 */
int tar_stream_open(int fd, const ManifestLayer *layer, TarStream **ret_stream, Error *error) _must_check_;

TarStream *tar_stream_ref(TarStream *stream);
TarStream *tar_stream_unref(TarStream *stream); /* returns NULL */
DEFINE_CLEANUP(TarStream, tar_stream_unref);

uint64_t tar_stream_size(const TarStream *stream); /* bytes of the tar */
uint64_t tar_stream_id(const TarStream *stream);   /* of no other stream of this process; not 0 */
size_t tar_stream_memory(const TarStream *stream); /* bytes the open stream holds */

/* Where the chunk begins that holds the byte at `offset`, which must be below its size. */
uint64_t tar_stream_chunk_start(const TarStream *stream, uint64_t offset);

/*
 * Reads 1 to `size` bytes of the tar at `offset`, which must be below its size; stops short at a chunk's end rather than
 * decode a chunk for a part of it, so buffers of FORMAT_CHUNK_MAX and more never decode one twice. Blocks on the disk.
 * Returns the count, or: -EBADMSG (the blob is corrupt; the sentence names blob, chunk and offset), -ENODATA (it was cut
 * short), or read's. After an error the buffer holds rubbish.
 */
ssize_t tar_stream_read(TarStream *stream, TarScratch *scratch, uint64_t offset, void *buffer, size_t size,
			Error *error) _must_check_;
