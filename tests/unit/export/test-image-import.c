/* What an import writes, byte by byte; that it is all or nothing; that a damaged store is not passed on. */
#include "tools/export/image-import.h"

#include <dirent.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "fs/base/fd.h"
#include "tests/unit/export/image-fixture.h"
#include "tests/unit/export/tar-builder.h"
#include "tools/export/import-file.h"

typedef struct ImportFixture {
	StoreFixture store;
	Buffer tars[2];
	StoreImage image;
	uint64_t written;
} ImportFixture;

/* The second layer comes twice. */
static void open_fixture(ImportFixture *fixture)
{
	*fixture = (ImportFixture){ 0 };
	store_fixture_open(&fixture->store);
	for (uint32_t i = 0; i < 2; i++)
		store_fixture_tar(&fixture->tars[i], (uint32_t[]){ i, i + 7 }, 2);
	Buffer tars[] = { fixture->tars[0], fixture->tars[1], fixture->tars[1] };
	image_fixture_put(&fixture->store, tars, 3, "whisk/invoker", "v1", &fixture->image);
}

static void close_fixture(ImportFixture *fixture)
{
	for (size_t i = 0; i < 2; i++)
		buffer_done(&fixture->tars[i]);
	store_image_done(&fixture->image);
	store_fixture_close(&fixture->store);
}

static void on_progress(void *arg, uint64_t bytes)
{
	*(uint64_t *)arg += bytes;
}

static const char *outside(const ImportFixture *fixture, const char *name)
{
	static char path[256];
	(void)snprintf(path, sizeof(path), "%s/%s", fixture->store.directory, name);
	return path;
}

static int write_archive(ImportFixture *fixture, const char *path, const char *name, Error *error)
{
	ImportOptions options = { .name = name, .progress = on_progress, .progress_arg = &fixture->written };
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	assert_true(fd >= 0);
	fixture->written = 0;
	return import_docker_archive(fixture->store.store, &fixture->image, &options, fd, error);
}

/* Takes one member off the front of an archive. */
static void expect_member(const char **at, const char *name, const void *data, size_t size)
{
	char digits[13] = "";
	uint64_t sum = 0;
	memcpy(digits, *at + 124, 12);
	assert_string_equal(*at, name);
	assert_int_equal(strtoull(digits, NULL, 8), size);
	for (size_t i = 0; i < BLOCK; i++)
		sum += i >= 148 && i < 156 ? ' ' : (uint8_t)(*at)[i];
	assert_int_equal(strtoull(*at + 148, NULL, 8), sum);
	assert_memory_equal(*at + BLOCK, data, size);
	*at += BLOCK + (size + BLOCK - 1) / BLOCK * BLOCK;
}

static void test_archive(void **state _unused_)
{
	ImportFixture fixture;
	Error error = { 0 };
	char layers[2][DIGEST_HEX_SIZE], config[DIGEST_HEX_SIZE], name[4 * DIGEST_HEX_SIZE], list[1024];
	_cleanup_free_ char *archive = NULL;
	_cleanup_free_ char *again = NULL;
	_cleanup_free_ char *wanted = NULL;
	size_t size, again_size, wanted_size;
	open_fixture(&fixture);
	const Manifest *manifest = &fixture.image.manifest;
	assert_int_equal(write_archive(&fixture, outside(&fixture, "x.tar"), "whisk/invoker:v1", &error), 0);
	assert_int_equal(fixture.written, fixture.tars[0].size + fixture.tars[1].size);
	assert_int_equal(fd_read_file(AT_FDCWD, outside(&fixture, "x.tar"), 1u << 28, &archive, &size), 0);

	const char *at = archive;
	digest_hex(&manifest->config, config);
	for (size_t i = 0; i < 2; i++)
		digest_hex(&manifest->layers[i].diff_id, layers[i]);
	(void)snprintf(list, sizeof(list),
		       "[{\"Config\":\"%s.json\",\"RepoTags\":[\"whisk/invoker:v1\"],\"Layers\":[\"%s.tar\",\"%s.tar\","
		       "\"%s.tar\"]}]",
		       config, layers[0], layers[1], layers[1]);
	expect_member(&at, "manifest.json", list, strlen(list));
	assert_int_equal(store_blob_read(fixture.store.store, &manifest->config, 10000, &wanted, &wanted_size), 0);
	(void)snprintf(name, sizeof(name), "%s.json", config);
	expect_member(&at, name, wanted, wanted_size);
	for (size_t i = 0; i < 2; i++) {
		(void)snprintf(name, sizeof(name), "%s.tar", layers[i]);
		expect_member(&at, name, fixture.tars[i].data, fixture.tars[i].size);
	}
	static const char end[2 * BLOCK];
	assert_int_equal(archive + size - at, sizeof(end));
	assert_memory_equal(at, end, sizeof(end));

	assert_int_equal(write_archive(&fixture, outside(&fixture, "y.tar"), "whisk/invoker:v1", &error), 0);
	assert_int_equal(fd_read_file(AT_FDCWD, outside(&fixture, "y.tar"), 1u << 28, &again, &again_size), 0);
	assert_int_equal(again_size, size);
	assert_memory_equal(again, archive, size);
	close_fixture(&fixture);
}

