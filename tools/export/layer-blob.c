#include "tools/export/layer-blob.h"

#include <fcntl.h>
#include <string.h>

#include "fs/base/fd.h"
#include "fs/format/blob.h"
#include "fs/format/buffer.h"
#include "fs/format/frame.h"
#include "fs/format/image.h"
#include "tools/export/frame-pool.h"

#define OUTPUT_SIZE    (1u << 20)
#define WRITEBACK_SIZE (8u << 20) /* handed to the disk at once, so that little is left for the end */
#define JOBS_DEFAULT   2u

struct LayerBlob {
	LayerOptions options;
	int fd;
	FramePool *pool;
	ChunkTableWriter *chunks;
	DigestState *digest; /* of all that was written */
	uint64_t size;       /* put out so far, what is still in `output` included */
	uint32_t reused;
	Buffer contents; /* uint64_t: the hash of each chunk's content */
	uint8_t *output;
	size_t output_filled;
	uint64_t written;      /* of it, to the file */
	uint64_t written_back; /* of that, handed to the disk */
	uint8_t *image;        /* the index, once sealed */
	size_t image_size;
	BlobFooter footer;
};

int layer_blob_new(const LayerOptions *options, int fd, LayerBlob **ret_blob, Error *error)
{
	_cleanup_(layer_blob_free_p) LayerBlob *blob = calloc(1, sizeof(*blob));
	if (!blob)
		return -ENOMEM;
	blob->options = *options;
	blob->fd = fd;
	blob->output = malloc(OUTPUT_SIZE);
	if (!blob->output)
		return -ENOMEM;
	int r = chunk_table_writer_new(&blob->chunks);
	if (r == 0)
		r = digest_state_new(&blob->digest);
	if (r < 0)
		return r;
	unsigned jobs = options->jobs ? options->jobs : JOBS_DEFAULT;
	r = frame_pool_new(&blob->options, jobs, &blob->pool);
	if (r == -EINVAL)
		return error_set(error, r,
				 "level %d with %u threads cannot be used for compression; levels are 0, 1 and 3 to "
				 "12, threads 1 to 256",
				 options->level, jobs);
	if (r < 0)
		return r;
	*ret_blob = TAKE_PTR(blob);
	return 0;
}

LayerBlob *layer_blob_free(LayerBlob *blob)
{
	if (blob) {
		frame_pool_free(blob->pool);
		chunk_table_writer_free(blob->chunks);
		digest_state_free(blob->digest);
		buffer_done(&blob->contents);
		free(blob->output);
		free(blob->image);
		free(blob);
	}
	return NULL;
}

static int flush(LayerBlob *blob, Error *error)
{
	int r = digest_state_add(blob->digest, blob->output, blob->output_filled);
	if (r < 0)
		return r;
	r = fd_write_all(blob->fd, blob->output, blob->output_filled);
	if (r < 0)
		return error_set(error, r, "the layer's blob cannot be written: %s; make room and export again",
				 error_text(NULL, r));
	blob->written += blob->output_filled;
	blob->output_filled = 0;
	if (blob->written - blob->written_back >= WRITEBACK_SIZE) {
		/* A hint: whoever publishes the file waits for the disk, and hears of its errors. */
		(void)sync_file_range(blob->fd, (off64_t)blob->written_back,
				      (off64_t)(blob->written - blob->written_back), SYNC_FILE_RANGE_WRITE);
		blob->written_back = blob->written;
	}
	return 0;
}

static int put(LayerBlob *blob, const void *data, size_t size, Error *error)
{
	const uint8_t *from = data;
	blob->size += size;
	while (size > 0) {
		size_t count = OUTPUT_SIZE - blob->output_filled;
		if (count > size)
			count = size;
		memcpy(blob->output + blob->output_filled, from, count);
		blob->output_filled += count;
		from += count;
		size -= count;
		int r = blob->output_filled == OUTPUT_SIZE ? flush(blob, error) : 0;
		if (r < 0)
			return r;
	}
	return 0;
}

