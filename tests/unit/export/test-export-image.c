/* From a source to the store: layers once, config byte for byte, tags; and what a failure leaves behind. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "fs/base/fd.h"
#include "tests/unit/export/layer-fixture.h"
#include "tests/unit/export/store-fixture.h"
#include "tests/unit/export/tar-builder.h"
#include "tools/export/export-tags.h"

#define LAYERS 2

/* A source whose image is in memory. */
typedef struct MemorySource {
	ImageSource source;
	Buffer layers[LAYERS];
	Digest diff_ids[LAYERS];
	bool blind;           /* as a stream: layers first, without knowing what they should be */
	size_t wrong;         /* number + 1 of a layer whose diffID it gets wrong */
	const char *names[4]; /* up to the first NULL */
	size_t handed_over;
} MemorySource;

static const char config[] = "{\"some\": \"config\"}\n";

static int hand_over(MemorySource *memory, const ImageSink *sink, size_t number, Error *error)
{
	LayerFeed feed = { .tar = &memory->layers[number] };
	LayerSource tar = { .read = layer_feed_read, .arg = &feed };
	Digest expected = memory->diff_ids[number], found;
	if (memory->wrong == number + 1)
		expected.bytes[0] ^= 1;
	if (!memory->blind && sink->has_layer(sink->arg, &expected))
		return 0;
	memory->handed_over++;
	int r = sink->layer(sink->arg, memory->blind ? NULL : &expected, &tar, &found, error);
	if (r == 0)
		assert_true(digest_equal(&found, &memory->diff_ids[number]));
	return r;
}

static void fill_content(const MemorySource *memory, ImageContent *content)
{
	*content = (ImageContent){ .config = strdup(config),
				   .config_size = strlen(config),
				   .diff_ids = malloc(sizeof(memory->diff_ids)),
				   .layer_count = LAYERS,
				   .names = calloc(4, sizeof(char *)) };
	assert_non_null(content->config);
	assert_non_null(content->diff_ids);
	assert_non_null(content->names);
	memcpy(content->diff_ids, memory->diff_ids, sizeof(memory->diff_ids));
	while (content->name_count < 4 && memory->names[content->name_count]) {
		content->names[content->name_count] = strdup(memory->names[content->name_count]);
		assert_non_null(content->names[content->name_count++]);
	}
}

static int memory_transfer(ImageSource *source, const ImageSink *sink, ImageContent *ret_content, Error *error)
{
	MemorySource *memory = (MemorySource *)source;
	ImageContent content;
	int r = 0;
	fill_content(memory, &content);
	if (!memory->blind)
		r = sink->begin(sink->arg, &content, error);
	for (size_t i = 0; i < LAYERS && r == 0; i++)
		r = hand_over(memory, sink, i, error);
	if (r == 0 && memory->blind)
		r = sink->begin(sink->arg, &content, error);
	if (r < 0) {
		image_content_done(&content);
		return r;
	}
	sink->progress(sink->arg, 10, 20);
	*ret_content = content;
	return 0;
}

/* Layers of `parts` parts each, whose seeds start at `seed`. */
static void memory_make(MemorySource *memory, uint32_t seed)
{
	*memory = (MemorySource){ .source = { .transfer = memory_transfer }, .names = { "whisk/invoker:v1" } };
	for (uint32_t i = 0; i < LAYERS; i++) {
		uint32_t seeds[] = { 10 * i, 10 * i + seed };
		store_fixture_tar(&memory->layers[i], seeds, 2);
		assert_int_equal(digest_of(memory->layers[i].data, memory->layers[i].size, &memory->diff_ids[i]), 0);
	}
}

static void memory_done(MemorySource *memory)
{
	for (size_t i = 0; i < LAYERS; i++)
		buffer_done(&memory->layers[i]);
}

static void export_to(StoreFixture *fixture, MemorySource *memory, const ExportOptions *options, ExportResult *result)
{
	Error error = { 0 };
	memory->handed_over = 0;
	int r = export_image(&memory->source, fixture->store, options, result, &error);
	if (r < 0)
		fail_msg("export: %s", error_text(&error, r));
	assert_int_equal(store_fixture_count(fixture, "tmp"), 0);
}

