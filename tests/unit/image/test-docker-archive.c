/* Docker archives in every form there is, from a file and from a pipe; and what is wrong with those that are not good. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "fs/base/fd.h"
#include "tests/unit/export/tar-builder.h"
#include "tests/unit/image/source-fixture.h"
#include "tools/image/image-docker.h"

/* Opens an archive as a file of a test's directory, or as a stream. */
typedef struct Opened {
	const char *directory;
	ImageSource *source;
	FakeSink sink;
} Opened;

static void open_archive(const Buffer *archive, bool stream, const char *wanted, Opened *opened)
{
	char path[128];
	Error error = { 0 };
	opened->directory = fake_directory_make();
	fake_file(opened->directory, "archive.tar", archive->data, archive->size);
	(void)snprintf(path, sizeof(path), "%s/archive.tar", opened->directory);
	fake_sink_init(&opened->sink);
	if (stream) {
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		assert_true(fd >= 0);
		assert_int_equal(image_docker_archive_stream(fd, "-", wanted, &opened->source, &error), 0);
	} else {
		assert_int_equal(image_docker_archive_open(path, wanted, &opened->source, &error), 0);
	}
}

static void close_archive(Opened *opened)
{
	opened->source = image_source_free(opened->source);
	fake_directory_remove(opened->directory);
}

static void expect_error(const Buffer *archive, const char *wanted, int code, const char *words)
{
	for (int stream = 0; stream < 2; stream++) {
		Opened opened;
		open_archive(archive, stream, wanted, &opened);
		fake_expect_error(opened.source, &opened.sink, code, words);
		close_archive(&opened);
	}
}

static void test_forms(void **state _unused_)
{
	FakeImage image;
	fake_image_make(&image, 3, "a");
	for (FakeForm form = FAKE_OLD; form < FAKE_FORMS; form++) {
		for (int stream = 0; stream < 2; stream++) {
			Buffer archive = { 0 };
			Opened opened;
			fake_archive(&archive, &image, form, "x:1");
			open_archive(&archive, stream, NULL, &opened);
			fake_expect_image(opened.source, &opened.sink, &image);
			assert_int_equal(opened.sink.layer_count, 3);
			/* A file's image is known before its layers. */
			if (!stream) {
				assert_int_equal(opened.sink.layers_at_begin, 0);
				assert_true(opened.sink.expected_all);
				assert_int_equal(opened.sink.done, opened.sink.total);
			} else {
				assert_int_equal(opened.sink.done, archive.size);
			}
			close_archive(&opened);
			buffer_done(&archive);
		}
	}
	fake_image_done(&image);
}

static void test_layers_that_are_there(void **state _unused_)
{
	FakeImage image;
	fake_image_make(&image, 3, "a");
	for (FakeForm form = FAKE_OLD; form < FAKE_FORMS; form++) {
		Buffer archive = { 0 };
		Opened opened;
		fake_archive(&archive, &image, form, "x:1");
		open_archive(&archive, false, NULL, &opened);
		opened.sink.has = image.diff_ids;
		opened.sink.has_count = 2;
		fake_expect_image(opened.source, &opened.sink, &image);
		assert_int_equal(opened.sink.layer_count, 1);
		/* The large layer was not read. */
		assert_true(opened.sink.done < 100000);
		close_archive(&opened);
		buffer_done(&archive);
	}
	fake_image_done(&image);
}

/* A stream leaves a layer out whose name is its diffID. */
static void test_stream_leaves_out(void **state _unused_)
{
	static const FakeForm forms[] = { FAKE_NEW, FAKE_SKOPEO };
	FakeImage image;
	fake_image_make(&image, 3, "a");
	for (size_t i = 0; i < ELEMENTS(forms); i++) {
		Buffer archive = { 0 };
		Opened opened;
		fake_archive(&archive, &image, forms[i], "x:1");
		open_archive(&archive, true, NULL, &opened);
		opened.sink.has = image.diff_ids;
		opened.sink.has_count = 3;
		fake_expect_image(opened.source, &opened.sink, &image);
		assert_int_equal(opened.sink.layer_count, 0);
		close_archive(&opened);
		buffer_done(&archive);
	}
	fake_image_done(&image);
}

