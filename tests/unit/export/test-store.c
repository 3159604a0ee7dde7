/* The store's directory, its objects, records and tags; and what is done with a damaged one. */
#include "tools/export/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "fs/base/bytes.h"
#include "fs/base/fd.h"
#include "tests/unit/export/store-fixture.h"
#include "tools/export/store-private.h"

static void expect_open_error(const char *path, bool create, int code, const char *words)
{
	Store *store = NULL;
	Error error = { 0 };
	assert_int_equal(store_open(path, create, &store, &error), code);
	if (!strstr(error.message, words))
		fail_msg("\"%s\" does not say \"%s\"", error.message, words);
	assert_null(store);
}

static void test_open(void **state _unused_)
{
	StoreFixture fixture;
	char path[128];
	store_fixture_open(&fixture);
	assert_string_equal(store_path(fixture.store), fixture.path);
	_cleanup_free_ char *marker = NULL;
	size_t size;
	assert_int_equal(fd_read_file(AT_FDCWD, store_fixture_path(&fixture, "imgfs-store"), 100, &marker, &size), 0);
	assert_string_equal(marker, "imgfs store 1\n");

	Error error = { 0 };
	Store *second = NULL;
	assert_int_equal(store_open(fixture.path, false, &second, &error), 0);
	second = store_free(second);

	(void)snprintf(path, sizeof(path), "%s/none", fixture.directory);
	expect_open_error(path, false, -ENOENT, "there is no store");
	/* The directory above the store holds something else. */
	expect_open_error(fixture.directory, true, -EEXIST, "neither empty nor an imgfs store");
	expect_open_error(fixture.directory, false, -ENOENT, "is no imgfs store");
	expect_open_error(store_fixture_path(&fixture, "imgfs-store"), false, -ENOTDIR, "imgfs-store");

	store_fixture_write(&fixture, "imgfs-store", "imgfs store 2\n", 14);
	expect_open_error(fixture.path, false, -EEXIST, "another version");
	expect_open_error(fixture.path, true, -EEXIST, "another version");
	store_fixture_close(&fixture);
}

/* A crash right after the marker leaves a store that the next one completes; the crash before it, an empty directory. */
static void test_open_after_crash(void **state _unused_)
{
	char directory[] = "/tmp/imgfs-store-XXXXXX", path[64];
	Error error = { 0 };
	Store *store = NULL;
	Digest digest;
	assert_non_null(mkdtemp(directory));
	(void)snprintf(path, sizeof(path), "%s/.tmp-0123456789abcdef", directory);
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(store_open(directory, true, &store, &error), 0);
	store = store_free(store);

	StoreFixture fixture = { 0 };
	(void)snprintf(fixture.directory, sizeof(fixture.directory), "%s", directory);
	(void)snprintf(fixture.path, sizeof(fixture.path), "%s", directory);
	assert_int_equal(rmdir(store_fixture_path(&fixture, "tmp")), 0);
	assert_int_equal(rmdir(store_fixture_path(&fixture, "blobs/sha256")), 0);
	assert_int_equal(store_open(directory, true, &fixture.store, &error), 0);
	assert_int_equal(store_blob_put(fixture.store, "x", 1, &digest, &error), 0);
	store_fixture_close(&fixture);
}

