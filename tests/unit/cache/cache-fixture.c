#include "cache-fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>

CacheStore *cache_fixture_open(char ret_directory[static PATH_MAX])
{
	CacheStore *store;
	(void)snprintf(ret_directory, PATH_MAX, "%s/imgfs-test-XXXXXX", getenv("TMPDIR") ?: "/tmp");
	assert_non_null(mkdtemp(ret_directory));
	assert_int_equal(cache_store_open(ret_directory, true, &store, NULL), 0);
	return store;
}

static int remove_one(const char *path, const struct stat *status _unused_, int type _unused_, struct FTW *ftw _unused_)
{
	return remove(path);
}

void cache_fixture_close(CacheStore *store, const char *directory)
{
	assert_null(cache_store_free(store));
	assert_int_equal(nftw(directory, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

void cache_fixture_table(const uint8_t *frames, uint32_t count, uint32_t frame_size, uint32_t content_size,
			 uint8_t **ret_bytes, Image *ret_image, ChunkTable *ret_table)
{
	ChunkTableWriter *chunks;
	ImageWriter *writer;
	ImageHeader header = {
		.kind = FORMAT_KIND_INDEX,
		.codec = FORMAT_CODEC_LZ4,
		.tar_size = (uint64_t)count * content_size,
		.chunks_size = (uint64_t)count * frame_size,
	};
	size_t size;
	assert_int_equal(chunk_table_writer_new(&chunks), 0);
	for (uint32_t i = 0; i < count; i++) {
		Digest digest;
		assert_int_equal(digest_of(frames + (size_t)i * frame_size, frame_size, &digest), 0);
		assert_int_equal(chunk_table_writer_add(chunks, content_size, frame_size, &digest), 0);
	}
	assert_int_equal(image_writer_new(&header, &writer), 0);
	assert_int_equal(chunk_table_writer_finish(chunks, writer), 0);
	assert_int_equal(image_writer_finish(writer, ret_bytes, &size), 0);
	assert_null(image_writer_free(writer));
	assert_null(chunk_table_writer_free(chunks));
	assert_int_equal(image_open(*ret_bytes, size, ret_image, NULL), 0);
	assert_int_equal(chunk_table_open(ret_image, ret_table, NULL), 0);
}
