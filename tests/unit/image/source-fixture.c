#include "tests/unit/image/source-fixture.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "fs/base/fd.h"
#include "tests/unit/export/tar-builder.h"

#define LARGE_SIZE (3u << 20)

static void make_layer(Buffer *tar, size_t number, const char *salt)
{
	char name[64];
	size_t size = number == 1 ? LARGE_SIZE : 100 + number;
	uint8_t *data = malloc(size);
	assert_non_null(data);
	uint32_t state = 12345 + (uint32_t)number + (uint8_t)salt[0];
	for (size_t i = 0; i < size; i++) {
		state = state * 1664525 + 1013904223;
		data[i] = (uint8_t)(state >> 24);
	}
	(void)snprintf(name, sizeof(name), "layer-%zu-%s", number, salt);
	tar_file(tar, name, data, size);
	tar_end(tar);
	free(data);
}

void fake_image_make(FakeImage *image, size_t count, const char *salt)
{
	char text[1024], hex[DIGEST_TEXT_SIZE];
	*image = (FakeImage){ .count = count };
	int used =
		snprintf(text, sizeof(text),
			 "{\"architecture\":\"amd64\",\"os\":\"linux\",\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[");
	for (size_t i = 0; i < count; i++) {
		make_layer(&image->layers[i], i, salt);
		assert_int_equal(digest_of(image->layers[i].data, image->layers[i].size, &image->diff_ids[i]), 0);
		used += snprintf(text + used, sizeof(text) - (size_t)used, "%s\"%s\"", i ? "," : "",
				 digest_text(&image->diff_ids[i], hex));
	}
	(void)snprintf(text + used, sizeof(text) - (size_t)used, "]}}");
	image->config = strdup(text);
	assert_non_null(image->config);
	assert_int_equal(digest_of(text, strlen(text), &image->config_digest), 0);
}

void fake_image_done(FakeImage *image)
{
	for (size_t i = 0; i < image->count; i++)
		buffer_done(&image->layers[i]);
	free(image->config);
	*image = (FakeImage){ 0 };
}

static void layer_name(const FakeImage *image, FakeForm form, size_t number, char name[static 128])
{
	char hex[DIGEST_HEX_SIZE];
	digest_hex(&image->diff_ids[number], hex);
	if (form == FAKE_NEW)
		(void)snprintf(name, 128, "blobs/sha256/%s", hex);
	else if (form == FAKE_KANIKO)
		(void)snprintf(name, 128, "%s.tar.gz", hex);
	else
		(void)snprintf(name, 128, "id%.10s/layer.tar", hex);
}

static void config_name(const FakeImage *image, FakeForm form, char name[static 128])
{
	char hex[DIGEST_HEX_SIZE];
	digest_hex(&image->config_digest, hex);
	if (form == FAKE_NEW)
		(void)snprintf(name, 128, "blobs/sha256/%s", hex);
	else if (form == FAKE_KANIKO)
		(void)snprintf(name, 128, "sha256:%s", hex);
	else
		(void)snprintf(name, 128, "%s.json", hex);
}

static void add_layer(Buffer *archive, const FakeImage *image, FakeForm form, size_t number)
{
	char name[128], target[128], hex[DIGEST_HEX_SIZE];
	const Buffer *layer = &image->layers[number];
	layer_name(image, form, number, name);
	if (form == FAKE_KANIKO) {
		Buffer packed = { 0 };
		fake_gzip(layer->data, layer->size, &packed);
		tar_file(archive, name, packed.data, packed.size);
		buffer_done(&packed);
	} else if (form == FAKE_SKOPEO) {
		(void)snprintf(target, sizeof(target), "../%s.tar", digest_hex(&image->diff_ids[number], hex));
		tar_file(archive, target + 3, layer->data, layer->size);
		tar_link(archive, name, '2', target);
	} else {
		tar_file(archive, name, layer->data, layer->size);
	}
}