static void test_archive_without_name(void **state _unused_)
{
	ImportFixture fixture;
	Error error = { 0 };
	_cleanup_free_ char *archive = NULL;
	size_t size;
	open_fixture(&fixture);
	assert_int_equal(write_archive(&fixture, outside(&fixture, "x.tar"), NULL, &error), 0);
	assert_int_equal(fd_read_file(AT_FDCWD, outside(&fixture, "x.tar"), 1u << 28, &archive, &size), 0);
	assert_non_null(strstr(archive + BLOCK, "\"RepoTags\":[]"));
	close_fixture(&fixture);
}

/* A layer of 8 GiB or more has its size in binary. */
static void test_large_layer(void **state _unused_)
{
	ImportFixture fixture;
	Error error = { 0 };
	_cleanup_free_ char *archive = NULL;
	size_t size;
	static const uint8_t field[12] = { 0x80, 0, 0, 0, 0, 0, 0, 0x02, 0x40, 0, 0, 0x05 };
	open_fixture(&fixture);
	fixture.image.manifest.layers[0].tar_size = UINT64_C(0x240000005);
	assert_int_equal(write_archive(&fixture, outside(&fixture, "x.tar"), NULL, &error), -EBADMSG);
	assert_non_null(strstr(error.message, "its index is another layer's"));
	assert_int_equal(fd_read_file(AT_FDCWD, outside(&fixture, "x.tar"), 1u << 28, &archive, &size), 0);
	assert_memory_equal(archive + size - BLOCK + 124, field, sizeof(field));
	close_fixture(&fixture);
}

static void test_damage(void **state _unused_)
{
	ImportFixture fixture;
	Error error = { 0 };
	char blob[128];
	open_fixture(&fixture);
	const Manifest *manifest = &fixture.image.manifest;
	(void)snprintf(blob, sizeof(blob), "%s", image_fixture_object("blobs/sha256", &manifest->layers[0].blob));
	image_fixture_flip(&fixture.store, blob, 70000);
	assert_int_equal(write_archive(&fixture, outside(&fixture, "x.tar"), NULL, &error), -EBADMSG);
	assert_non_null(strstr(error.message, "chunk "));
	image_fixture_flip(&fixture.store, blob, 70000);
	image_fixture_flip(&fixture.store, image_fixture_object("blobs/sha256", &manifest->config), 3);
	assert_int_equal(write_archive(&fixture, outside(&fixture, "x.tar"), NULL, &error), -EBADMSG);
	assert_non_null(strstr(error.message, "config"));
	image_fixture_flip(&fixture.store, image_fixture_object("blobs/sha256", &manifest->config), 3);
	assert_int_equal(unlink(store_fixture_path(&fixture.store, blob)), 0);
	assert_int_equal(write_archive(&fixture, outside(&fixture, "x.tar"), NULL, &error), -ENOENT);
	close_fixture(&fixture);
}

static void test_full_disk(void **state _unused_)
{
	ImportFixture fixture;
	Error error = { 0 };
	open_fixture(&fixture);
	assert_int_equal(write_archive(&fixture, "/dev/full", NULL, &error), -ENOSPC);
	assert_non_null(strstr(error.message, "no space"));
	close_fixture(&fixture);
}

