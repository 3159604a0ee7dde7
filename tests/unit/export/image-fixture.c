#include "tests/unit/export/image-fixture.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "fs/base/fd.h"

static void make_config(const Manifest *manifest, char *text, size_t size)
{
	char digest[DIGEST_TEXT_SIZE];
	int used = snprintf(text, size, "{\"os\":\"linux\",\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[");
	for (size_t i = 0; i < manifest->layer_count; i++)
		used += snprintf(text + used, size - (size_t)used, "%s\"%s\"", i > 0 ? "," : "",
				 digest_text(&manifest->layers[i].diff_id, digest));
	used += snprintf(text + used, size - (size_t)used, "]}}");
	assert_true(used > 0 && (size_t)used < size);
}

void image_fixture_put(StoreFixture *fixture, const Buffer *tars, size_t count, const char *name, const char *tag,
		       StoreImage *ret_image)
{
	Manifest manifest = { .layer_count = count, .layers = calloc(count + 1, sizeof(ManifestLayer)) };
	Error error = { 0 };
	Digest digest;
	char config[4096], text[512];
	_cleanup_free_ char *json = NULL;
	size_t size;
	assert_non_null(manifest.layers);
	for (size_t i = 0; i < count; i++) {
		assert_int_equal(digest_of(tars[i].data, tars[i].size, &digest), 0);
		if (store_layer_get(fixture->store, &digest, &manifest.layers[i], NULL) < 0)
			store_fixture_layer(fixture, &tars[i], &manifest.layers[i], NULL, NULL);
	}
	make_config(&manifest, config, sizeof(config));
	manifest.config_size = strlen(config);
	assert_int_equal(store_blob_put(fixture->store, config, strlen(config), &manifest.config, &error), 0);
	assert_int_equal(manifest_encode(&manifest, &json, &size), 0);
	manifest_done(&manifest);
	assert_int_equal(store_blob_put(fixture->store, json, size, &digest, &error), 0);
	assert_int_equal(store_tag_put(fixture->store, name, tag, json, size, &error), 0);
	(void)snprintf(text, sizeof(text), "%s:%s", name, tag);
	assert_int_equal(store_image_open(fixture->store, text, ret_image, &error), 0);
}

const char *image_fixture_object(const char *directory, const Digest *digest)
{
	static char path[128];
	char hex[DIGEST_HEX_SIZE];
	(void)snprintf(path, sizeof(path), "%s/%s", directory, digest_hex(digest, hex));
	return path;
}

bool image_fixture_exists(const StoreFixture *fixture, const char *name)
{
	return access(store_fixture_path(fixture, name), F_OK) == 0;
}

void image_fixture_flip(const StoreFixture *fixture, const char *name, long offset)
{
	uint8_t byte;
	struct stat status;
	_cleanup_close_ int fd = open(store_fixture_path(fixture, name), O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &status), 0);
	uint64_t at = offset < 0 ? (uint64_t)(status.st_size + offset) : (uint64_t)offset;
	assert_int_equal(fd_pread_all(fd, &byte, 1, at), 0);
	byte ^= 1;
	assert_int_equal(fd_pwrite_all(fd, &byte, 1, at), 0);
}
