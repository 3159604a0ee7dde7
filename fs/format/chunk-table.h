/* The chunk table of a layer's index: docs/format.md section 3, types 1 to 3. */
#pragma once

#include <stdint.h>

#include "fs/format/image.h"

typedef struct Chunk {
	uint64_t tar_offset;
	uint64_t blob_offset;
	uint32_t tar_size;  /* 1 to FORMAT_CHUNK_MAX */
	uint32_t blob_size; /* length of the frame */
	Digest digest;      /* SHA-256 of the frame */
} Chunk;

/* Points into the image it was opened on, which must outlive it. Immutable: any thread may read it. */
typedef struct ChunkTable {
	uint32_t count;
	uint64_t tar_size;  /* the tar_sizes of all chunks together */
	uint64_t blob_size; /* the blob_sizes together: where the index starts in the blob */
	const uint8_t *lengths;
	const uint8_t *marks;
	const uint8_t *digests;
} ChunkTable;

/* Validates the three sections whole, against the header too. Errors: -EBADMSG. */
int chunk_table_open(const Image *image, ChunkTable *ret_table, Error *error) _must_check_;

/* Chunk `number`, which must be below count. */
void chunk_table_get(const ChunkTable *table, uint32_t number, Chunk *ret_chunk);

/* The number of the chunk that holds byte `tar_offset`, which must be below tar_size. */
uint32_t chunk_table_find(const ChunkTable *table, uint64_t tar_offset);

/* How many chunks hold the bytes [from, to) of the tar, of which there must be one, and in `ret_first` the number of the first. */
uint32_t chunk_table_find_range(const ChunkTable *table, uint64_t from, uint64_t to, uint32_t *ret_first);

/* As above by offset in the blob, which must be below blob_size. */
uint32_t chunk_table_find_blob(const ChunkTable *table, uint64_t blob_offset);

/* Collects chunks in tar order and adds the three sections to an image. One owner. */
typedef struct ChunkTableWriter ChunkTableWriter;

int chunk_table_writer_new(ChunkTableWriter **ret_writer) _must_check_;
ChunkTableWriter *chunk_table_writer_free(ChunkTableWriter *writer);
DEFINE_CLEANUP(ChunkTableWriter, chunk_table_writer_free);
/* Errors: -EINVAL (a length that no chunk has), -EFBIG, -ENOMEM. */
int chunk_table_writer_add(ChunkTableWriter *writer, uint32_t tar_size, uint32_t blob_size, const Digest *digest)
	_must_check_;
uint32_t chunk_table_writer_count(const ChunkTableWriter *writer);

/* Gives sections 1 to 3 to the image; the writer is of no further use but for its count. */
int chunk_table_writer_finish(ChunkTableWriter *writer, ImageWriter *image) _must_check_;
