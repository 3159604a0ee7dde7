#include "tests/unit/export/store-fixture.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "fs/base/fd.h"
#include "tests/unit/export/layer-fixture.h"
#include "tests/unit/export/tar-builder.h"

#define PART_SIZE (600u << 10)

void store_fixture_open(StoreFixture *fixture)
{
	Error error = { 0 };
	*fixture = (StoreFixture){ 0 };
	(void)snprintf(fixture->directory, sizeof(fixture->directory), "/tmp/imgfs-store-XXXXXX");
	assert_non_null(mkdtemp(fixture->directory));
	(void)snprintf(fixture->path, sizeof(fixture->path), "%s/a/store", fixture->directory);
	assert_int_equal(store_open(fixture->path, true, &fixture->store, &error), 0);
}

void store_fixture_reopen(StoreFixture *fixture)
{
	Error error = { 0 };
	fixture->store = store_free(fixture->store);
	assert_int_equal(store_open(fixture->path, true, &fixture->store, &error), 0);
}

static int remove_one(const char *path, const struct stat *status _unused_, int type _unused_,
		      struct FTW *walk _unused_)
{
	return remove(path);
}

void store_fixture_close(StoreFixture *fixture)
{
	fixture->store = store_free(fixture->store);
	assert_int_equal(nftw(fixture->directory, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

const char *store_fixture_path(const StoreFixture *fixture, const char *name)
{
	static char path[512];
	(void)snprintf(path, sizeof(path), "%s/%s", fixture->path, name);
	return path;
}

size_t store_fixture_count(const StoreFixture *fixture, const char *directory)
{
	size_t count = 0;
	_cleanup_closedir_ DIR *stream = opendir(store_fixture_path(fixture, directory));
	assert_non_null(stream);
	for (struct dirent *entry; (entry = readdir(stream));)
		count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
	return count;
}

void store_fixture_write(const StoreFixture *fixture, const char *name, const void *data, size_t size)
{
	_cleanup_close_ int fd =
		open(store_fixture_path(fixture, name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	assert_true(fd >= 0);
	assert_int_equal(fd_write_all(fd, data, size), 0);
}

void store_fixture_random(uint8_t *data, size_t size, uint32_t seed)
{
	uint64_t state = seed;
	for (size_t i = 0; i < size; i++) {
		state = state * 6364136223846793005u + 1442695040888963407u;
		data[i] = (uint8_t)(state >> 56);
	}
}

void store_fixture_tar(Buffer *tar, const uint32_t *seeds, size_t count)
{
	size_t size = count * PART_SIZE;
	char name[32];
	uint8_t *data = malloc(size);
	assert_non_null(data);
	for (size_t i = 0; i < count; i++)
		store_fixture_random(data + i * PART_SIZE, PART_SIZE, seeds[i]);
	(void)snprintf(name, sizeof(name), "large-%u", seeds[0]);
	tar_file(tar, name, data, size);
	tar_end(tar);
	free(data);
}

void store_fixture_layer(StoreFixture *fixture, const Buffer *tar, ManifestLayer *ret_layer, uint64_t **ret_contents,
			 size_t *ret_count)
{
	LayerFeed feed = { .tar = tar };
	LayerSource source = { .read = layer_feed_read, .arg = &feed };
	LayerOptions options = { .level = 1 };
	LayerResult result = { 0 };
	Error error = { 0 };
	_cleanup_(store_upload_free_p) StoreUpload *upload = NULL;
	assert_int_equal(store_upload_new(fixture->store, &upload, &error), 0);
	assert_int_equal(layer_write(&source, &options, store_upload_fd(upload), &result, &error), 0);
	assert_int_equal(store_upload_commit(upload, &result.layer, result.contents, result.chunk_count, &error), 0);
	*ret_layer = result.layer;
	if (ret_contents) {
		*ret_contents = TAKE_PTR(result.contents);
		*ret_count = result.chunk_count;
	}
	layer_result_done(&result);
}