static void test_compressed_archive(void **state _unused_)
{
	FakeImage image;
	Buffer archive = { 0 }, packed = { 0 };
	fake_image_make(&image, 2, "a");
	fake_archive(&archive, &image, FAKE_OLD, "x:1");
	fake_gzip(archive.data, archive.size, &packed);
	Opened opened;
	open_archive(&packed, false, NULL, &opened);
	fake_expect_image(opened.source, &opened.sink, &image);
	close_archive(&opened);

	packed.data[packed.size / 2] ^= 0xff;
	expect_error(&packed, NULL, -EBADMSG, "gzip");
	buffer_done(&archive);
	buffer_done(&packed);
	fake_image_done(&image);
}

static void expect_names(const Buffer *archive, const char *wanted, const char *name)
{
	ImageContent content = { 0 };
	Error error = { 0 };
	Opened opened;
	open_archive(archive, false, wanted, &opened);
	assert_int_equal(image_source_transfer(opened.source, &opened.sink.sink, &content, &error), 0);
	assert_int_equal(content.name_count, name ? 1 : 0);
	if (name)
		assert_string_equal(content.names[0], name);
	image_content_done(&content);
	close_archive(&opened);
}

static void test_several_images(void **state _unused_)
{
	FakeImage one, two;
	Buffer archive = { 0 };
	char manifest[4096], id[DIGEST_TEXT_SIZE];
	fake_image_make(&one, 2, "a");
	fake_image_make(&two, 3, "b");
	fake_archive_members(&archive, &one, FAKE_OLD);
	fake_archive_members(&archive, &two, FAKE_OLD);
	_cleanup_free_ char *first = fake_manifest_object(&one, FAKE_OLD, "docker.io/library/one:latest");
	_cleanup_free_ char *second = fake_manifest_object(&two, FAKE_OLD, NULL);
	(void)snprintf(manifest, sizeof(manifest), "[%s,%s]", first, second);
	fake_archive_end(&archive, manifest);

	expect_error(&archive, NULL, -EEXIST, "docker.io/library/one:latest");
	expect_error(&archive, "three:1", -ENOENT, "docker.io/library/one:latest");
	expect_names(&archive, "one", "docker.io/library/one:latest");
	expect_names(&archive, digest_text(&two.config_digest, id), NULL);
	id[7 + 12] = '\0';
	expect_names(&archive, id + 7, NULL);
	id[7 + 11] = '\0';
	expect_error(&archive, id + 7, -ENOENT, "does not hold");

	for (int stream = 0; stream < 2; stream++) {
		Opened opened;
		open_archive(&archive, stream, "one:latest", &opened);
		fake_expect_image(opened.source, &opened.sink, &one);
		close_archive(&opened);
	}
	buffer_done(&archive);
	fake_image_done(&one);
	fake_image_done(&two);
}

/* The bytes of a layer are not what the config says. */
static void test_wrong_layer(void **state _unused_)
{
	FakeImage image;
	fake_image_make(&image, 3, "a");
	for (FakeForm form = FAKE_OLD; form < FAKE_KANIKO; form++) {
		for (size_t layer = 0; layer < 3; layer++) {
			Buffer archive = { 0 };
			image.layers[layer].data[600] ^= 1;
			fake_archive(&archive, &image, form, "x:1");
			image.layers[layer].data[600] ^= 1;
			expect_error(&archive, NULL, -EKEYREJECTED, "layer");
			buffer_done(&archive);
		}
	}
	fake_image_done(&image);
}

static void test_wrong_config(void **state _unused_)
{
	FakeImage image;
	fake_image_make(&image, 1, "a");
	image.config[3] = 'X';
	for (FakeForm form = FAKE_OLD; form < FAKE_FORMS; form++) {
		Buffer archive = { 0 };
		fake_archive(&archive, &image, form, "x:1");
		expect_error(&archive, NULL, -EKEYREJECTED, "config");
		buffer_done(&archive);
	}
	fake_image_done(&image);
}