/* Writes the oldest frame once it is ready; 1 when there was one, 0 when there was none. */
static int put_next_frame(LayerBlob *blob, Error *error)
{
	const FrameJob *job = frame_pool_next(blob->pool);
	if (!job)
		return 0;
	int r = job->result;
	if (r < 0)
		return error_set(error, r, "a chunk cannot be compressed: %s", error_text(NULL, r));
	r = chunk_table_writer_add(blob->chunks, job->content_size, job->frame_size, &job->frame_digest);
	if (r == 0)
		r = buffer_append(&blob->contents, &job->content_hash, sizeof(job->content_hash));
	if (r == 0)
		r = put(blob, job->frame, job->frame_size, error);
	blob->reused += job->reused;
	frame_pool_release(blob->pool);
	return r < 0 ? r : 1;
}

int layer_blob_add(LayerBlob *blob, const void *data, size_t size, Error *error)
{
	FrameJob *job;
	while (!(job = frame_pool_reserve(blob->pool))) {
		int r = put_next_frame(blob, error);
		if (r < 0)
			return r;
	}
	memcpy(job->content, data, size);
	job->content_size = (uint32_t)size;
	frame_pool_submit(blob->pool);
	return 0;
}

static int make_image(LayerBlob *blob, LayerTree *tree, Error *error)
{
	_cleanup_(image_writer_free_p) ImageWriter *image = NULL;
	ImageHeader header = {
		.kind = FORMAT_KIND_INDEX,
		.codec = FORMAT_CODEC_LZ4,
		.tar_size = blob->footer.tar_size,
		.chunks_size = blob->size,
		.id = blob->footer.diff_id,
	};
	int r = image_writer_new(&header, &image);
	if (r == 0)
		r = chunk_table_writer_finish(blob->chunks, image);
	if (r == 0)
		r = layer_tree_finish(tree, image, error);
	if (r == 0)
		r = image_writer_finish(image, &blob->image, &blob->image_size);
	if (r == -EFBIG)
		return error_set(error, r, "the layer's index is larger than an imgfs index may be; split the layer");
	return r;
}

int layer_blob_seal(LayerBlob *blob, LayerTree *tree, const Digest *diff_id, uint64_t tar_size, Error *error)
{
	int r;
	while ((r = put_next_frame(blob, error)) > 0)
		;
	if (r < 0)
		return r;
	blob->pool = frame_pool_free(blob->pool);
	blob->footer = (BlobFooter){
		.tar_size = tar_size,
		.diff_id = *diff_id,
		.chunk_count = chunk_table_writer_count(blob->chunks),
	};
	return make_image(blob, tree, error);
}

/* Puts the index behind the frames; fills its part of the footer. */
static int put_index(LayerBlob *blob, Error *error)
{
	_cleanup_free_ uint8_t *index = NULL;
	size_t size = 0;
	BlobFooter *footer = &blob->footer;
	int r = blob->options.level == FRAME_FAST ? blob_index_encode_fast(blob->image, blob->image_size, &index, &size)
						  : blob_index_encode(blob->image, blob->image_size, &index, &size);
	if (r == 0)
		r = digest_of(index, size, &footer->index_digest);
	if (r < 0)
		return r;
	footer->index_offset = blob->size;
	footer->index_size = size;
	footer->image_size = blob->image_size;
	return put(blob, index, size, error);
}

static int put_footer(LayerBlob *blob, Error *error)
{
	uint8_t bytes[FORMAT_FOOTER_SIZE];
	blob_footer_encode(&blob->footer, bytes);
	int r = put(blob, bytes, sizeof(bytes), error);
	return r < 0 ? r : flush(blob, error);
}

int layer_blob_finish(LayerBlob *blob, LayerResult *ret_result, Error *error)
{
	Digest digest;
	const BlobFooter *footer = &blob->footer;
	int r = put_index(blob, error);
	if (r == 0)
		r = put_footer(blob, error);
	if (r == 0)
		r = digest_state_end(blob->digest, &digest);
	if (r < 0)
		return r;
	*ret_result = (LayerResult){
		.layer = {
			.diff_id = footer->diff_id,
			.tar_size = footer->tar_size,
			.blob = digest,
			.blob_size = blob->size,
			.index_offset = footer->index_offset,
			.index_size = footer->index_size,
			.index = footer->index_digest,
		},
		.contents = (uint64_t *)TAKE_PTR(blob->contents.data),
		.chunk_count = footer->chunk_count,
		.reused_chunks = blob->reused,
	};
	return 0;
}
