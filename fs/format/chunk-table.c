#include "fs/format/chunk-table.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "fs/base/bytes.h"
#include "fs/format/buffer.h"

#define LENGTHS_SIZE 8u  /* length in the tar, length of the frame */
#define MARK_SIZE    16u /* offset in the tar, offset in the blob */
#define WAY_OUT      "fetch or export it again"

static uint64_t mark_count(uint64_t chunk_count)
{
	return (chunk_count + FORMAT_MARK_INTERVAL - 1) / FORMAT_MARK_INTERVAL;
}

static uint32_t tar_length(const ChunkTable *table, uint32_t number)
{
	return load_le32(table->lengths + (size_t)number * LENGTHS_SIZE);
}

static uint32_t blob_length(const ChunkTable *table, uint32_t number)
{
	return load_le32(table->lengths + (size_t)number * LENGTHS_SIZE + 4);
}

/* Adds the lengths up, and checks each and the marks against them. */
static int check_lengths(ChunkTable *table, Error *error)
{
	for (uint32_t i = 0; i < table->count; i++) {
		if (i % FORMAT_MARK_INTERVAL == 0) {
			const uint8_t *mark = table->marks + (size_t)(i / FORMAT_MARK_INTERVAL) * MARK_SIZE;
			if (load_le64(mark) != table->tar_size || load_le64(mark + 8) != table->blob_size)
				return error_set(error, -EBADMSG,
						 "the mark of chunk %u is wrong in the index; " WAY_OUT, i);
		}
		uint32_t tar = tar_length(table, i), blob = blob_length(table, i);
		if (tar == 0 || tar > FORMAT_CHUNK_MAX || blob == 0 || blob > FORMAT_FRAME_MAX)
			return error_set(error, -EBADMSG,
					 "chunk %u of the index has impossible lengths (%u, as a frame %u); " WAY_OUT,
					 i, tar, blob);
		table->tar_size += tar;
		table->blob_size += blob;
	}
	return 0;
}

int chunk_table_open(const Image *image, ChunkTable *ret_table, Error *error)
{
	const ImageSection *lengths = &image->sections[FORMAT_SECTION_CHUNK_LENGTHS];
	const ImageSection *marks = &image->sections[FORMAT_SECTION_CHUNK_MARKS];
	const ImageSection *digests = &image->sections[FORMAT_SECTION_CHUNK_DIGESTS];
	if (!lengths->present || !marks->present || !digests->present)
		return error_set(error, -EBADMSG, "the index has no chunk table; " WAY_OUT);
	uint64_t count = lengths->size / LENGTHS_SIZE;
	if (count > UINT32_MAX || lengths->size != count * LENGTHS_SIZE || digests->size != count * DIGEST_SIZE ||
	    marks->size != mark_count(count) * MARK_SIZE)
		return error_set(error, -EBADMSG, "the sections of the chunk table disagree on its length; " WAY_OUT);

	ChunkTable table = {
		.count = (uint32_t)count,
		.lengths = lengths->data,
		.marks = marks->data,
		.digests = digests->data,
	};
	int r = check_lengths(&table, error);
	if (r < 0)
		return r;
	if (table.tar_size != image->header.tar_size || table.blob_size != image->header.chunks_size)
		return error_set(error, -EBADMSG,
				 "the chunks add up to %" PRIu64 " bytes (%" PRIu64
				 " as frames), but the index says %" PRIu64 " (%" PRIu64 "); " WAY_OUT,
				 table.tar_size, table.blob_size, image->header.tar_size, image->header.chunks_size);
	*ret_table = table;
	return 0;
}

void chunk_table_get(const ChunkTable *table, uint32_t number, Chunk *ret_chunk)
{
	const uint8_t *mark = table->marks + (size_t)(number / FORMAT_MARK_INTERVAL) * MARK_SIZE;
	uint64_t tar_offset = load_le64(mark), blob_offset = load_le64(mark + 8);
	for (uint32_t i = number / FORMAT_MARK_INTERVAL * FORMAT_MARK_INTERVAL; i < number; i++) {
		tar_offset += tar_length(table, i);
		blob_offset += blob_length(table, i);
	}
	ret_chunk->tar_offset = tar_offset;
	ret_chunk->blob_offset = blob_offset;
	ret_chunk->tar_size = tar_length(table, number);
	ret_chunk->blob_size = blob_length(table, number);
	memcpy(ret_chunk->digest.bytes, table->digests + (size_t)number * DIGEST_SIZE, DIGEST_SIZE);
}

