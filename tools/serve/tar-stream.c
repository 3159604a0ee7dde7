#include "tools/serve/tar-stream.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/base/bytes.h"
#include "fs/base/fd.h"
#include "fs/format/blob.h"
#include "fs/format/chunk-table.h"
#include "fs/format/frame.h"

struct TarScratch {
	FrameDecoder *decoder;
	uint8_t frames[FORMAT_FRAME_MAX];  /* as read from the blob */
	uint8_t content[FORMAT_CHUNK_MAX]; /* of a chunk that is wanted in part */
};

struct TarStream {
	atomic_uint references;
	uint64_t id;
	int fd;
	ManifestLayer layer;
	Image image; /* its chunk sections alone, in `sections` */
	uint8_t *sections;
	size_t sections_size;
	ChunkTable table;
	atomic_uchar *verified; /* a bit a chunk: its frame's SHA-256 was right */
};

int tar_scratch_new(TarScratch **ret_scratch)
{
	_cleanup_(tar_scratch_free_p) TarScratch *scratch = calloc(1, sizeof(*scratch));
	if (!scratch)
		return -ENOMEM;
	int r = frame_decoder_new(&scratch->decoder);
	if (r < 0)
		return r;
	*ret_scratch = TAKE_PTR(scratch);
	return 0;
}

TarScratch *tar_scratch_free(TarScratch *scratch)
{
	if (!scratch)
		return NULL;
	(void)frame_decoder_free(scratch->decoder);
	free(scratch);
	return NULL;
}

/* The bytes of the index as they stand in the blob, checked by their digest. */
static int read_index(int fd, const ManifestLayer *layer, uint8_t **ret_data, Error *error)
{
	struct stat status;
	if (fstat(fd, &status) < 0)
		return error_set(error, -errno, "its size cannot be read: %s", error_text(NULL, errno));
	if ((uint64_t)status.st_size != layer->blob_size)
		return error_set(error, -EBADMSG, "it is %jd bytes long instead of %" PRIu64, (intmax_t)status.st_size,
				 layer->blob_size);
	if (!range_within(layer->index_offset, layer->index_size, layer->blob_size))
		return error_set(error, -EBADMSG, "the layer's record puts the index outside of it");

	_cleanup_free_ uint8_t *data = malloc(layer->index_size ? layer->index_size : 1);
	if (!data)
		return error_set(error, -ENOMEM, "no memory for its index of %" PRIu64 " bytes", layer->index_size);
	int r = fd_pread_all(fd, data, layer->index_size, layer->index_offset);
	if (r < 0)
		return error_set(error, r, "its index cannot be read: %s", error_text(NULL, r));
	Digest digest;
	r = digest_of(data, layer->index_size, &digest);
	if (r < 0)
		return error_set(error, r, "no memory to check its index");
	if (!digest_equal(&digest, &layer->index))
		return error_set(error, -EBADMSG,
				 "its index is corrupt: the SHA-256 is another than the layer's record says");
	*ret_data = TAKE_PTR(data);
	return 0;
}

static int check_header(const ImageHeader *header, const ManifestLayer *layer, Error *error)
{
	if (header->kind != FORMAT_KIND_INDEX || header->codec != FORMAT_CODEC_LZ4)
		return error_set(error, -EPROTONOSUPPORT, "its index is of a kind this version of imgfs does not know");
	if (!digest_equal(&header->id, &layer->diff_id) || header->tar_size != layer->tar_size ||
	    header->chunks_size != layer->index_offset)
		return error_set(error, -EBADMSG, "its index belongs to another layer than the record says");
	return 0;
}

/*
 * Copies the chunk table out of the index: it is some forty bytes a chunk, while the tree beside it, of no use here, can be
 * hundreds of times that.
 */