static void expect_error(StoreFixture *fixture, MemorySource *memory, const ExportOptions *options, int code,
			 const char *words)
{
	Error error = { 0 };
	ExportResult result;
	memory->handed_over = 0;
	assert_int_equal(export_image(&memory->source, fixture->store, options, &result, &error), code);
	if (!strstr(error.message, words))
		fail_msg("\"%s\" does not say \"%s\"", error.message, words);
	assert_int_equal(store_fixture_count(fixture, "tmp"), 0);
	assert_int_equal(store_fixture_count(fixture, "repositories"), 0);
}

/* What the tag leads to is the image, all of it. */
static void expect_published(StoreFixture *fixture, const MemorySource *memory, const char *name, const char *tag,
			     const ExportResult *result)
{
	_cleanup_free_ char *json = NULL;
	size_t size;
	uint64_t blob_size;
	Manifest manifest;
	Digest digest;
	Error error = { 0 };
	char text[64] = "";
	int fd = -1;
	assert_int_equal(store_tag_get(fixture->store, name, tag, &json, &size), 0);
	assert_int_equal(digest_of(json, size, &digest), 0);
	assert_true(digest_equal(&digest, &result->manifest));
	assert_int_equal(store_blob_open(fixture->store, &digest, &fd, &blob_size), 0);
	assert_int_equal(blob_size, size);
	(void)close(fd);

	assert_int_equal(manifest_parse(json, size, &manifest, &error), 0);
	assert_true(digest_equal(&manifest.config, &result->config));
	assert_int_equal(store_blob_open(fixture->store, &manifest.config, &fd, &blob_size), 0);
	assert_int_equal(blob_size, strlen(config));
	assert_int_equal(fd_pread_all(fd, text, strlen(config), 0), 0);
	assert_string_equal(text, config);
	(void)close(fd);

	assert_int_equal(manifest.layer_count, LAYERS);
	for (size_t i = 0; i < LAYERS; i++) {
		ManifestLayer layer;
		assert_true(digest_equal(&manifest.layers[i].diff_id, &memory->diff_ids[i]));
		assert_int_equal(manifest.layers[i].tar_size, memory->layers[i].size);
		assert_int_equal(store_layer_get(fixture->store, &memory->diff_ids[i], &layer, &error), 0);
		assert_memory_equal(&layer, &manifest.layers[i], sizeof(layer));
		assert_int_equal(store_blob_open(fixture->store, &layer.blob, &fd, &blob_size), 0);
		assert_int_equal(blob_size, layer.blob_size);
		(void)close(fd);
	}
	manifest_done(&manifest);
}

static void on_progress(void *arg, uint64_t done, uint64_t total)
{
	assert_int_equal(done, 10);
	assert_int_equal(total, 20);
	++*(int *)arg;
}

static void test_export(void **state _unused_)
{
	for (int blind = 0; blind < 2; blind++) {
		StoreFixture fixture;
		MemorySource memory;
		ExportResult first, second;
		int progress = 0;
		ExportOptions options = { .progress = on_progress, .arg = &progress };
		store_fixture_open(&fixture);
		memory_make(&memory, 1);
		memory.blind = blind;
		export_to(&fixture, &memory, &options, &first);
		expect_published(&fixture, &memory, "whisk/invoker", "v1", &first);
		assert_int_equal(progress, 1);
		assert_int_equal(first.layers_new, LAYERS);
		assert_int_equal(first.layer_count, LAYERS);
		assert_int_equal(first.chunks_reused, 0);
		assert_true(first.stored_size > first.tar_size / 2);
		assert_int_equal(first.tar_size, memory.layers[0].size + memory.layers[1].size);

		/* The second time all is there. */
		options.tag = "other:v2";
		export_to(&fixture, &memory, &options, &second);
		expect_published(&fixture, &memory, "other", "v2", &second);
		assert_true(digest_equal(&first.manifest, &second.manifest));
		assert_int_equal(second.layers_new, 0);
		assert_int_equal(second.stored_size, 0);
		assert_int_equal(memory.handed_over, blind ? LAYERS : 0);
		export_result_done(&first);
		export_result_done(&second);
		memory_done(&memory);
		store_fixture_close(&fixture);
	}
}