/* The chunk that holds byte `offset`, and where it ends; `field` is 0 to count in the tar, 1 in the blob. */
static uint32_t find(const ChunkTable *table, uint64_t offset, size_t field, uint64_t *ret_end)
{
	uint32_t low = 0, high = (uint32_t)mark_count(table->count);
	while (high - low > 1) {
		uint32_t middle = low + (high - low) / 2;
		if (load_le64(table->marks + (size_t)middle * MARK_SIZE + field * 8) <= offset)
			low = middle;
		else
			high = middle;
	}
	uint64_t end = load_le64(table->marks + (size_t)low * MARK_SIZE + field * 8);
	for (uint32_t number = low * FORMAT_MARK_INTERVAL;; number++) {
		end += load_le32(table->lengths + (size_t)number * LENGTHS_SIZE + field * 4);
		if (offset < end) {
			*ret_end = end;
			return number;
		}
	}
}

uint32_t chunk_table_find(const ChunkTable *table, uint64_t tar_offset)
{
	uint64_t end;
	return find(table, tar_offset, 0, &end);
}

uint32_t chunk_table_find_range(const ChunkTable *table, uint64_t from, uint64_t to, uint32_t *ret_first)
{
	uint64_t end;
	uint32_t first = find(table, from, 0, &end), last = first;
	while (end < to)
		end += tar_length(table, ++last);
	*ret_first = first;
	return last - first + 1;
}

uint32_t chunk_table_find_blob(const ChunkTable *table, uint64_t blob_offset)
{
	uint64_t end;
	return find(table, blob_offset, 1, &end);
}

struct ChunkTableWriter {
	uint32_t count;
	uint64_t tar_size;
	uint64_t blob_size;
	Buffer lengths;
	Buffer marks;
	Buffer digests;
};

int chunk_table_writer_new(ChunkTableWriter **ret_writer)
{
	ChunkTableWriter *writer = calloc(1, sizeof(*writer));
	if (!writer)
		return -ENOMEM;
	*ret_writer = writer;
	return 0;
}

ChunkTableWriter *chunk_table_writer_free(ChunkTableWriter *writer)
{
	if (writer) {
		buffer_done(&writer->lengths);
		buffer_done(&writer->marks);
		buffer_done(&writer->digests);
		free(writer);
	}
	return NULL;
}

static int add_mark(ChunkTableWriter *writer)
{
	uint8_t *mark = buffer_extend(&writer->marks, MARK_SIZE);
	if (!mark)
		return -ENOMEM;
	store_le64(mark, writer->tar_size);
	store_le64(mark + 8, writer->blob_size);
	return 0;
}

int chunk_table_writer_add(ChunkTableWriter *writer, uint32_t tar_size, uint32_t blob_size, const Digest *digest)
{
	if (tar_size == 0 || tar_size > FORMAT_CHUNK_MAX || blob_size == 0 || blob_size > FORMAT_FRAME_MAX)
		return -EINVAL;
	if (writer->count == UINT32_MAX)
		return -EFBIG;
	int r = writer->count % FORMAT_MARK_INTERVAL == 0 ? add_mark(writer) : 0;
	if (r < 0)
		return r;
	uint8_t *lengths = buffer_extend(&writer->lengths, LENGTHS_SIZE);
	if (!lengths)
		return -ENOMEM;
	store_le32(lengths, tar_size);
	store_le32(lengths + 4, blob_size);
	r = buffer_append(&writer->digests, digest->bytes, DIGEST_SIZE);
	if (r < 0)
		return r;
	writer->count++;
	writer->tar_size += tar_size;
	writer->blob_size += blob_size;
	return 0;
}

uint32_t chunk_table_writer_count(const ChunkTableWriter *writer)
{
	return writer->count;
}

int chunk_table_writer_finish(ChunkTableWriter *writer, ImageWriter *image)
{
	int r = image_writer_take(image, FORMAT_SECTION_CHUNK_LENGTHS, FORMAT_SECTION_MANDATORY, &writer->lengths);
	if (r == 0)
		r = image_writer_take(image, FORMAT_SECTION_CHUNK_MARKS, FORMAT_SECTION_MANDATORY, &writer->marks);
	if (r == 0)
		r = image_writer_take(image, FORMAT_SECTION_CHUNK_DIGESTS, FORMAT_SECTION_MANDATORY, &writer->digests);
	return r;
}
