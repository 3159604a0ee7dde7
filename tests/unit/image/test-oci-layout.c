/* OCI image layouts: layers in each compression, indexes in indexes, platforms; and each digest is minded. */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "fs/base/fd.h"
#include "tests/unit/export/tar-builder.h"
#include "tests/unit/image/source-fixture.h"
#include "tools/image/image-oci-layout.h"

#define MANIFEST_TYPE "application/vnd.oci.image.manifest.v1+json"
#define INDEX_TYPE    "application/vnd.oci.image.index.v1+json"

typedef struct Blob {
	char text[DIGEST_TEXT_SIZE];
	size_t size;
} Blob;

static void write_layout(const char *directory)
{
	fake_file(directory, "oci-layout", "{\"imageLayoutVersion\":\"1.0.0\"}", 30);
}

static void write_blob(const char *directory, const void *data, size_t size, Blob *ret_blob)
{
	char name[128];
	Digest digest;
	assert_int_equal(digest_of(data, size, &digest), 0);
	digest_text(&digest, ret_blob->text);
	ret_blob->size = size;
	(void)snprintf(name, sizeof(name), "blobs/sha256/%s", ret_blob->text + 7);
	fake_file(directory, name, data, size);
}

static void write_layer(const char *directory, const Buffer *layer, size_t number, Blob *ret_blob)
{
	Buffer packed = { 0 };
	if (number % 3 == 0)
		fake_gzip(layer->data, layer->size, &packed);
	else if (number % 3 == 1)
		fake_zstd(layer->data, layer->size, &packed);
	else
		assert_int_equal(buffer_append(&packed, layer->data, layer->size), 0);
	write_blob(directory, packed.data, packed.size, ret_blob);
	buffer_done(&packed);
}

/* Config, layers and manifest of an image; `ret_blob` is the manifest. */
static void write_image(const char *directory, const FakeImage *image, Blob *ret_blob)
{
	char text[2048];
	Blob blob;
	write_blob(directory, image->config, strlen(image->config), &blob);
	int used = snprintf(text, sizeof(text),
			    "{\"schemaVersion\":2,\"config\":{\"digest\":\"%s\",\"size\":%zu},\"layers\":[", blob.text,
			    blob.size);
	for (size_t i = 0; i < image->count; i++) {
		write_layer(directory, &image->layers[i], i, &blob);
		used += snprintf(text + used, sizeof(text) - (size_t)used, "%s{\"digest\":\"%s\",\"size\":%zu}",
				 i ? "," : "", blob.text, blob.size);
	}
	(void)snprintf(text + used, sizeof(text) - (size_t)used, "]}");
	write_blob(directory, text, strlen(text), ret_blob);
}

/* A descriptor; `more` is JSON that starts with a comma, or "". */
static void descriptor(char *text, size_t size, const char *type, const Blob *blob, const char *more)
{
	(void)snprintf(text, size, "{\"mediaType\":\"%s\",\"digest\":\"%s\",\"size\":%zu%s}", type, blob->text,
		       blob->size, more);
}

static void write_index(const char *directory, const char *descriptors)
{
	char text[4096];
	(void)snprintf(text, sizeof(text), "{\"schemaVersion\":2,\"manifests\":[%s]}", descriptors);
	fake_file(directory, "index.json", text, strlen(text));
}

/* What nftw() cannot hand to its callback. */
static const char *tar_top;
static Buffer tar_whole;
static bool tar_index;

#define NAMED(name) ",\"annotations\":{\"org.opencontainers.image.ref.name\":\"" name "\"}"

/* A layout with one image called "v1". */
static const char *make_layout(const FakeImage *image, Blob *ret_manifest)
{
	char text[512];
	const char *directory = fake_directory_make();
	write_layout(directory);
	write_image(directory, image, ret_manifest);
	descriptor(text, sizeof(text), MANIFEST_TYPE, ret_manifest, NAMED("v1"));
	write_index(directory, text);
	return directory;
}

static void expect_image(const char *directory, const char *wanted, const FakeImage *image, const char *name)
{
	_cleanup_(image_source_free_p) ImageSource *source = NULL;
	_cleanup_(image_source_free_p) ImageSource *again = NULL;
	FakeSink sink;
	Error error = { 0 };
	ImageContent content = { 0 };
	assert_int_equal(image_oci_layout_open(directory, wanted, NULL, &source, &error), 0);
	fake_sink_init(&sink);
	fake_expect_image(source, &sink, image);
	assert_int_equal(sink.layers_at_begin, 0);
	assert_true(sink.expected_all);
	assert_int_equal(sink.done, sink.total);

	assert_int_equal(image_oci_layout_open(directory, wanted, NULL, &again, &error), 0);
	fake_sink_init(&sink);
	assert_int_equal(image_source_transfer(again, &sink.sink, &content, &error), 0);
	assert_int_equal(content.name_count, name ? 1 : 0);
	if (name)
		assert_string_equal(content.names[0], name);
	image_content_done(&content);
}

