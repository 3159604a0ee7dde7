#include "tools/export/layer-reader.h"

#include <inttypes.h>
#include <string.h>

#include "fs/base/fd.h"
#include "fs/format/blob.h"

#define NO_CHUNK UINT32_MAX

LayerReader *layer_reader_free(LayerReader *reader)
{
	if (reader) {
		if (reader->fd >= 0)
			(void)close(reader->fd);
		(void)frame_decoder_free(reader->decoder);
		free(reader->index);
		free(reader->frame);
		free(reader->content);
		free(reader);
	}
	return NULL;
}

/* The index's bytes as they stand in the blob, checked by their digest. */
static int read_index(const LayerReader *reader, uint8_t **ret_data, Error *error)
{
	const ManifestLayer *layer = &reader->layer;
	Digest digest;
	_cleanup_free_ uint8_t *data = malloc(layer->index_size);
	if (!data)
		return error_set(error, -ENOMEM, "out of memory for its index of %" PRIu64 " bytes", layer->index_size);
	int r = fd_pread_all(reader->fd, data, layer->index_size, layer->index_offset);
	if (r == 0)
		r = digest_of(data, layer->index_size, &digest);
	if (r < 0)
		return error_set(error, r, "its index at offset %" PRIu64 " cannot be read: %s", layer->index_offset,
				 error_text(NULL, r));
	if (!digest_equal(&digest, &layer->index))
		return error_set(error, -EBADMSG, "its index at offset %" PRIu64 " is rotten: the SHA-256 is another",
				 layer->index_offset);
	*ret_data = TAKE_PTR(data);
	return 0;
}

static int check_index(const LayerReader *reader, Error *error)
{
	const ImageHeader *header = &reader->image.header;
	const ManifestLayer *layer = &reader->layer;
	if (header->kind != FORMAT_KIND_INDEX || header->codec != FORMAT_CODEC_LZ4)
		return error_set(error, -EPROTONOSUPPORT, "its index is of a kind this version of imgfs does not know");
	if (!digest_equal(&header->id, &layer->diff_id) || header->tar_size != layer->tar_size ||
	    header->chunks_size != layer->index_offset)
		return error_set(error, -EBADMSG, "its index is another layer's");
	return 0;
}

static int open_index(LayerReader *reader, Error *error)
{
	_cleanup_free_ uint8_t *data = NULL;
	size_t size;
	int r = read_index(reader, &data, error);
	if (r == 0)
		r = blob_index_decode(data, reader->layer.index_size, &reader->index, &size, error);
	if (r == 0)
		r = image_open(reader->index, size, &reader->image, error);
	if (r == 0)
		r = chunk_table_open(&reader->image, &reader->chunks, error);
	return r == 0 ? check_index(reader, error) : r;
}

static int open_blob(LayerReader *reader, Store *store, Error *error)
{
	uint64_t size;
	int r = store_blob_open(store, &reader->layer.blob, &reader->fd, &size);
	if (r == -ENOENT)
		return error_set(error, r, "the store does not hold it");
	if (r < 0)
		return error_set(error, r, "it cannot be opened: %s", error_text(NULL, r));
	if (size != reader->layer.blob_size)
		return error_set(error, -EBADMSG, "it is %" PRIu64 " bytes long instead of %" PRIu64, size,
				 reader->layer.blob_size);
	return 0;
}

int layer_reader_open(Store *store, const ManifestLayer *layer, LayerReader **ret_reader, Error *error)
{
	_cleanup_(layer_reader_free_p) LayerReader *reader = calloc(1, sizeof(*reader));
	if (!reader)
		return error_set(error, -ENOMEM, "out of memory for a layer");
	reader->fd = -1;
	reader->held = NO_CHUNK;
	reader->layer = *layer;
	reader->frame = malloc(FORMAT_FRAME_MAX);
	reader->content = malloc(FORMAT_CHUNK_MAX);
	if (!reader->frame || !reader->content || frame_decoder_new(&reader->decoder) < 0)
		return error_set(error, -ENOMEM, "out of memory for a layer");
	int r = open_blob(reader, store, error);
	if (r == 0)
		r = open_index(reader, error);
	if (r < 0)
		return r;
	*ret_reader = TAKE_PTR(reader);
	return 0;
}

int layer_frame_check(const Chunk *chunk, const uint8_t *frame)
{
	Digest digest;
	int r = digest_of(frame, chunk->blob_size, &digest);
	if (r < 0)
		return r;
	return digest_equal(&digest, &chunk->digest) ? 0 : -EBADMSG;
}

int layer_chunk_error(const LayerReader *reader, uint32_t number, int code, const char *what, Error *error)
{
	char text[DIGEST_TEXT_SIZE];
	Chunk chunk;
	chunk_table_get(&reader->chunks, number, &chunk);
	return error_set(error, code,
			 "blob %s, chunk %" PRIu32 " at offset %" PRIu64 ": %s; export the image again with --verify",
			 digest_text(&reader->layer.blob, text), number, chunk.blob_offset, what);
}

static int hold_chunk(LayerReader *reader, uint32_t number, Error *error)
{
	Chunk chunk;
	if (reader->held == number)
		return 0;
	reader->held = NO_CHUNK;
	chunk_table_get(&reader->chunks, number, &chunk);
	int r = fd_pread_all(reader->fd, reader->frame, chunk.blob_size, chunk.blob_offset);
	if (r < 0)
		return layer_chunk_error(reader, number, r, error_text(NULL, r), error);
	r = layer_frame_check(&chunk, reader->frame);
	if (r < 0)
		return layer_chunk_error(reader, number, r, "its frame is rotten", error);
	r = frame_decode(reader->decoder, reader->frame, chunk.blob_size, reader->content, chunk.tar_size);
	if (r < 0)
		return layer_chunk_error(reader, number, r, "its frame cannot be decoded", error);
	reader->held = number;
	return 0;
}

int layer_reader_read(LayerReader *reader, uint64_t offset, void *buffer, size_t size, Error *error)
{
	uint8_t *to = buffer;
	while (size > 0) {
		Chunk chunk;
		uint32_t number = chunk_table_find(&reader->chunks, offset);
		int r = hold_chunk(reader, number, error);
		if (r < 0)
			return r;
		chunk_table_get(&reader->chunks, number, &chunk);
		size_t skip = (size_t)(offset - chunk.tar_offset);
		size_t part = chunk.tar_size - skip < size ? chunk.tar_size - skip : size;
		memcpy(to, reader->content + skip, part);
		to += part;
		offset += part;
		size -= part;
	}
	return 0;
}