static void test_sweep(void **state _unused_)
{
	StoreFixture fixture;
	Error error = { 0 };
	store_fixture_open(&fixture);
	_cleanup_(store_upload_free_p) StoreUpload *upload = NULL;
	assert_int_equal(store_upload_new(fixture.store, &upload, &error), 0);
	/* No name yet, where that can be: whoever is killed leaves nothing. */
	_cleanup_close_ int probe = open(store_fixture_path(&fixture, "tmp"), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	size_t named = probe < 0;
	assert_int_equal(store_fixture_count(&fixture, "tmp"), named);
	store_fixture_write(&fixture, "tmp/left-by-a-crash", "x", 1);
	store_fixture_write(&fixture, "tmp/being-written", "x", 1);
	_cleanup_close_ int locked = open(store_fixture_path(&fixture, "tmp/being-written"), O_RDONLY | O_CLOEXEC);
	assert_int_equal(flock(locked, LOCK_EX), 0);

	/* Another process opens the store: what is being written stays. */
	Store *second = NULL;
	assert_int_equal(store_open(fixture.path, true, &second, &error), 0);
	assert_int_equal(store_fixture_count(&fixture, "tmp"), named + 1);
	close_p(&locked);
	store_temporary_sweep(fixture.store);
	assert_int_equal(store_fixture_count(&fixture, "tmp"), named);
	second = store_free(second);
	upload = store_upload_free(upload);
	assert_int_equal(store_fixture_count(&fixture, "tmp"), 0);
	store_fixture_close(&fixture);
}

static void test_blobs(void **state _unused_)
{
	StoreFixture fixture;
	Error error = { 0 };
	Digest digest, again, other;
	char name[128], hex[DIGEST_HEX_SIZE], text[8] = "";
	uint64_t size;
	int fd = -1;
	store_fixture_open(&fixture);
	assert_int_equal(store_blob_put(fixture.store, "config", 6, &digest, &error), 0);
	assert_int_equal(store_blob_put(fixture.store, "config", 6, &again, &error), 0);
	assert_true(digest_equal(&digest, &again));
	assert_int_equal(store_blob_open(fixture.store, &digest, &fd, &size), 0);
	assert_int_equal(size, 6);
	assert_int_equal(fd_pread_all(fd, text, 6, 0), 0);
	assert_string_equal(text, "config");
	(void)close(fd);
	assert_int_equal(store_fixture_count(&fixture, "blobs/sha256"), 1);
	assert_int_equal(store_fixture_count(&fixture, "tmp"), 0);

	/* Everybody may read what is published. */
	struct stat status;
	(void)snprintf(name, sizeof(name), "blobs/sha256/%s", digest_hex(&digest, hex));
	assert_int_equal(stat(store_fixture_path(&fixture, name), &status), 0);
	mode_t mask = umask(0);
	(void)umask(mask);
	assert_int_equal(status.st_mode & 0777, 0644 & ~mask);

	/* One that is cut short is put again. */
	store_fixture_write(&fixture, name, "con", 3);
	assert_int_equal(store_blob_put(fixture.store, "config", 6, &digest, &error), 0);
	assert_int_equal(store_blob_open(fixture.store, &digest, &fd, &size), 0);
	assert_int_equal(size, 6);
	(void)close(fd);

	assert_int_equal(digest_of("other", 5, &other), 0);
	assert_int_equal(store_blob_open(fixture.store, &other, &fd, &size), -ENOENT);
	(void)snprintf(name, sizeof(name), "blobs/sha256/%s", digest_hex(&other, hex));
	assert_int_equal(mkdir(store_fixture_path(&fixture, name), 0755), 0);
	assert_int_equal(store_blob_open(fixture.store, &other, &fd, &size), -ENOENT);
	store_fixture_close(&fixture);
}

static void test_upload(void **state _unused_)
{
	static const uint32_t seeds[] = { 1 };
	StoreFixture fixture;
	Buffer tar = { 0 };
	ManifestLayer layer, found;
	Error error = { 0 };
	char name[128], hex[DIGEST_HEX_SIZE];
	store_fixture_open(&fixture);
	store_fixture_tar(&tar, seeds, 1);
	Digest diff_id;
	assert_int_equal(digest_of(tar.data, tar.size, &diff_id), 0);
	assert_int_equal(store_layer_get(fixture.store, &diff_id, &found, &error), -ENOENT);
	assert_non_null(strstr(error.message, "export the image again"));

	uint64_t *contents = NULL;
	size_t count = 0;
	store_fixture_layer(&fixture, &tar, &layer, &contents, &count);
	assert_int_equal(store_fixture_count(&fixture, "tmp"), 0);
	assert_int_equal(store_layer_get(fixture.store, &diff_id, &found, &error), 0);
	assert_memory_equal(&found, &layer, sizeof(found));
	uint64_t size;
	int fd = -1;
	assert_int_equal(store_blob_open(fixture.store, &layer.blob, &fd, &size), 0);
	assert_int_equal(size, layer.blob_size);
	(void)close(fd);
	(void)snprintf(name, sizeof(name), "frames/%s", digest_hex(&layer.blob, hex));
	_cleanup_free_ char *list = NULL;
	size_t list_size;
	assert_int_equal(fd_read_file(AT_FDCWD, store_fixture_path(&fixture, name), 1u << 20, &list, &list_size), 0);
	assert_int_equal(list_size, count * 8);
	for (size_t i = 0; i < count; i++)
		assert_int_equal(load_le64(list + i * 8), contents[i]);
	free(contents);
	buffer_done(&tar);
	store_fixture_close(&fixture);
}

static void test_upload_not_whole(void **state _unused_)
{
	StoreFixture fixture;
	Error error = { 0 };
	ManifestLayer layer = { .blob_size = 100 };
	StoreUpload *upload = NULL;
	store_fixture_open(&fixture);
	assert_int_equal(store_upload_new(fixture.store, &upload, &error), 0);
	assert_int_equal(fd_write_all(store_upload_fd(upload), "short", 5), 0);
	assert_int_equal(store_upload_commit(upload, &layer, NULL, 0, &error), -EINVAL);
	assert_non_null(strstr(error.message, "not written whole"));
	upload = store_upload_free(upload);
	assert_int_equal(store_fixture_count(&fixture, "tmp"), 0);
	assert_int_equal(store_fixture_count(&fixture, "blobs/sha256"), 0);
	assert_int_equal(store_fixture_count(&fixture, "layers"), 0);
	store_fixture_close(&fixture);
}

#define HEX "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void test_damaged_records(void **state _unused_)
{
	static const char *const bad[] = {
		"",
		"[]",
		"{}",
		/* another layer's */
		"{\"diffID\":\"sha256:1123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\",\"tarSize\":1,"
		"\"blob\":\"sha256:" HEX
		"\",\"blobSize\":1000,\"indexOffset\":1,\"indexSize\":855,\"index\":\"sha256:" HEX "\"}",
		/* the index reaches into the footer */
		"{\"diffID\":\"sha256:" HEX "\",\"tarSize\":1,\"blob\":\"sha256:" HEX "\",\"blobSize\":1000,"
		"\"indexOffset\":2,\"indexSize\":855,\"index\":\"sha256:" HEX "\"}",
		"{\"diffID\":\"sha256:" HEX "\",\"tarSize\":-1,\"blob\":\"sha256:" HEX "\",\"blobSize\":1000,"
		"\"indexOffset\":1,\"indexSize\":855,\"index\":\"sha256:" HEX "\"}",
		"{\"diffID\":\"sha256:" HEX "\",\"tarSize\":1,\"blob\":\"" HEX "\",\"blobSize\":1000,"
		"\"indexOffset\":1,\"indexSize\":855,\"index\":\"sha256:" HEX "\"}",
	};
	static const char good[] =
		"{\"diffID\":\"sha256:" HEX "\",\"tarSize\":1,\"blob\":\"sha256:" HEX
		"\",\"blobSize\":1000,\"indexOffset\":1,\"indexSize\":855,\"index\":\"sha256:" HEX "\"}";
	StoreFixture fixture;
	Digest diff_id;
	ManifestLayer layer;
	Error error = { 0 };
	store_fixture_open(&fixture);
	assert_int_equal(digest_from_hex(HEX, &diff_id), 0);
	for (size_t i = 0; i < ELEMENTS(bad); i++) {
		store_fixture_write(&fixture, "layers/" HEX, bad[i], strlen(bad[i]));
		assert_int_equal(store_layer_get(fixture.store, &diff_id, &layer, &error), -EBADMSG);
		assert_non_null(strstr(error.message, "layers/" HEX));
	}
	store_fixture_write(&fixture, "layers/" HEX, good, strlen(good));
	assert_int_equal(store_layer_get(fixture.store, &diff_id, &layer, &error), 0);
	assert_int_equal(layer.index_size, 855);
	store_fixture_close(&fixture);
}

static int collect_tag(void *arg, const char *name, const char *tag, time_t changed)
{
	char *text = arg;
	assert_true(changed > 0);
	strcat(text, name);
	strcat(text, ":");
	strcat(text, tag);
	strcat(text, " ");
	return strcmp(tag, "stop") == 0 ? -ECANCELED : 0;
}

static void expect_tag(Store *store, const char *name, const char *tag, const char *wanted)
{
	_cleanup_free_ char *json = NULL;
	size_t size;
	assert_int_equal(store_tag_get(store, name, tag, &json, &size), 0);
	assert_int_equal(size, strlen(wanted));
	assert_string_equal(json, wanted);
}

static void test_tags(void **state _unused_)
{
	StoreFixture fixture;
	Error error = { 0 };
	char *json = NULL, tags[256] = "";
	size_t size;
	store_fixture_open(&fixture);
	assert_int_equal(store_tag_each(fixture.store, collect_tag, tags), 0);
	assert_string_equal(tags, "");

	assert_int_equal(store_tag_get(fixture.store, "whisk/invoker", "v1", &json, &size), -ENOENT);
	assert_int_equal(store_tag_put(fixture.store, "whisk/invoker", "v1", "one", 3, &error), 0);
	assert_int_equal(store_tag_put(fixture.store, "whisk/invoker", "v2", "two", 3, &error), 0);
	assert_int_equal(store_tag_put(fixture.store, "whisk", "v1", "three", 5, &error), 0);
	expect_tag(fixture.store, "whisk/invoker", "v1", "one");
	assert_int_equal(store_tag_put(fixture.store, "whisk/invoker", "v1", "new", 3, &error), 0);
	expect_tag(fixture.store, "whisk/invoker", "v1", "new");
	expect_tag(fixture.store, "whisk/invoker", "v2", "two");
	assert_int_equal(store_tag_get(fixture.store, "whisk/invoker/v1", "v1", &json, &size), -ENOENT);
	assert_int_equal(store_tag_get(fixture.store, "whisk", "v2", &json, &size), -ENOENT);

	/* What no tag can be called is not one. */
	store_fixture_write(&fixture, "repositories/whisk/_manifests/.hidden", "x", 1);
	store_fixture_write(&fixture, "repositories/stray", "x", 1);
	assert_int_equal(store_tag_each(fixture.store, collect_tag, tags), 0);
	assert_string_equal(tags, "whisk:v1 whisk/invoker:v1 whisk/invoker:v2 ");
	tags[0] = '\0';
	assert_int_equal(store_tag_put(fixture.store, "a", "stop", "x", 1, &error), 0);
	assert_int_equal(store_tag_each(fixture.store, collect_tag, tags), -ECANCELED);
	assert_string_equal(tags, "a:stop ");
	store_fixture_close(&fixture);
}

/* A collector takes the directories of other repositories away. */
static int remove_empty(void *arg, const char *name, const char *tag, time_t changed _unused_)
{
	const StoreFixture *fixture = arg;
	assert_string_equal(name, "a");
	assert_string_equal(tag, "v1");
	assert_int_equal(rmdir(store_fixture_path(fixture, "repositories/b/_manifests")), 0);
	assert_int_equal(rmdir(store_fixture_path(fixture, "repositories/b")), 0);
	return 0;
}

static void test_tags_beside_a_collector(void **state _unused_)
{
	StoreFixture fixture;
	store_fixture_open(&fixture);
	assert_int_equal(store_tag_put(fixture.store, "a", "v1", "x", 1, NULL), 0);
	assert_int_equal(store_tag_put(fixture.store, "b", "v1", "x", 1, NULL), 0);
	assert_int_equal(store_tag_remove(fixture.store, "b", "v1", NULL), 0);
	assert_int_equal(store_tag_each(fixture.store, remove_empty, &fixture), 0);
	store_fixture_close(&fixture);
}

/* Small objects that are put again are read, and written anew where they have rotten. */
static void test_rotten_object(void **state _unused_)
{
	StoreFixture fixture;
	Digest digest;
	char path[128], hex[DIGEST_HEX_SIZE], *data;
	size_t size;
	store_fixture_open(&fixture);
	assert_int_equal(store_blob_put(fixture.store, "config", 6, &digest, NULL), 0);
	(void)snprintf(path, sizeof(path), "blobs/sha256/%s", digest_hex(&digest, hex));
	store_fixture_write(&fixture, path, "conf!g", 6);
	assert_int_equal(store_blob_put(fixture.store, "config", 6, &digest, NULL), 0);
	assert_int_equal(fd_read_file(AT_FDCWD, store_fixture_path(&fixture, path), 100, &data, &size), 0);
	assert_string_equal(data, "config");
	free(data);
	store_fixture_close(&fixture);
}

static void test_bad_tags(void **state _unused_)
{
	static const char *const bad[][2] = {
		{ "../../etc", "x" }, { "a", "../x" }, { "a/../b", "x" }, { "/a", "x" },
		{ "A", "x" },         { "", "x" },     { "a", "" },       { "_manifests", "x" },
		{ "a", "x/y" },       { "a", ".x" },   { "a//b", "x" },
	};
	StoreFixture fixture;
	Error error = { 0 };
	char *json = NULL;
	size_t size;
	store_fixture_open(&fixture);
	for (size_t i = 0; i < ELEMENTS(bad); i++) {
		assert_int_equal(store_tag_put(fixture.store, bad[i][0], bad[i][1], "x", 1, &error), -EINVAL);
		assert_int_equal(store_tag_get(fixture.store, bad[i][0], bad[i][1], &json, &size), -ENOENT);
	}
	assert_int_equal(store_fixture_count(&fixture, "repositories"), 0);
	store_fixture_close(&fixture);
}

static void test_default_path(void **state _unused_)
{
	_cleanup_free_ char *path = store_default_path();
	assert_non_null(path);
	assert_int_equal(path[0], '/');
	if (geteuid() == 0)
		assert_string_equal(path, "/var/lib/imgfs/store");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_open),
		cmocka_unit_test(test_open_after_crash),
		cmocka_unit_test(test_sweep),
		cmocka_unit_test(test_blobs),
		cmocka_unit_test(test_upload),
		cmocka_unit_test(test_upload_not_whole),
		cmocka_unit_test(test_damaged_records),
		cmocka_unit_test(test_tags),
		cmocka_unit_test(test_tags_beside_a_collector),
		cmocka_unit_test(test_rotten_object),
		cmocka_unit_test(test_bad_tags),
		cmocka_unit_test(test_default_path),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