static void expect_manifest_error(const FakeImage *image, const char *manifest, int code, const char *words)
{
	Buffer archive = { 0 };
	fake_archive_members(&archive, image, FAKE_OLD);
	fake_archive_end(&archive, manifest);
	expect_error(&archive, NULL, code, words);
	buffer_done(&archive);
}

static void test_bad_manifests(void **state _unused_)
{
	FakeImage image;
	char text[1024], hex[DIGEST_HEX_SIZE];
	fake_image_make(&image, 1, "a");
	expect_manifest_error(&image, "", -EBADMSG, "manifest.json is damaged");
	expect_manifest_error(&image, "{}", -EBADMSG, "manifest.json is damaged");
	expect_manifest_error(&image, "[]", -EEXIST, "0 images");
	expect_manifest_error(&image, "[1]", -EBADMSG, "lacks Config or Layers");
	expect_manifest_error(&image, "[{\"Config\":\"x\"}]", -EBADMSG, "lacks Config or Layers");
	expect_manifest_error(&image, "[{\"Config\":\"x\",\"Layers\":[1]}]", -EBADMSG, "bad Layers");
	expect_manifest_error(&image, "[{\"Config\":\"x\",\"RepoTags\":[2],\"Layers\":[]}]", -EBADMSG, "bad RepoTags");
	expect_manifest_error(&image, "[{\"Config\":\"x\",\"Layers\":[]}]", -ENOENT, "does not hold x");
	expect_manifest_error(&image, "[{\"Config\":\"repositories\",\"Layers\":[]}]", -EBADMSG, "config");

	digest_hex(&image.config_digest, hex);
	(void)snprintf(text, sizeof(text), "[{\"Config\":\"%s.json\",\"Layers\":[]}]", hex);
	expect_manifest_error(&image, text, -EBADMSG, "names 0 layers");
	(void)snprintf(text, sizeof(text), "[{\"Config\":\"%s.json\",\"Layers\":[\"nothing/layer.tar\"]}]", hex);
	expect_manifest_error(&image, text, -ENOENT, "does not hold nothing/layer.tar");
	fake_image_done(&image);
}

static void test_no_manifest(void **state _unused_)
{
	FakeImage image;
	Buffer archive = { 0 };
	fake_image_make(&image, 1, "a");
	fake_archive_members(&archive, &image, FAKE_OLD);
	tar_end(&archive);
	expect_error(&archive, NULL, -EBADMSG, "no manifest.json");
	buffer_done(&archive);
	fake_image_done(&image);
}

static void test_links_in_a_circle(void **state _unused_)
{
	FakeImage image;
	Buffer archive = { 0 };
	char text[1024], hex[DIGEST_HEX_SIZE];
	fake_image_make(&image, 1, "a");
	(void)snprintf(text, sizeof(text), "%s.json", digest_hex(&image.config_digest, hex));
	tar_file(&archive, text, image.config, strlen(image.config));
	tar_link(&archive, "a/layer.tar", '2', "../b/layer.tar");
	tar_link(&archive, "b/layer.tar", '1', "a/layer.tar");
	(void)snprintf(text, sizeof(text), "[{\"Config\":\"%s.json\",\"Layers\":[\"a/layer.tar\"]}]", hex);
	fake_archive_end(&archive, text);
	expect_error(&archive, NULL, -ENOENT, "a link to");
	buffer_done(&archive);
	fake_image_done(&image);
}

static void test_cut_short(void **state _unused_)
{
	FakeImage image;
	Buffer archive = { 0 };
	fake_image_make(&image, 2, "a");
	fake_archive(&archive, &image, FAKE_OLD, "x:1");
	archive.size = 2u << 20; /* inside of the large layer */
	expect_error(&archive, NULL, -EBADMSG, "docker archive");
	archive.size = 700;
	expect_error(&archive, NULL, -EBADMSG, "docker archive");
	archive.size = 0;
	expect_error(&archive, NULL, -EBADMSG, "no manifest.json");
	buffer_done(&archive);
	fake_image_done(&image);
}