/* A new version takes the frames of the old one's that it shares with it; or none, where it must not. */
static void test_frame_reuse(void **state _unused_)
{
	for (int reproducible = 0; reproducible < 2; reproducible++) {
		StoreFixture fixture, empty;
		MemorySource one, two;
		ExportResult first, second, alone;
		ExportOptions options = { .reproducible = reproducible };
		store_fixture_open(&fixture);
		store_fixture_open(&empty);
		memory_make(&one, 1);
		memory_make(&two, 2);
		export_to(&fixture, &one, &options, &first);
		store_fixture_reopen(&fixture);
		export_to(&fixture, &two, &options, &second);
		expect_published(&fixture, &two, "whisk/invoker", "v1", &second);
		if (reproducible)
			assert_int_equal(second.chunks_reused, 0);
		else
			assert_true(second.chunks_reused > second.chunk_count / 4 &&
				    second.chunks_reused < second.chunk_count);

		/* With one level there is one frame for a content, so that reuse does not show. */
		export_to(&empty, &two, &options, &alone);
		assert_true(digest_equal(&alone.manifest, &second.manifest));
		export_result_done(&first);
		export_result_done(&second);
		export_result_done(&alone);
		memory_done(&one);
		memory_done(&two);
		store_fixture_close(&fixture);
		store_fixture_close(&empty);
	}
}

/* A frame that rotted in the store is not taken. */
static void test_rotten_frame(void **state _unused_)
{
	StoreFixture fixture, empty;
	MemorySource one, two;
	ExportResult first, second, alone;
	ExportOptions options = { 0 };
	ManifestLayer layer;
	Error error = { 0 };
	char name[128], hex[DIGEST_HEX_SIZE];
	store_fixture_open(&fixture);
	store_fixture_open(&empty);
	memory_make(&one, 1);
	memory_make(&two, 2);
	export_to(&fixture, &one, &options, &first);
	for (size_t i = 0; i < LAYERS; i++) {
		assert_int_equal(store_layer_get(fixture.store, &one.diff_ids[i], &layer, &error), 0);
		(void)snprintf(name, sizeof(name), "blobs/sha256/%s", digest_hex(&layer.blob, hex));
		_cleanup_fclose_ FILE *blob = fopen(store_fixture_path(&fixture, name), "r+e");
		assert_non_null(blob);
		for (uint64_t at = 0; at < layer.index_offset; at++)
			assert_int_equal(fputc(0, blob), 0);
	}
	store_fixture_reopen(&fixture);
	export_to(&fixture, &two, &options, &second);
	assert_int_equal(second.chunks_reused, 0);
	export_to(&empty, &two, &options, &alone);
	assert_true(digest_equal(&alone.manifest, &second.manifest));
	export_result_done(&first);
	export_result_done(&second);
	export_result_done(&alone);
	memory_done(&one);
	memory_done(&two);
	store_fixture_close(&fixture);
	store_fixture_close(&empty);
}