static void expect_error(const char *directory, const char *wanted, int code, const char *words)
{
	_cleanup_(image_source_free_p) ImageSource *source = NULL;
	FakeSink sink;
	Error error = { 0 };
	assert_int_equal(image_oci_layout_open(directory, wanted, NULL, &source, &error), 0);
	fake_sink_init(&sink);
	fake_expect_error(source, &sink, code, words);
}

static void test_one_image(void **state _unused_)
{
	FakeImage image;
	Blob manifest;
	fake_image_make(&image, 4, "a");
	const char *directory = make_layout(&image, &manifest);
	expect_image(directory, NULL, &image, "v1");
	expect_image(directory, "v1", &image, "v1");
	expect_image(directory, manifest.text, &image, "v1");
	expect_error(directory, "v2", -ENOENT, "it holds: v1");
	fake_directory_remove(directory);
	fake_image_done(&image);
}

static int add_to_tar(const char *path, const struct stat *status, int type, struct FTW *walk _unused_)
{
	char *data;
	size_t size;
	const char *name = path + strlen(tar_top) + 1;
	if (type != FTW_F || (strcmp(name, "index.json") == 0) != tar_index)
		return 0;
	assert_int_equal(fd_read_file(AT_FDCWD, path, (size_t)status->st_size, &data, &size), 0);
	tar_file(&tar_whole, name, data, size);
	free(data);
	return 0;
}

/* The directory as a tar, its index last. */
static void make_tar(const char *directory)
{
	tar_top = directory;
	tar_whole.size = 0;
	for (tar_index = false;; tar_index = true) {
		assert_int_equal(nftw(directory, add_to_tar, 16, FTW_PHYS), 0);
		if (tar_index)
			break;
	}
	tar_end(&tar_whole);
}

static void expect_archive(const char *directory, const Buffer *tar, const FakeImage *image, unsigned notices)
{
	char path[256];
	_cleanup_(image_source_free_p) ImageSource *source = NULL;
	FakeSink sink;
	Error error = { 0 };
	fake_file(directory, "archive", tar->data, tar->size);
	(void)snprintf(path, sizeof(path), "%s/archive", directory);
	assert_int_equal(image_oci_archive_open(path, "v1", NULL, &source, &error), 0);
	fake_sink_init(&sink);
	fake_expect_image(source, &sink, image);
	assert_true(sink.expected_all);
	assert_int_equal(sink.notices, notices);
	assert_int_equal(unlink(path), 0);
}

static void test_archives(void **state _unused_)
{
	FakeImage image;
	Blob manifest;
	Buffer packed = { 0 };
	fake_image_make(&image, 4, "a");
	const char *directory = make_layout(&image, &manifest);
	make_tar(directory);
	expect_archive(directory, &tar_whole, &image, 0);
	/* What is compressed cannot be read from the middle. */
	fake_gzip(tar_whole.data, tar_whole.size, &packed);
	expect_archive(directory, &packed, &image, 1);
	packed.size = 0;
	fake_zstd(tar_whole.data, tar_whole.size, &packed);
	expect_archive(directory, &packed, &image, 1);

	ImageSource *source = NULL;
	Error error = { 0 };
	assert_int_equal(image_oci_archive_open(directory, NULL, NULL, &source, &error), -EISDIR);
	assert_int_equal(image_oci_archive_open("/nonexistent", NULL, NULL, &source, &error), -ENOENT);
	assert_null(source);
	buffer_done(&packed);
	buffer_done(&tar_whole);
	fake_directory_remove(directory);
	fake_image_done(&image);
}

static void test_layers_that_are_there(void **state _unused_)
{
	FakeImage image;
	Blob manifest;
	FakeSink sink;
	Error error = { 0 };
	_cleanup_(image_source_free_p) ImageSource *source = NULL;
	fake_image_make(&image, 3, "a");
	const char *directory = make_layout(&image, &manifest);
	assert_int_equal(image_oci_layout_open(directory, NULL, NULL, &source, &error), 0);
	fake_sink_init(&sink);
	sink.has = image.diff_ids;
	sink.has_count = 2;
	fake_expect_image(source, &sink, &image);
	assert_int_equal(sink.layer_count, 1);
	assert_true(sink.done < 100000);
	fake_directory_remove(directory);
	fake_image_done(&image);
}

