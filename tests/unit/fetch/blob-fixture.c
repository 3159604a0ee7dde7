#include "tests/unit/fetch/blob-fixture.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "fs/base/fd.h"
#include "fs/format/blob.h"
#include "fs/format/frame.h"
#include "fs/format/tree.h"

static void fill(uint8_t *data, size_t size, uint32_t seed)
{
	uint64_t state = seed * 2654435761u + 88172645463325252u;
	for (size_t i = 0; i < size; i++) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		data[i] = (uint8_t)(state >> 56);
	}
}

/* A root directory with one file that has the whole tar for its data. */
static void add_tree(ImageWriter *image, uint64_t tar_size, uint32_t seed)
{
	TreeWriter *tree;
	TreeExtras extras = { 0 };
	TreeInode root = { .mode = S_IFDIR | 0755, .nlink = 2 };
	TreeInode file = { .mode = S_IFREG | 0644, .nlink = 1, .size = tar_size };
	char name[32];
	uint32_t number;
	(void)snprintf(name, sizeof(name), "file-%u", seed);
	assert_int_equal(tree_writer_new(&tree), 0);
	assert_int_equal(tree_writer_add_inode(tree, &root, &extras, &number), 0);
	assert_int_equal(tree_writer_add_inode(tree, &file, &extras, &number), 0);
	TreeDirent entry = { .inode = number, .type = DT_REG, .name = { name, strlen(name) } };
	assert_int_equal(tree_writer_add_entries(tree, 0, &entry, 1), 0);
	assert_int_equal(tree_writer_finish(tree, image), 0);
	assert_null(tree_writer_free(tree));
}

static void make_index(BlobFixture *fixture, ChunkTableWriter *chunks, uint64_t chunks_size, uint32_t seed)
{
	ImageHeader header = {
		.kind = FORMAT_KIND_INDEX,
		.codec = FORMAT_CODEC_LZ4,
		.tar_size = fixture->layer.tar_size,
		.chunks_size = chunks_size,
		.id = fixture->layer.diff_id,
	};
	ImageWriter *writer;
	assert_int_equal(image_writer_new(&header, &writer), 0);
	assert_int_equal(chunk_table_writer_finish(chunks, writer), 0);
	add_tree(writer, fixture->layer.tar_size, seed);
	assert_int_equal(image_writer_finish(writer, &fixture->index, &fixture->index_size), 0);
	assert_null(image_writer_free(writer));
	assert_int_equal(image_open(fixture->index, fixture->index_size, &fixture->image, NULL), 0);
	assert_int_equal(chunk_table_open(&fixture->image, &fixture->table, NULL), 0);
}

static void append_index(BlobFixture *fixture, uint64_t offset, uint32_t count)
{
	ManifestLayer *layer = &fixture->layer;
	uint8_t *index;
	size_t size;
	assert_int_equal(blob_index_encode(fixture->index, fixture->index_size, &index, &size), 0);
	fixture->blob_size = offset + size + FORMAT_FOOTER_SIZE;
	fixture->blob = realloc(fixture->blob, fixture->blob_size);
	assert_non_null(fixture->blob);
	memcpy(fixture->blob + offset, index, size);
	layer->index_offset = offset;
	layer->index_size = size;
	assert_int_equal(digest_of(index, size, &layer->index), 0);
	free(index);
	BlobFooter footer = {
		.tar_size = layer->tar_size,
		.index_offset = offset,
		.index_size = size,
		.image_size = fixture->index_size,
		.index_digest = layer->index,
		.diff_id = layer->diff_id,
		.chunk_count = count,
	};
	blob_footer_encode(&footer, fixture->blob + offset + size);
	layer->blob_size = fixture->blob_size;
	assert_int_equal(digest_of(fixture->blob, fixture->blob_size, &layer->blob), 0);
}

void blob_fixture_make(BlobFixture *ret_fixture, uint32_t count, uint32_t chunk_size, uint32_t seed)
{
	blob_fixture_make_spoiled(ret_fixture, count, chunk_size, seed, UINT32_MAX);
}

