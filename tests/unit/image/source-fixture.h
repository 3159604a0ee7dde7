/* Images made by hand, the forms sources come in, and a sink that remembers what it was handed. Whatever fails here fails the test. */
#pragma once

#include "fs/format/buffer.h"
#include "tools/image/image-source.h"

#define FAKE_LAYERS_MAX 4

/* An image of a few layers. The layers' content depends on `salt` and their number; layer 1 is larger than what a stream keeps in memory. */
typedef struct FakeImage {
	size_t count;
	Buffer layers[FAKE_LAYERS_MAX];
	Digest diff_ids[FAKE_LAYERS_MAX];
	char *config;
	Digest config_digest;
} FakeImage;

void fake_image_make(FakeImage *image, size_t count, const char *salt);
void fake_image_done(FakeImage *image);

/* The docker archives there are. */
typedef enum FakeForm {
	FAKE_OLD,    /* docker up to 24: <id>/layer.tar, <hash>.json */
	FAKE_NEW,    /* docker from 25: blobs/sha256/<hash> */
	FAKE_SKOPEO, /* <hash>.tar, and <id>/layer.tar as links to them, which manifest.json names */
	FAKE_KANIKO, /* <hash>.tar.gz, sha256:<hash> */
	FAKE_FORMS,
} FakeForm;

/* Appends an image's members, without manifest.json and end. */
void fake_archive_members(Buffer *archive, const FakeImage *image, FakeForm form);

/* The image's object in manifest.json; malloc'ed. `tag` may be NULL. */
char *fake_manifest_object(const FakeImage *image, FakeForm form, const char *tag);

/* A whole archive of one image. */
void fake_archive(Buffer *archive, const FakeImage *image, FakeForm form, const char *tag);

/* Appends manifest.json with these bytes, and the end marker. */
void fake_archive_end(Buffer *archive, const char *manifest_json);

void fake_gzip(const void *data, size_t size, Buffer *ret_packed);
void fake_zstd(const void *data, size_t size, Buffer *ret_packed);

/* What a sink saw. */
typedef struct FakeSink {
	ImageSink sink;
	Digest layers[16]; /* handed over, in this order */
	size_t layer_count;
	size_t begun;           /* calls of begin() */
	size_t layers_at_begin; /* layers handed over by then */
	const Digest *has;      /* layers it says are there */
	size_t has_count;
	int fail;      /* layer() returns this, unless 0 */
	uint64_t done; /* last progress */
	uint64_t total;
	unsigned notices;
	bool expected_all; /* each layer came with the diffID it should have */
} FakeSink;

void fake_sink_init(FakeSink *sink);

/* A directory for a test's files, gone with fake_directory_remove(); both paths are static until the next call. */
const char *fake_directory_make(void);
void fake_directory_remove(const char *path);

/* Writes a file below a directory, making directories on the way. */
void fake_file(const char *directory, const char *name, const void *data, size_t size);

/* Transfers and compares all that came with `image`. */
void fake_expect_image(ImageSource *source, FakeSink *sink, const FakeImage *image);

/* Transfers and expects this error, with a sentence that holds `words`. */
void fake_expect_error(ImageSource *source, FakeSink *sink, int code, const char *words);