static void test_several_images(void **state _unused_)
{
	FakeImage one, two;
	Blob first, second;
	char text[2048];
	fake_image_make(&one, 1, "a");
	fake_image_make(&two, 2, "b");
	const char *directory = make_layout(&one, &first);
	write_image(directory, &two, &second);
	descriptor(text, sizeof(text), MANIFEST_TYPE, &first, NAMED("v1"));
	strcat(text, ",");
	descriptor(text + strlen(text), sizeof(text) - strlen(text), MANIFEST_TYPE, &second,
		   ",\"annotations\":{\"org.opencontainers.image.ref.name\":\"v2\",\"io.containerd.image.name\":"
		   "\"docker.io/library/x:v2\"}");
	write_index(directory, text);
	expect_error(directory, NULL, -EEXIST, "append one as :REF: v1 v2");
	expect_error(directory, "v3", -ENOENT, "v1 v2");
	expect_image(directory, "v1", &one, "v1");
	expect_image(directory, "v2", &two, "docker.io/library/x:v2");
	expect_image(directory, "x:v2", &two, "docker.io/library/x:v2");
	fake_directory_remove(directory);
	fake_image_done(&one);
	fake_image_done(&two);
}

static const char *architecture(void)
{
	static struct utsname name;
	assert_int_equal(uname(&name), 0);
	if (strcmp(name.machine, "x86_64") == 0)
		return "amd64";
	return strcmp(name.machine, "aarch64") == 0 ? "arm64" : name.machine;
}

static void test_platforms(void **state _unused_)
{
	FakeImage ours, other;
	Blob manifest, other_manifest, index;
	char text[2048], inner[1024], platform[128];
	fake_image_make(&ours, 2, "a");
	fake_image_make(&other, 1, "b");
	const char *directory = make_layout(&ours, &manifest);
	write_image(directory, &other, &other_manifest);
	(void)snprintf(platform, sizeof(platform), ",\"platform\":{\"os\":\"linux\",\"architecture\":\"%s\"}",
		       architecture());
	descriptor(inner, sizeof(inner), MANIFEST_TYPE, &other_manifest,
		   ",\"platform\":{\"os\":\"unknown\",\"architecture\":\"unknown\"}");
	strcat(inner, ",");
	descriptor(inner + strlen(inner), sizeof(inner) - strlen(inner), MANIFEST_TYPE, &manifest, platform);
	(void)snprintf(text, sizeof(text), "{\"manifests\":[%s]}", inner);
	write_blob(directory, text, strlen(text), &index);
	descriptor(text, sizeof(text), INDEX_TYPE, &index, NAMED("multi"));
	write_index(directory, text);
	expect_image(directory, "multi", &ours, "multi");
	expect_image(directory, NULL, &ours, "multi");

	descriptor(text, sizeof(text), MANIFEST_TYPE, &other_manifest,
		   ",\"platform\":{\"os\":\"plan9\",\"architecture\":\"vax\"}");
	write_index(directory, text);
	expect_error(directory, NULL, -ENOENT, "it holds: plan9/vax");
	fake_directory_remove(directory);
	fake_image_done(&ours);
	fake_image_done(&other);
}

static void test_indexes_without_end(void **state _unused_)
{
	Blob index = { .text = "" };
	char text[1024], inner[512];
	const char *directory = fake_directory_make();
	write_layout(directory);
	write_blob(directory, "{\"manifests\":[]}", 16, &index);
	for (int i = 0; i < 6; i++) {
		descriptor(inner, sizeof(inner), INDEX_TYPE, &index, "");
		(void)snprintf(text, sizeof(text), "{\"manifests\":[%s]}", inner);
		write_blob(directory, text, strlen(text), &index);
	}
	write_index(directory, inner);
	expect_error(directory, NULL, -EBADMSG, "nested more than 4 deep");
	fake_directory_remove(directory);
}

/* The path of the blob that begins the manifest's list of layers, by where the fixture puts it. */
static void layer_path(const char *directory, const FakeImage *image, size_t number, char *path, size_t size)
{
	Blob blob;
	write_layer(directory, &image->layers[number], number, &blob);
	(void)snprintf(path, size, "blobs/sha256/%s", blob.text + 7);
}