static int import_layout(ImportFixture *fixture, const char *path, const char *name, Error *error)
{
	ImportOptions options = { .name = name, .progress = on_progress, .progress_arg = &fixture->written };
	fixture->written = 0;
	return import_oci_layout(fixture->store.store, &fixture->image, &options, path, error);
}

static json_t *read_json(const char *path)
{
	json_t *json = json_load_file(path, 0, NULL);
	assert_non_null(json);
	return json;
}

static size_t count_files(const char *path)
{
	size_t count = 0;
	_cleanup_closedir_ DIR *directory = opendir(path);
	assert_non_null(directory);
	for (struct dirent *entry = readdir(directory); entry; entry = readdir(directory))
		count += entry->d_name[0] != '.' || strncmp(entry->d_name, ".tmp", 4) == 0;
	return count;
}

static void expect_object(const ImportFixture *fixture, const Digest *digest, const void *data, size_t size)
{
	char path[256], hex[DIGEST_HEX_SIZE];
	_cleanup_free_ char *found = NULL;
	size_t found_size;
	(void)snprintf(path, sizeof(path), "%s/oci/blobs/sha256/%s", fixture->store.directory, digest_hex(digest, hex));
	assert_int_equal(fd_read_file(AT_FDCWD, path, 1u << 28, &found, &found_size), 0);
	assert_int_equal(found_size, size);
	assert_memory_equal(found, data, size);
}

static void test_layout(void **state _unused_)
{
	ImportFixture fixture;
	Error error = { 0 };
	char digest[DIGEST_TEXT_SIZE], path[256], hex[DIGEST_HEX_SIZE];
	open_fixture(&fixture);
	const Manifest *manifest = &fixture.image.manifest;
	assert_int_equal(import_layout(&fixture, outside(&fixture, "oci"), "v1", &error), 0);
	assert_int_equal(count_files(outside(&fixture, "oci/blobs/sha256")), 4);
	expect_object(&fixture, &fixture.image.digest, fixture.image.json, fixture.image.json_size);
	for (size_t i = 0; i < 2; i++)
		expect_object(&fixture, &manifest->layers[i].diff_id, fixture.tars[i].data, fixture.tars[i].size);
	json_t *list = read_json(outside(&fixture, "oci/index.json"));
	const json_t *entry = json_array_get(json_object_get(list, "manifests"), 0);
	assert_string_equal(json_string_value(json_object_get(entry, "digest")),
			    digest_text(&fixture.image.digest, digest));
	json_decref(list);

	/* Again: nothing new. Under another name: one more. A rotten layer is written anew. */
	assert_int_equal(import_layout(&fixture, outside(&fixture, "oci"), "v1", &error), 0);
	assert_int_equal(import_layout(&fixture, outside(&fixture, "oci"), "v2", &error), 0);
	(void)snprintf(path, sizeof(path), "%s/oci/blobs/sha256/%s", fixture.store.directory,
		       digest_hex(&manifest->layers[0].diff_id, hex));
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CLOEXEC);
	assert_int_equal(fd_pwrite_all(fd, "rotten", 6, 1000), 0);
	assert_int_equal(import_layout(&fixture, outside(&fixture, "oci"), NULL, &error), 0);
	assert_int_equal(import_layout(&fixture, outside(&fixture, "oci"), NULL, &error), 0);
	expect_object(&fixture, &manifest->layers[0].diff_id, fixture.tars[0].data, fixture.tars[0].size);
	list = read_json(outside(&fixture, "oci/index.json"));
	assert_int_equal(json_array_size(json_object_get(list, "manifests")), 3);
	json_decref(list);
	assert_int_equal(count_files(outside(&fixture, "oci")), 3);
	close_fixture(&fixture);
}

static void test_no_layout(void **state _unused_)
{
	ImportFixture fixture;
	Error error = { 0 };
	open_fixture(&fixture);
	assert_int_equal(import_layout(&fixture, fixture.store.path, "v1", &error), -EEXIST);
	assert_non_null(strstr(error.message, "neither empty nor an OCI image layout"));
	assert_int_equal(mkdir(outside(&fixture, "oci"), 0755), 0);
	assert_int_equal(import_layout(&fixture, outside(&fixture, "oci"), "v1", &error), 0);
	assert_int_equal(truncate(outside(&fixture, "oci/index.json"), 0), 0);
	assert_int_equal(import_layout(&fixture, outside(&fixture, "oci"), "v1", &error), -EEXIST);
	assert_non_null(strstr(error.message, "no list of images"));
	close_fixture(&fixture);
}