static int keep_chunks(TarStream *stream, const Image *image, Error *error)
{
	size_t size = 0;
	for (int type = FORMAT_SECTION_CHUNK_LENGTHS; type <= FORMAT_SECTION_CHUNK_DIGESTS; type++)
		size += image->sections[type].size;
	stream->sections = malloc(size ? size : 1);
	if (!stream->sections)
		return error_set(error, -ENOMEM, "no memory for its chunk table of %zu bytes", size);
	stream->sections_size = size;
	stream->image.header = image->header;
	uint8_t *to = stream->sections;
	for (int type = FORMAT_SECTION_CHUNK_LENGTHS; type <= FORMAT_SECTION_CHUNK_DIGESTS; type++) {
		const ImageSection *section = &image->sections[type];
		if (section->size > 0)
			memcpy(to, section->data, section->size);
		stream->image.sections[type] =
			(ImageSection){ .data = to, .size = section->size, .present = section->present };
		to += section->size;
	}
	return chunk_table_open(&stream->image, &stream->table, error);
}

static int load_chunks(TarStream *stream, Error *error)
{
	_cleanup_free_ uint8_t *data = NULL;
	int r = read_index(stream->fd, &stream->layer, &data, error);
	if (r < 0)
		return r;
	_cleanup_free_ uint8_t *bytes = NULL;
	size_t size;
	r = blob_index_decode(data, stream->layer.index_size, &bytes, &size, error);
	if (r < 0)
		return r;
	Image image;
	r = image_open(bytes, size, &image, error);
	if (r < 0)
		return r;
	r = check_header(&image.header, &stream->layer, error);
	if (r < 0)
		return r;
	r = keep_chunks(stream, &image, error);
	if (r < 0)
		return r;
	stream->verified = calloc(stream->table.count / 8 + 1, sizeof(*stream->verified));
	return stream->verified ? 0 : error_set(error, -ENOMEM, "no memory for its chunk table");
}

int tar_stream_open(int fd, const ManifestLayer *layer, TarStream **ret_stream, Error *error)
{
	static _Atomic uint64_t last_id;
	TarStream *stream = calloc(1, sizeof(*stream));
	if (!stream)
		return error_set(error, -ENOMEM, "no memory to open a layer");
	atomic_init(&stream->references, 1);
	stream->id = atomic_fetch_add_explicit(&last_id, 1, memory_order_relaxed) + 1;
	stream->fd = fd;
	stream->layer = *layer;
	int r = load_chunks(stream, error);
	if (r < 0) {
		char text[DIGEST_TEXT_SIZE];
		stream->fd = -1; /* stays the caller's */
		(void)tar_stream_unref(stream);
		return error_prefix(error, r, "blob %s", digest_text(&layer->blob, text));
	}
	*ret_stream = stream;
	return 0;
}

TarStream *tar_stream_ref(TarStream *stream)
{
	atomic_fetch_add_explicit(&stream->references, 1, memory_order_relaxed);
	return stream;
}

TarStream *tar_stream_unref(TarStream *stream)
{
	/* Release and acquire: what other owners did with it is over before the last one frees it. */
	if (!stream || atomic_fetch_sub_explicit(&stream->references, 1, memory_order_acq_rel) > 1)
		return NULL;
	if (stream->fd >= 0)
		(void)close(stream->fd);
	free(stream->sections);
	free(stream->verified);
	free(stream);
	return NULL;
}

uint64_t tar_stream_size(const TarStream *stream)
{
	return stream->layer.tar_size;
}

uint64_t tar_stream_id(const TarStream *stream)
{
	return stream->id;
}

uint64_t tar_stream_chunk_start(const TarStream *stream, uint64_t offset)
{
	Chunk chunk;
	chunk_table_get(&stream->table, chunk_table_find(&stream->table, offset), &chunk);
	return chunk.tar_offset;
}

size_t tar_stream_memory(const TarStream *stream)
{
	return sizeof(*stream) + stream->sections_size + stream->table.count / 8 + 1;
}

static int chunk_error(const TarStream *stream, uint32_t number, const Chunk *chunk, int code, const char *what,
		       Error *error)
{
	char text[DIGEST_TEXT_SIZE];
	return error_set(error, code, "blob %s is corrupt: chunk %" PRIu32 " at offset %" PRIu64 ": %s",
			 digest_text(&stream->layer.blob, text), number, chunk->blob_offset, what);
}