void blob_fixture_make_spoiled(BlobFixture *ret_fixture, uint32_t count, uint32_t chunk_size, uint32_t seed,
			       uint32_t spoiled)
{
	BlobFixture *fixture = ret_fixture;
	size_t tar_size = (size_t)count * chunk_size, offset = 0;
	*fixture = (BlobFixture){ .layer.tar_size = tar_size };
	fixture->tar = malloc(tar_size);
	fixture->blob = malloc((size_t)count * FORMAT_FRAME_MAX);
	assert_non_null(fixture->tar);
	assert_non_null(fixture->blob);
	fill(fixture->tar, tar_size, seed);
	assert_int_equal(digest_of(fixture->tar, tar_size, &fixture->layer.diff_id), 0);

	FrameEncoder *encoder;
	ChunkTableWriter *chunks;
	assert_int_equal(frame_encoder_new(FRAME_FAST, &encoder), 0);
	assert_int_equal(chunk_table_writer_new(&chunks), 0);
	for (uint32_t i = 0; i < count; i++) {
		size_t size;
		Digest digest;
		assert_int_equal(frame_encode(encoder, fixture->tar + (size_t)i * chunk_size, chunk_size,
					      fixture->blob + offset, &size),
				 0);
		if (i == spoiled)
			fixture->blob[offset + size / 2] ^= 1;
		assert_int_equal(digest_of(fixture->blob + offset, size, &digest), 0);
		assert_int_equal(chunk_table_writer_add(chunks, chunk_size, (uint32_t)size, &digest), 0);
		offset += size;
	}
	make_index(fixture, chunks, offset, seed);
	append_index(fixture, offset, count);
	assert_null(frame_encoder_free(encoder));
	assert_null(chunk_table_writer_free(chunks));
}

void blob_fixture_done(BlobFixture *fixture)
{
	free(fixture->tar);
	free(fixture->blob);
	free(fixture->index);
	*fixture = (BlobFixture){ 0 };
}

static void write_file(const char *directory, const char *room, const char *name, const void *data, size_t size)
{
	char path[PATH_MAX];
	(void)snprintf(path, sizeof(path), "%s/v2/app/%s", directory, room);
	assert_int_equal(fd_make_directories(AT_FDCWD, path, 0700), 0);
	(void)snprintf(path, sizeof(path), "%s/v2/app/%s/%s", directory, room, name);
	assert_int_equal(fd_replace_file(AT_FDCWD, path, data, size, 0600), 0);
}

void blob_fixture_publish(const BlobFixture *fixture, const char *directory)
{
	char text[DIGEST_TEXT_SIZE];
	write_file(directory, "blobs", digest_text(&fixture->layer.blob, text), fixture->blob, fixture->blob_size);
}

void blob_fixture_publish_image(const BlobFixture *fixtures, size_t count, const char *directory, const char *tag,
				Digest *ret_manifest)
{
	Manifest manifest = { .config_size = strlen(BLOB_FIXTURE_CONFIG), .layer_count = count };
	assert_int_equal(digest_of(BLOB_FIXTURE_CONFIG, manifest.config_size, &manifest.config), 0);
	manifest.layers = calloc(count, sizeof(*manifest.layers));
	assert_non_null(manifest.layers);
	for (size_t i = 0; i < count; i++)
		manifest.layers[i] = fixtures[i].layer;
	char *json, text[DIGEST_TEXT_SIZE];
	size_t size;
	assert_int_equal(manifest_encode(&manifest, &json, &size), 0);
	assert_int_equal(digest_of(json, size, ret_manifest), 0);
	write_file(directory, "blobs", digest_text(&manifest.config, text), BLOB_FIXTURE_CONFIG, manifest.config_size);
	write_file(directory, "manifests", tag, json, size);
	write_file(directory, "manifests", digest_text(ret_manifest, text), json, size);
	free(json);
	free(manifest.layers);
}

CacheBlob *blob_fixture_cache(const BlobFixture *fixture, int *ret_data, int *ret_present)
{
	*ret_data = memfd_create("data", MFD_CLOEXEC);
	*ret_present = memfd_create("present", MFD_CLOEXEC);
	assert_true(*ret_data >= 0 && *ret_present >= 0);
	assert_int_equal(ftruncate(*ret_data, (off_t)fixture->blob_size), 0);
	assert_int_equal(ftruncate(*ret_present, (off_t)(fixture->table.count + 7) / 8), 0);
	CacheBlob *cache;
	assert_int_equal(cache_blob_new(&fixture->table, dup(*ret_data), dup(*ret_present), &cache), 0);
	return cache;
}

char *scratch_make(void)
{
	char *path;
	assert_true(asprintf(&path, "%s/imgfs-test-XXXXXX", getenv("TMPDIR") ?: "/tmp") > 0);
	assert_non_null(mkdtemp(path));
	return path;
}

static int remove_one(const char *path, const struct stat *status _unused_, int type _unused_, struct FTW *ftw _unused_)
{
	return remove(path);
}

void scratch_remove(char *path)
{
	assert_int_equal(nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
	free(path);
}