/* A layer that turns out to be rotten leaves no file of its name. */
static void test_layout_damage(void **state _unused_)
{
	ImportFixture fixture;
	Error error = { 0 };
	open_fixture(&fixture);
	image_fixture_flip(&fixture.store, image_fixture_object("blobs/sha256", &fixture.image.manifest.layers[0].blob),
			   70000);
	assert_int_equal(import_layout(&fixture, outside(&fixture, "oci"), "v1", &error), -EBADMSG);
	assert_int_equal(access(outside(&fixture, "oci"), F_OK), -1);
	assert_int_equal(mkdir(outside(&fixture, "oci"), 0755), 0);
	assert_int_equal(import_layout(&fixture, outside(&fixture, "oci"), "v1", &error), -EBADMSG);
	assert_int_equal(rmdir(outside(&fixture, "oci")), 0);
	close_fixture(&fixture);
}

/* Nor does one behind it: what is whole stays, without a list of images. */
static void test_layout_half_way(void **state _unused_)
{
	ImportFixture fixture;
	Error error = { 0 };
	open_fixture(&fixture);
	image_fixture_flip(&fixture.store, image_fixture_object("blobs/sha256", &fixture.image.manifest.layers[1].blob),
			   100);
	assert_int_equal(import_layout(&fixture, outside(&fixture, "oci"), "v1", &error), -EBADMSG);
	assert_int_equal(count_files(outside(&fixture, "oci/blobs/sha256")), 1);
	assert_int_equal(access(outside(&fixture, "oci/oci-layout"), F_OK), 0);
	assert_int_equal(access(outside(&fixture, "oci/index.json"), F_OK), -1);
	close_fixture(&fixture);
}

static void test_file(void **state _unused_)
{
	char directory[] = "/tmp/imgfs-import-XXXXXX", path[64];
	Error error = { 0 };
	ImportFile file = IMPORT_FILE_NULL;
	_cleanup_free_ char *data = NULL;
	size_t size;
	import_file_done(&file);
	assert_non_null(mkdtemp(directory));
	(void)snprintf(path, sizeof(path), "%s/file", directory);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(import_file_open(AT_FDCWD, path, &file, &error), 0);
		assert_int_equal(fd_write_all(file.fd, i ? "second" : "first", i ? 6 : 5), 0);
		assert_int_equal(import_file_publish(&file, &error), 0);
		import_file_done(&file);
		import_file_done(&file);
	}
	/* What is not published leaves the old one. */
	assert_int_equal(import_file_open(AT_FDCWD, path, &file, &error), 0);
	assert_int_equal(fd_write_all(file.fd, "third", 5), 0);
	import_file_done(&file);
	assert_int_equal(fd_read_file(AT_FDCWD, path, 100, &data, &size), 0);
	assert_string_equal(data, "second");
	assert_int_equal(count_files(directory), 1);

	(void)snprintf(path, sizeof(path), "%s/none/file", directory);
	assert_int_equal(import_file_open(AT_FDCWD, path, &file, &error), -ENOENT);
	assert_non_null(strstr(error.message, path));
	(void)snprintf(path, sizeof(path), "%s/", directory);
	assert_int_equal(import_file_open(AT_FDCWD, path, &file, &error), -EISDIR);
	assert_int_equal(import_file_open(AT_FDCWD, "/dev/null", &file, &error), 0);
	assert_int_equal(import_file_publish(&file, &error), 0);
	import_file_done(&file);
	(void)snprintf(path, sizeof(path), "%s/file", directory);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(rmdir(directory), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_archive),         cmocka_unit_test(test_archive_without_name),
		cmocka_unit_test(test_large_layer),     cmocka_unit_test(test_damage),
		cmocka_unit_test(test_full_disk),       cmocka_unit_test(test_layout),
		cmocka_unit_test(test_no_layout),       cmocka_unit_test(test_layout_damage),
		cmocka_unit_test(test_layout_half_way), cmocka_unit_test(test_file),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