/* Checks the frame of a chunk, once, and decodes it to `data`, which holds the chunk's tar_size bytes. */
static int decode_chunk(TarStream *stream, TarScratch *scratch, uint32_t number, const Chunk *chunk,
			const uint8_t *frame, void *data, Error *error)
{
	atomic_uchar *verified = &stream->verified[number / 8];
	unsigned char bit = (unsigned char)(1u << number % 8);
	/* Relaxed: the bit guards no other memory, and checking twice does no harm. */
	if (!(atomic_load_explicit(verified, memory_order_relaxed) & bit)) {
		Digest digest;
		int r = digest_of(frame, chunk->blob_size, &digest);
		if (r < 0)
			return error_set(error, r, "no memory to check a chunk");
		if (!digest_equal(&digest, &chunk->digest))
			return chunk_error(stream, number, chunk, -EBADMSG,
					   "its SHA-256 is another than the index says", error);
		(void)atomic_fetch_or_explicit(verified, bit, memory_order_relaxed);
	}
	int r = frame_decode(scratch->decoder, frame, chunk->blob_size, data, chunk->tar_size);
	return r < 0 ? chunk_error(stream, number, chunk, r, "its LZ4 frame does not decode", error) : 0;
}

/* How many chunks from `first` on end within `end` of the tar and have frames that together fit the scratch; at least 1. */
static uint32_t count_chunks(const ChunkTable *table, uint32_t first, uint64_t end, size_t *ret_frames_size)
{
	Chunk chunk;
	chunk_table_get(table, first, &chunk);
	uint64_t tar_end = chunk.tar_offset + chunk.tar_size;
	size_t frames_size = chunk.blob_size;
	uint32_t count = 1;
	for (; tar_end < end && first + count < table->count; count++) {
		chunk_table_get(table, first + count, &chunk);
		tar_end += chunk.tar_size;
		if (tar_end > end || chunk.blob_size > FORMAT_FRAME_MAX - frames_size)
			break;
		frames_size += chunk.blob_size;
	}
	*ret_frames_size = frames_size;
	return count;
}

/* The part of a chunk that lies in [offset, offset + size) of the tar; a whole chunk is decoded in place. */
static ssize_t put_chunk(TarStream *stream, TarScratch *scratch, uint32_t number, const Chunk *chunk,
			 const uint8_t *frame, uint64_t offset, void *buffer, size_t size, Error *error)
{
	if (offset == chunk->tar_offset && size >= chunk->tar_size) {
		int r = decode_chunk(stream, scratch, number, chunk, frame, buffer, error);
		return r < 0 ? r : (ssize_t)chunk->tar_size;
	}
	int r = decode_chunk(stream, scratch, number, chunk, frame, scratch->content, error);
	if (r < 0)
		return r;
	size_t skip = (size_t)(offset - chunk->tar_offset);
	size_t part = chunk->tar_size - skip < size ? chunk->tar_size - skip : size;
	memcpy(buffer, scratch->content + skip, part);
	return (ssize_t)part;
}

ssize_t tar_stream_read(TarStream *stream, TarScratch *scratch, uint64_t offset, void *buffer, size_t size,
			Error *error)
{
	const ChunkTable *table = &stream->table;
	uint64_t left = stream->layer.tar_size - offset;
	if (size > left)
		size = (size_t)left;

	uint32_t first = chunk_table_find(table, offset);
	Chunk chunk;
	chunk_table_get(table, first, &chunk);
	if (chunk.blob_size > FORMAT_FRAME_MAX || chunk.tar_size > FORMAT_CHUNK_MAX)
		return chunk_error(stream, first, &chunk, -EBADMSG, "it is longer than any chunk may be", error);
	size_t frames_size;
	uint32_t count = count_chunks(table, first, offset + size, &frames_size);
	/* Frames of neighbouring chunks lie side by side, so one read fetches them. */
	int r = fd_pread_all(stream->fd, scratch->frames, frames_size, chunk.blob_offset);
	if (r < 0)
		return chunk_error(stream, first, &chunk, r, error_text(NULL, r), error);

	size_t done = 0;
	const uint8_t *frame = scratch->frames;
	for (uint32_t i = 0; i < count; i++) {
		chunk_table_get(table, first + i, &chunk);
		ssize_t part = put_chunk(stream, scratch, first + i, &chunk, frame, offset + done,
					 (uint8_t *)buffer + done, size - done, error);
		if (part < 0)
			return part;
		done += (size_t)part;
		frame += chunk.blob_size;
	}
	return (ssize_t)done;
}