/* A blob that holds the right layer, but is not what its name says. */
static void test_wrong_blob(void **state _unused_)
{
	FakeImage image;
	Blob manifest;
	Buffer packed = { 0 };
	char path[128];
	fake_image_make(&image, 1, "a");
	const char *directory = make_layout(&image, &manifest);
	fake_gzip(image.layers[0].data, image.layers[0].size, &packed);
	packed.data[9] ^= 1; /* the operating system in gzip's header: another blob, the same layer */
	layer_path(directory, &image, 0, path, sizeof(path));
	fake_file(directory, path, packed.data, packed.size);
	expect_error(directory, NULL, -EKEYREJECTED, "not what its name says");

	fake_file(directory, path, packed.data, packed.size - 1);
	expect_error(directory, NULL, -EKEYREJECTED, "bytes, not");
	packed.data[packed.size / 2] ^= 1;
	fake_file(directory, path, packed.data, packed.size);
	expect_error(directory, NULL, -EBADMSG, "gzip");

	char whole[256];
	(void)snprintf(whole, sizeof(whole), "%s/%s", directory, path);
	assert_int_equal(unlink(whole), 0);
	expect_error(directory, NULL, -ENOENT, path);
	buffer_done(&packed);
	fake_directory_remove(directory);
	fake_image_done(&image);
}

/* Layers that are good blobs, but not those of the config. */
static void test_wrong_layer(void **state _unused_)
{
	FakeImage image;
	Blob manifest;
	fake_image_make(&image, 3, "a");
	image.layers[2].data[600] ^= 1;
	const char *directory = make_layout(&image, &manifest);
	expect_error(directory, NULL, -EKEYREJECTED, "layer blobs/sha256/");
	fake_directory_remove(directory);
	fake_image_done(&image);
}

static void test_wrong_json(void **state _unused_)
{
	static const struct {
		const char *index;
		int code;
		const char *words;
	} bad[] = {
		{ "{\"manifests\":[{\"size\":1,\"digest\":\"sha512:00\"}]}", -EBADMSG, "no sha256 digest" },
		{ "{\"manifests\":[{\"size\":1,\"digest\":\"sha256:../../../../etc/passwd\"}]}", -EBADMSG,
		  "no sha256 digest" },
		{ "{\"manifests\":[{\"digest\":\"sha256:"
		  "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"}]}",
		  -EBADMSG, "has no size" },
		{ "{\"manifests\":[]}", -ENOENT, "nothing" },
		{ "{}", -EBADMSG, "no list of manifests" },
		{ "x", -EBADMSG, "no JSON" },
	};
	FakeImage image;
	Blob manifest;
	char name[128], text[1024];
	fake_image_make(&image, 1, "a");
	const char *directory = make_layout(&image, &manifest);
	(void)snprintf(name, sizeof(name), "blobs/sha256/%s", manifest.text + 7);
	memset(text, ' ', sizeof(text));
	fake_file(directory, name, text, manifest.size);
	expect_error(directory, NULL, -EKEYREJECTED, name);

	write_blob(directory, "]", 1, &manifest);
	descriptor(text, sizeof(text), MANIFEST_TYPE, &manifest, "");
	write_index(directory, text);
	expect_error(directory, NULL, -EBADMSG, "no JSON");
	write_blob(directory, "{}", 2, &manifest);
	descriptor(text, sizeof(text), MANIFEST_TYPE, &manifest, "");
	write_index(directory, text);
	expect_error(directory, NULL, -EBADMSG, "descriptor of the config");
	for (size_t i = 0; i < ELEMENTS(bad); i++) {
		fake_file(directory, "index.json", bad[i].index, strlen(bad[i].index));
		expect_error(directory, NULL, bad[i].code, bad[i].words);
	}
	fake_directory_remove(directory);
	fake_image_done(&image);
}

static void test_no_layout(void **state _unused_)
{
	ImageSource *source = NULL;
	Error error = { 0 };
	const char *directory = fake_directory_make();
	assert_int_equal(image_oci_layout_open("/nonexistent", NULL, NULL, &source, &error), -ENOENT);
	assert_int_equal(image_oci_layout_open(directory, NULL, NULL, &source, &error), -ENOENT);
	assert_non_null(strstr(error.message, "no OCI image layout"));
	fake_file(directory, "oci-layout", "{\"imageLayoutVersion\":\"2.0.0\"}", 30);
	assert_int_equal(image_oci_layout_open(directory, NULL, NULL, &source, &error), -EBADMSG);
	assert_null(source);
	fake_directory_remove(directory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_image),           cmocka_unit_test(test_layers_that_are_there),
		cmocka_unit_test(test_several_images),      cmocka_unit_test(test_platforms),
		cmocka_unit_test(test_indexes_without_end), cmocka_unit_test(test_wrong_blob),
		cmocka_unit_test(test_wrong_layer),         cmocka_unit_test(test_wrong_json),
		cmocka_unit_test(test_no_layout),           cmocka_unit_test(test_archives),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
