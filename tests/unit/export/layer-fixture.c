#include "tests/unit/export/layer-fixture.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <xxhash.h>

#include "fs/base/fd.h"
#include "fs/format/blob.h"
#include "fs/format/frame.h"

ssize_t layer_feed_read(void *arg, void *buffer, size_t size, Error *error)
{
	LayerFeed *feed = arg;
	size_t left = feed->tar->size - feed->at;
	if (feed->fail_at && feed->at >= feed->fail_at)
		return error_set(error, -EIO, "the source broke");
	if (feed->step && size > feed->step)
		size = feed->step;
	if (size > left)
		size = left;
	if (size > 0)
		memcpy(buffer, feed->tar->data + feed->at, size);
	feed->at += size;
	return (ssize_t)size;
}

int layer_write_tar(const Buffer *tar, const LayerOptions *options, Layer *layer)
{
	LayerFeed feed = { .tar = tar };
	LayerSource source = { .read = layer_feed_read, .arg = &feed };
	_cleanup_close_ int fd = memfd_create("blob", MFD_CLOEXEC);
	struct stat status;
	assert_true(fd >= 0);
	*layer = (Layer){ 0 };
	int r = layer_write(&source, options, fd, &layer->result, &layer->error);
	if (r < 0)
		return r;
	assert_int_equal(fstat(fd, &status), 0);
	uint8_t *data = buffer_extend(&layer->blob, (size_t)status.st_size);
	assert_non_null(data);
	assert_int_equal(fd_pread_all(fd, data, layer->blob.size, 0), 0);
	return 0;
}

static void check_frames(const Layer *layer, const Buffer *tar)
{
	static uint8_t content[FORMAT_CHUNK_MAX];
	_cleanup_(frame_decoder_free_p) FrameDecoder *decoder = NULL;
	assert_int_equal(frame_decoder_new(&decoder), 0);
	assert_int_equal(layer->chunks.tar_size, tar->size);
	assert_int_equal(layer->chunks.blob_size, layer->result.layer.index_offset);
	assert_int_equal(layer->chunks.count, layer->result.chunk_count);
	for (uint32_t i = 0; i < layer->chunks.count; i++) {
		Chunk chunk;
		Digest digest;
		chunk_table_get(&layer->chunks, i, &chunk);
		const uint8_t *frame = layer->blob.data + chunk.blob_offset;
		assert_int_equal(frame_decode(decoder, frame, chunk.blob_size, content, chunk.tar_size), 0);
		assert_memory_equal(content, tar->data + chunk.tar_offset, chunk.tar_size);
		assert_int_equal(digest_of(frame, chunk.blob_size, &digest), 0);
		assert_true(digest_equal(&digest, &chunk.digest));
		assert_int_equal(XXH3_64bits(content, chunk.tar_size), layer->result.contents[i]);
	}
}

static void check_result(const Layer *layer, const Buffer *tar)
{
	const ManifestLayer *said = &layer->result.layer;
	BlobFooter footer;
	Digest digest;
	assert_int_equal(said->blob_size, layer->blob.size);
	assert_int_equal(digest_of(layer->blob.data, layer->blob.size, &digest), 0);
	assert_true(digest_equal(&digest, &said->blob));
	assert_int_equal(digest_of(tar->data, tar->size, &digest), 0);
	assert_true(digest_equal(&digest, &said->diff_id));
	assert_int_equal(said->tar_size, tar->size);
	assert_int_equal(blob_footer_decode(layer->blob.data + layer->blob.size - FORMAT_FOOTER_SIZE, layer->blob.size,
					    &footer, NULL),
			 0);
	assert_int_equal(footer.tar_size, tar->size);
	assert_int_equal(footer.index_offset, said->index_offset);
	assert_int_equal(footer.index_size, said->index_size);
	assert_int_equal(footer.chunk_count, layer->result.chunk_count);
	assert_int_equal(footer.image_size, layer->image_size);
	assert_true(digest_equal(&footer.index_digest, &said->index));
	assert_true(digest_equal(&footer.diff_id, &said->diff_id));
	assert_int_equal(digest_of(layer->blob.data + said->index_offset, said->index_size, &digest), 0);
	assert_true(digest_equal(&digest, &said->index));
	assert_int_equal(said->index_offset + said->index_size + FORMAT_FOOTER_SIZE, layer->blob.size);
}

/* Section 10: a digest for each small file, in the order of the inodes. */
static void check_packed(const Layer *layer, const Buffer *tar)
{
	const ImageSection *section = &layer->image.sections[FORMAT_SECTION_PACKED_DIGESTS];
	size_t at = 0;
	assert_true(section->present);
	for (uint32_t i = 0; i < layer->tree.inode_count; i++) {
		TreeInode inode;
		Digest digest;
		tree_inode(&layer->tree, i, &inode);
		if (!S_ISREG(inode.mode) || inode.flags & TREE_SPARSE || inode.size == 0 ||
		    inode.size >= FORMAT_LARGE_FILE)
			continue;
		assert_int_equal(digest_of(tar->data + inode.data, inode.size, &digest), 0);
		assert_in_range(at + DIGEST_SIZE, 0, section->size);
		assert_memory_equal(section->data + at, digest.bytes, DIGEST_SIZE);
		at += DIGEST_SIZE;
	}
	assert_int_equal(at, section->size);
}

void layer_open_tar(const Buffer *tar, const LayerOptions *options, Layer *ret_layer)
{
	int r = layer_write_tar(tar, options, ret_layer);
	if (r < 0)
		fail_msg("%d: %s", r, ret_layer->error.message);
	const ManifestLayer *said = &ret_layer->result.layer;
	assert_int_equal(blob_index_decode(ret_layer->blob.data + said->index_offset, said->index_size,
					   &ret_layer->image_data, &ret_layer->image_size, &ret_layer->error),
			 0);
	assert_int_equal(image_open(ret_layer->image_data, ret_layer->image_size, &ret_layer->image, &ret_layer->error),
			 0);
	assert_int_equal(chunk_table_open(&ret_layer->image, &ret_layer->chunks, &ret_layer->error), 0);
	r = tree_open(&ret_layer->image, &ret_layer->tree, &ret_layer->error);
	if (r < 0)
		fail_msg("%d: %s", r, ret_layer->error.message);
	assert_true(digest_equal(&ret_layer->image.header.id, &said->diff_id));
	check_result(ret_layer, tar);
	check_frames(ret_layer, tar);
	check_packed(ret_layer, tar);
}

void layer_done(Layer *layer)
{
	layer_result_done(&layer->result);
	buffer_done(&layer->blob);
	free(layer->image_data);
	*layer = (Layer){ 0 };
}

bool layer_lookup(const Layer *layer, const char *path, TreeInode *ret_inode, uint32_t *ret_number)
{
	uint32_t number = 0;
	tree_inode(&layer->tree, 0, ret_inode);
	while (*path) {
		TreeDirent dirent;
		size_t size = strcspn(path, "/");
		if (!S_ISDIR(ret_inode->mode) || tree_lookup(&layer->tree, ret_inode, path, size, &dirent) < 0)
			return false;
		number = dirent.inode;
		tree_inode(&layer->tree, number, ret_inode);
		path += size + (path[size] == '/');
	}
	if (ret_number)
		*ret_number = number;
	return true;
}
