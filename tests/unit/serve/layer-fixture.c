#include "layer-fixture.h"

#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "fs/base/fd.h"
#include "fs/format/blob.h"
#include "fs/format/chunk-table.h"
#include "fs/format/frame.h"

static void fill(uint8_t *data, size_t size, uint32_t number, uint32_t seed)
{
	static const char text[] = "the quick brown fox jumps over the lazy dog, ";
	uint32_t noise = seed * 2654435761u + number + 1;
	for (size_t i = 0; i < size; i++) {
		noise = noise * 1664525u + 1013904223u;
		data[i] = number % 2 ? (uint8_t)(noise >> 24) : (uint8_t)text[(i + seed + number) % (sizeof(text) - 1)];
	}
}

static void add_chunks(LayerFixture *fixture, const uint32_t *sizes, ChunkTableWriter *table)
{
	FrameEncoder *encoder;
	assert_int_equal(frame_encoder_new(FRAME_FAST, &encoder), 0);
	size_t tar_offset = 0;
	for (size_t i = 0; i < fixture->chunk_count; i++) {
		uint8_t *frame = fixture->blob + fixture->blob_size;
		size_t frame_size;
		Digest digest;
		assert_int_equal(frame_encode(encoder, fixture->tar + tar_offset, sizes[i], frame, &frame_size), 0);
		assert_int_equal(digest_of(frame, frame_size, &digest), 0);
		assert_int_equal(chunk_table_writer_add(table, sizes[i], (uint32_t)frame_size, &digest), 0);
		fixture->blob_offsets[i] = fixture->blob_size;
		fixture->blob_size += frame_size;
		tar_offset += sizes[i];
	}
	fixture->blob_offsets[fixture->chunk_count] = fixture->blob_size;
	(void)frame_encoder_free(encoder);
}

/* An index with chunk sections alone: what makes a tar of a blob looks at nothing else. */
static void make_index(LayerFixture *fixture, ChunkTableWriter *table, uint8_t **ret_index, size_t *ret_size,
		       size_t *ret_image_size)
{
	ImageHeader header = { .kind = FORMAT_KIND_INDEX,
			       .codec = FORMAT_CODEC_LZ4,
			       .tar_size = fixture->tar_size,
			       .chunks_size = fixture->blob_size,
			       .id = fixture->layer.diff_id };
	ImageWriter *writer;
	uint8_t *image;
	assert_int_equal(image_writer_new(&header, &writer), 0);
	assert_int_equal(chunk_table_writer_finish(table, writer), 0);
	assert_int_equal(image_writer_finish(writer, &image, ret_image_size), 0);
	assert_int_equal(blob_index_encode(image, *ret_image_size, ret_index, ret_size), 0);
	free(image);
	(void)image_writer_free(writer);
}

static void append(LayerFixture *fixture, const void *data, size_t size)
{
	memcpy(fixture->blob + fixture->blob_size, data, size);
	fixture->blob_size += size;
}

void layer_fixture_make(LayerFixture *ret_fixture, const uint32_t *sizes, size_t count, uint32_t seed)
{
	LayerFixture fixture = { .chunk_count = count };
	for (size_t i = 0; i < count; i++)
		fixture.tar_size += sizes[i];
	fixture.tar = malloc(fixture.tar_size + 1);
	fixture.blob = malloc((count + 8) * FORMAT_FRAME_MAX);
	fixture.blob_offsets = calloc(count + 1, sizeof(*fixture.blob_offsets));
	assert_true(fixture.tar && fixture.blob && fixture.blob_offsets);
	size_t tar_offset = 0;
	for (size_t i = 0; i < count; i++) {
		fill(fixture.tar + tar_offset, sizes[i], (uint32_t)i, seed);
		tar_offset += sizes[i];
	}
	assert_int_equal(digest_of(fixture.tar, fixture.tar_size, &fixture.layer.diff_id), 0);

	ChunkTableWriter *table;
	assert_int_equal(chunk_table_writer_new(&table), 0);
	add_chunks(&fixture, sizes, table);
	uint8_t *index;
	size_t index_size, image_size;
	make_index(&fixture, table, &index, &index_size, &image_size);
	(void)chunk_table_writer_free(table);

	fixture.layer.tar_size = fixture.tar_size;
	fixture.layer.index_offset = fixture.blob_size;
	fixture.layer.index_size = index_size;
	assert_int_equal(digest_of(index, index_size, &fixture.layer.index), 0);
	append(&fixture, index, index_size);
	free(index);
	BlobFooter footer = { .tar_size = fixture.tar_size,
			      .index_offset = fixture.layer.index_offset,
			      .index_size = index_size,
			      .image_size = image_size,
			      .index_digest = fixture.layer.index,
			      .diff_id = fixture.layer.diff_id,
			      .chunk_count = (uint32_t)count };
	uint8_t bytes[FORMAT_FOOTER_SIZE];
	blob_footer_encode(&footer, bytes);
	append(&fixture, bytes, sizeof(bytes));
	fixture.layer.blob_size = fixture.blob_size;
	assert_int_equal(digest_of(fixture.blob, fixture.blob_size, &fixture.layer.blob), 0);
	*ret_fixture = fixture;
}

void layer_fixture_done(LayerFixture *fixture)
{
	free(fixture->tar);
	free(fixture->blob);
	free(fixture->blob_offsets);
	*fixture = (LayerFixture){ 0 };
}

int layer_fixture_file(const LayerFixture *fixture)
{
	int fd = memfd_create("layer-fixture", MFD_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(fd_pwrite_all(fd, fixture->blob, fixture->blob_size, 0), 0);
	return fd;
}

void layer_fixture_publish(const LayerFixture *fixture, Store *store)
{
	StoreUpload *upload;
	uint64_t *contents = calloc(fixture->chunk_count + 1, sizeof(*contents));
	assert_non_null(contents);
	assert_int_equal(store_upload_new(store, &upload, NULL), 0);
	assert_int_equal(fd_write_all(store_upload_fd(upload), fixture->blob, fixture->blob_size), 0);
	assert_int_equal(store_upload_commit(upload, &fixture->layer, contents, fixture->chunk_count, NULL), 0);
	(void)store_upload_free(upload);
	free(contents);
}

Store *store_fixture_make(char path[static STORE_FIXTURE_PATH])
{
	Store *store;
	(void)snprintf(path, STORE_FIXTURE_PATH, "%s/imgfs-serve-XXXXXX", getenv("TMPDIR") ?: "/tmp");
	assert_non_null(mkdtemp(path));
	assert_int_equal(store_open(path, true, &store, NULL), 0);
	return store;
}

static int remove_entry(const char *path, const struct stat *status _unused_, int type _unused_,
			struct FTW *walk _unused_)
{
	return remove(path);
}

void store_fixture_remove(const char *path)
{
	assert_int_equal(nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS), 0);
}