void fake_archive_members(Buffer *archive, const FakeImage *image, FakeForm form)
{
	char name[128];
	tar_directory(archive, "some-directory/");
	for (size_t i = 0; i < image->count; i++)
		add_layer(archive, image, form, i);
	config_name(image, form, name);
	tar_file(archive, name, image->config, strlen(image->config));
	tar_file(archive, "repositories", "{}", 2);
}

char *fake_manifest_object(const FakeImage *image, FakeForm form, const char *tag)
{
	char text[2048], name[128];
	config_name(image, form, name);
	int used = snprintf(text, sizeof(text), "{\"Config\":\"%s\",\"RepoTags\":", name);
	used += tag ? snprintf(text + used, sizeof(text) - (size_t)used, "[\"%s\"]", tag)
		    : snprintf(text + used, sizeof(text) - (size_t)used, "null");
	used += snprintf(text + used, sizeof(text) - (size_t)used, ",\"Layers\":[");
	for (size_t i = 0; i < image->count; i++) {
		layer_name(image, form, i, name);
		used += snprintf(text + used, sizeof(text) - (size_t)used, "%s\"%s\"", i ? "," : "", name);
	}
	(void)snprintf(text + used, sizeof(text) - (size_t)used, "]}");
	char *copy = strdup(text);
	assert_non_null(copy);
	return copy;
}

void fake_archive_end(Buffer *archive, const char *manifest_json)
{
	tar_file(archive, "manifest.json", manifest_json, strlen(manifest_json));
	tar_end(archive);
}

void fake_archive(Buffer *archive, const FakeImage *image, FakeForm form, const char *tag)
{
	char manifest[2100];
	_cleanup_free_ char *object = fake_manifest_object(image, form, tag);
	(void)snprintf(manifest, sizeof(manifest), "[%s]", object);
	fake_archive_members(archive, image, form);
	fake_archive_end(archive, manifest);
}