/* A blob that is gone, or cut short, or whose record is damaged, is written anew. */
static void test_healing(void **state _unused_)
{
	StoreFixture fixture;
	MemorySource memory;
	ExportResult result;
	ExportOptions options = { 0 };
	ManifestLayer layer;
	Error error = { 0 };
	char blob[128], record[128], hex[DIGEST_HEX_SIZE];
	store_fixture_open(&fixture);
	memory_make(&memory, 1);
	export_to(&fixture, &memory, &options, &result);
	export_result_done(&result);
	assert_int_equal(store_layer_get(fixture.store, &memory.diff_ids[1], &layer, &error), 0);
	(void)snprintf(blob, sizeof(blob), "blobs/sha256/%s", digest_hex(&layer.blob, hex));
	(void)snprintf(record, sizeof(record), "layers/%s", digest_hex(&memory.diff_ids[1], hex));
	for (int damage = 0; damage < 3; damage++) {
		if (damage == 0)
			assert_int_equal(unlink(store_fixture_path(&fixture, blob)), 0);
		else if (damage == 1)
			assert_int_equal(truncate(store_fixture_path(&fixture, blob), 1000), 0);
		else
			store_fixture_write(&fixture, record, "{", 1);
		store_fixture_reopen(&fixture);
		export_to(&fixture, &memory, &options, &result);
		expect_published(&fixture, &memory, "whisk/invoker", "v1", &result);
		assert_int_equal(memory.handed_over, 1);
		assert_int_equal(result.layers_new, 1);
		export_result_done(&result);
	}
	memory_done(&memory);
	store_fixture_close(&fixture);
}

static void test_wrong_layer(void **state _unused_)
{
	StoreFixture fixture;
	MemorySource memory;
	ExportOptions options = { 0 };
	store_fixture_open(&fixture);
	memory_make(&memory, 1);
	memory.wrong = 2;
	expect_error(&fixture, &memory, &options, -EKEYREJECTED, "");
	/* The good layer stays, for the next try; nothing names it. */
	assert_int_equal(store_fixture_count(&fixture, "layers"), 1);
	assert_int_equal(store_fixture_count(&fixture, "blobs/sha256"), 1);
	memory_done(&memory);
	store_fixture_close(&fixture);
}

static void test_corrupt_tar(void **state _unused_)
{
	StoreFixture fixture;
	MemorySource memory;
	ExportOptions options = { 0 };
	store_fixture_open(&fixture);
	memory_make(&memory, 1);
	memory.blind = true;
	memory.layers[0].data[5] ^= 1;
	expect_error(&fixture, &memory, &options, -EBADMSG, "");
	assert_int_equal(store_fixture_count(&fixture, "layers"), 0);
	memory_done(&memory);
	store_fixture_close(&fixture);
}

/* Layer 2 becomes a hard link to `target`, and `whiteout` where that is not NULL. */
static void make_link(MemorySource *memory, const char *target, const char *whiteout)
{
	Buffer *tar = &memory->layers[1];
	buffer_done(tar);
	tar_link(tar, "link", '1', target);
	if (whiteout)
		tar_file(tar, whiteout, "", 0);
	tar_end(tar);
	assert_int_equal(digest_of(tar->data, tar->size, &memory->diff_ids[1]), 0);
}

/* A hard link may lead to a layer below, but not to where none is; whoever mounts such an image would be told too late. */
static void test_lower_link(void **state _unused_)
{
	StoreFixture fixture;
	MemorySource memory, other;
	ExportResult result;
	ExportOptions options = { 0 };
	store_fixture_open(&fixture);
	memory_make(&memory, 1);
	make_link(&memory, "gone", NULL);
	for (int again = 0; again < 2; again++) {
		expect_error(&fixture, &memory, &options, -EBADMSG, "layer 2 holds a hard link to \"gone\"");
		/* The layers stay, for an image where the link leads somewhere; nothing names them. */
		assert_int_equal(store_fixture_count(&fixture, "layers"), 2);
		assert_int_equal(memory.handed_over, again ? 0 : 2);
	}
	/* A whiteout hides what is below its layer, whose own links lead there all the same. */
	make_link(&memory, "large-0", ".wh.large-0");
	export_to(&fixture, &memory, &options, &result);
	expect_published(&fixture, &memory, "whisk/invoker", "v1", &result);
	export_result_done(&result);

	/* The same layer over another one, that lacks what it links to. */
	store_fixture_close(&fixture);
	store_fixture_open(&fixture);
	memory_make(&other, 1);
	make_link(&other, "large-0", ".wh.large-0");
	buffer_done(&other.layers[0]);
	tar_end(&other.layers[0]);
	assert_int_equal(digest_of(other.layers[0].data, other.layers[0].size, &other.diff_ids[0]), 0);
	expect_error(&fixture, &other, &options, -EBADMSG, "layer 2 holds a hard link to \"large-0\"");
	export_to(&fixture, &memory, &options, &result);
	assert_int_equal(memory.handed_over, 1);
	export_result_done(&result);
	memory_done(&memory);
	memory_done(&other);
	store_fixture_close(&fixture);
}