static void test_sparse_member(void **state _unused_)
{
	Buffer archive = { 0 };
	uint8_t *header = tar_header(&archive, "0123/layer.tar", 'S', 512);
	tar_make_gnu(header);
	tar_octal(header, 386, 12, 0);
	tar_octal(header, 398, 12, 512);
	tar_octal(header, 483, 12, 512);
	uint8_t block[BLOCK] = { 0 };
	tar_data(&archive, block, sizeof(block));
	tar_end(&archive);
	expect_error(&archive, NULL, -EOPNOTSUPP, "0123/layer.tar is stored sparse");
	buffer_done(&archive);
}

static void test_sink_fails(void **state _unused_)
{
	FakeImage image;
	Buffer archive = { 0 };
	fake_image_make(&image, 2, "a");
	fake_archive(&archive, &image, FAKE_OLD, "x:1");
	for (int stream = 0; stream < 2; stream++) {
		Opened opened;
		open_archive(&archive, stream, NULL, &opened);
		opened.sink.fail = -ENOSPC;
		fake_expect_error(opened.source, &opened.sink, -ENOSPC, "the sink refuses");
		close_archive(&opened);
	}
	buffer_done(&archive);
	fake_image_done(&image);
}

static void *write_all(void *arg)
{
	const void *const *work = arg;
	const Buffer *archive = work[0];
	int fd = *(const int *)work[1];
	int r = fd_write_all(fd, archive->data, archive->size);
	(void)close(fd);
	return r < 0 ? arg : NULL;
}

static void test_pipe(void **state _unused_)
{
	FakeImage image;
	Buffer archive = { 0 };
	Error error = { 0 };
	FakeSink sink;
	int ends[2];
	pthread_t thread;
	_cleanup_(image_source_free_p) ImageSource *source = NULL;
	fake_image_make(&image, 3, "a");
	fake_archive(&archive, &image, FAKE_NEW, "x:1");
	assert_int_equal(pipe(ends), 0);
	const void *work[] = { &archive, &ends[1] };
	assert_int_equal(pthread_create(&thread, NULL, write_all, work), 0);
	assert_int_equal(image_docker_archive_stream(ends[0], "-", NULL, &source, &error), 0);
	fake_sink_init(&sink);
	fake_expect_image(source, &sink, &image);
	void *failed;
	assert_int_equal(pthread_join(thread, &failed), 0);
	assert_null(failed);
	buffer_done(&archive);
	fake_image_done(&image);
}

static void test_open_errors(void **state _unused_)
{
	ImageSource *source = NULL;
	Error error = { 0 };
	assert_int_equal(image_docker_archive_open("/nonexistent.tar", NULL, &source, &error), -ENOENT);
	assert_non_null(strstr(error.message, "/nonexistent.tar"));
	assert_int_equal(image_docker_archive_open("/tmp", NULL, &source, &error), -EISDIR);
	assert_non_null(strstr(error.message, "oci:DIR"));
	assert_null(source);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_forms),
		cmocka_unit_test(test_layers_that_are_there),
		cmocka_unit_test(test_stream_leaves_out),
		cmocka_unit_test(test_compressed_archive),
		cmocka_unit_test(test_several_images),
		cmocka_unit_test(test_wrong_layer),
		cmocka_unit_test(test_wrong_config),
		cmocka_unit_test(test_bad_manifests),
		cmocka_unit_test(test_no_manifest),
		cmocka_unit_test(test_links_in_a_circle),
		cmocka_unit_test(test_cut_short),
		cmocka_unit_test(test_sparse_member),
		cmocka_unit_test(test_sink_fails),
		cmocka_unit_test(test_pipe),
		cmocka_unit_test(test_open_errors),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