void fake_gzip(const void *data, size_t size, Buffer *ret_packed)
{
	z_stream stream = { 0 };
	assert_int_equal(deflateInit2(&stream, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
	size_t bound = deflateBound(&stream, size);
	uint8_t *packed = malloc(bound);
	assert_non_null(packed);
	stream.next_in = (uint8_t *)(uintptr_t)data;
	stream.avail_in = (uInt)size;
	stream.next_out = packed;
	stream.avail_out = (uInt)bound;
	assert_int_equal(deflate(&stream, Z_FINISH), Z_STREAM_END);
	assert_int_equal(buffer_append(ret_packed, packed, stream.total_out), 0);
	(void)deflateEnd(&stream);
	free(packed);
}

void fake_zstd(const void *data, size_t size, Buffer *ret_packed)
{
	size_t bound = ZSTD_compressBound(size);
	uint8_t *packed = malloc(bound);
	assert_non_null(packed);
	size_t used = ZSTD_compress(packed, bound, data, size, 1);
	assert_false(ZSTD_isError(used));
	assert_int_equal(buffer_append(ret_packed, packed, used), 0);
	free(packed);
}

static int on_begin(void *arg, const ImageContent *content, Error *error _unused_)
{
	FakeSink *sink = arg;
	assert_non_null(content->config);
	sink->begun++;
	sink->layers_at_begin = sink->layer_count;
	return 0;
}

static bool on_has_layer(void *arg, const Digest *diff_id)
{
	FakeSink *sink = arg;
	for (size_t i = 0; i < sink->has_count; i++) {
		if (digest_equal(&sink->has[i], diff_id))
			return true;
	}
	return false;
}

/* As layer_write() does: reads the tar to its end, and says what it is. */
static int on_layer(void *arg, const Digest *diff_id, const LayerSource *tar, Digest *ret_diff_id, Error *error)
{
	FakeSink *sink = arg;
	uint8_t buffer[10000];
	Digest digest;
	ssize_t count;
	_cleanup_(digest_state_free_p) DigestState *state = NULL;
	if (sink->fail)
		return error_set(error, sink->fail, "the sink refuses");
	assert_int_equal(digest_state_new(&state), 0);
	while ((count = tar->read(tar->arg, buffer, sizeof(buffer), error)) > 0)
		assert_int_equal(digest_state_add(state, buffer, (size_t)count), 0);
	if (count < 0)
		return (int)count;
	assert_int_equal(digest_state_end(state, &digest), 0);
	if (diff_id && !digest_equal(diff_id, &digest))
		return error_set(error, -EKEYREJECTED, "the layer is another");
	sink->expected_all = sink->expected_all && diff_id;
	assert_true(sink->layer_count < ELEMENTS(sink->layers));
	sink->layers[sink->layer_count++] = digest;
	*ret_diff_id = digest;
	return 0;
}

static void on_progress(void *arg, uint64_t done, uint64_t total)
{
	FakeSink *sink = arg;
	assert_true(done >= sink->done);
	sink->done = done;
	sink->total = total;
}

static void on_notice(void *arg, const char *sentence)
{
	FakeSink *sink = arg;
	assert_int_not_equal(sentence[0], '\0');
	sink->notices++;
}

void fake_sink_init(FakeSink *sink)
{
	*sink = (FakeSink){ .sink = { .begin = on_begin,
				      .has_layer = on_has_layer,
				      .layer = on_layer,
				      .progress = on_progress,
				      .notice = on_notice },
			    .expected_all = true };
	sink->sink.arg = sink;
}

const char *fake_directory_make(void)
{
	static char path[64];
	(void)snprintf(path, sizeof(path), "/tmp/imgfs-image-XXXXXX");
	assert_non_null(mkdtemp(path));
	return path;
}

static int remove_one(const char *path, const struct stat *status _unused_, int type _unused_,
		      struct FTW *walk _unused_)
{
	return remove(path);
}

void fake_directory_remove(const char *path)
{
	assert_int_equal(nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

void fake_file(const char *directory, const char *name, const void *data, size_t size)
{
	char path[512];
	(void)snprintf(path, sizeof(path), "%s/%s", directory, name);
	*strrchr(path, '/') = '\0';
	assert_int_equal(fd_make_directories(AT_FDCWD, path, 0755), 0);
	(void)snprintf(path, sizeof(path), "%s/%s", directory, name);
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	assert_true(fd >= 0);
	assert_int_equal(fd_write_all(fd, data, size), 0);
}

void fake_expect_image(ImageSource *source, FakeSink *sink, const FakeImage *image)
{
	ImageContent content = { 0 };
	Error error = { 0 };
	int r = image_source_transfer(source, &sink->sink, &content, &error);
	if (r < 0)
		fail_msg("transfer: %s", error_text(&error, r));
	assert_int_equal(content.config_size, strlen(image->config));
	assert_memory_equal(content.config, image->config, content.config_size);
	assert_int_equal(content.layer_count, image->count);
	for (size_t i = 0; i < image->count; i++) {
		bool handed_over = false;
		assert_true(digest_equal(&content.diff_ids[i], &image->diff_ids[i]));
		for (size_t j = 0; j < sink->layer_count; j++)
			handed_over = handed_over || digest_equal(&sink->layers[j], &image->diff_ids[i]);
		assert_true(handed_over != on_has_layer(sink, &image->diff_ids[i]));
	}
	assert_int_equal(sink->begun, 1);
	image_content_done(&content);
}

void fake_expect_error(ImageSource *source, FakeSink *sink, int code, const char *words)
{
	ImageContent content = { 0 };
	Error error = { 0 };
	assert_int_equal(image_source_transfer(source, &sink->sink, &content, &error), code);
	if (!strstr(error.message, words))
		fail_msg("\"%s\" does not say \"%s\"", error.message, words);
	assert_null(content.config);
}