static void test_names(void **state _unused_)
{
	StoreFixture fixture;
	MemorySource memory;
	ExportOptions options = { .tag = "UPPER" };
	ExportResult result;
	store_fixture_open(&fixture);
	memory_make(&memory, 1);
	/* A bad name is told before anything is read. */
	expect_error(&fixture, &memory, &options, -EINVAL, "--tag UPPER");
	assert_int_equal(memory.handed_over, 0);
	options.tag = NULL;
	memory.names[0] = NULL;
	expect_error(&fixture, &memory, &options, -EINVAL, "--tag NAME:TAG");
	assert_int_equal(memory.handed_over, 0);
	memory.names[0] = "localhost:5000/whisk/invoker:v1";
	memory.names[1] = "docker.io/library/plain";
	export_to(&fixture, &memory, &options, &result);
	expect_published(&fixture, &memory, "whisk/invoker", "v1", &result);
	expect_published(&fixture, &memory, "plain", "latest", &result);
	export_result_done(&result);
	memory_done(&memory);
	store_fixture_close(&fixture);
}

static void expect_tags(char *const *names, size_t count, const char *wanted, const char *given)
{
	ExportTag *tags;
	size_t tag_count;
	Error error = { 0 };
	char text[512] = "";
	assert_int_equal(export_tags_choose(NULL, names, count, &tags, &tag_count, &error), 0);
	for (size_t i = 0; i < tag_count; i++) {
		strcat(strcat(strcat(strcat(text, tags[i].name), ":"), tags[i].tag), " ");
		if (given && i == 0)
			assert_string_equal(tags[i].given, given);
		else if (i == 0)
			assert_null(tags[i].given);
	}
	assert_string_equal(text, wanted);
	export_tags_free(tags, tag_count);
}

static void test_tag_choice(void **state _unused_)
{
	char *plain[] = { (char[]){ "a/b:1" } };
	char *host[] = { (char[]){ "build:5000/a/b:1" } };
	char *hub[] = { (char[]){ "docker.io/a/b:1" } };
	char *named[] = { (char[]){ "quay.io/a/b:1" } };
	char *same[] = { (char[]){ "build:5000/a:1" }, (char[]){ "a:1" }, (char[]){ "b" } };
	char *some[] = { (char[]){ "<none>:<none>" }, (char[]){ "a:1" } };
	expect_tags(plain, 1, "a/b:1 ", NULL);
	expect_tags(host, 1, "a/b:1 ", "build:5000/a/b:1");
	expect_tags(hub, 1, "a/b:1 ", NULL);
	expect_tags(named, 1, "quay.io/a/b:1 ", NULL);
	expect_tags(same, 3, "a:1 b:latest ", "build:5000/a:1");
	expect_tags(some, 2, "a:1 ", NULL);

	ExportTag *tags = NULL;
	size_t count = 0;
	Error error = { 0 };
	assert_int_equal(export_tags_choose(NULL, some, 1, &tags, &count, &error), -EINVAL);
	assert_non_null(strstr(error.message, "<none>:<none>"));
	assert_int_equal(
		export_tags_choose("a:1@sha256:0000000000000000000000000000000000000000000000000000000000000000", NULL,
				   0, &tags, &count, &error),
		-EINVAL);
	assert_non_null(strstr(error.message, "digest"));
	assert_null(tags);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_export),       cmocka_unit_test(test_frame_reuse),
		cmocka_unit_test(test_rotten_frame), cmocka_unit_test(test_healing),
		cmocka_unit_test(test_wrong_layer),  cmocka_unit_test(test_corrupt_tar),
		cmocka_unit_test(test_lower_link),   cmocka_unit_test(test_names),
		cmocka_unit_test(test_tag_choice),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
