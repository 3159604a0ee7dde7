#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "fs/base/fd.h"
#include "fs/format/blob.h"
#include "fs/format/tree.h"
#include "tools/export/image-verify-private.h"
#include "tools/export/layer-stream.h"
#include "tools/export/store-private.h"

/* What the hooks of a layer's stream need. */
typedef struct Reading {
	Verify *verify;
	const ManifestLayer *layer;
} Reading;

static void on_chunk_fault(void *arg, uint32_t number, const Chunk *chunk, const char *what)
{
	const Reading *reading = arg;
	verify_report(reading->verify, (VerifyFault){ .object = &reading->layer->blob,
						      .diff_id = &reading->layer->diff_id,
						      .what = what,
						      .chunk = number,
						      .offset = chunk->blob_offset });
}

static void on_progress(void *arg, uint64_t bytes)
{
	const Reading *reading = arg;
	const VerifyHooks *hooks = reading->verify->hooks;
	if (hooks->progress)
		hooks->progress(hooks->arg, bytes);
}

/* Everything of a blob but index and footer. A rotten frame makes blob and tar wrong as well, which is not told then. */
static int verify_content(Verify *verify, const LayerReader *reader, bool blob_wrong, Error *error)
{
	Reading reading = { .verify = verify, .layer = &reader->layer };
	LayerStreamHooks hooks = { .fault = on_chunk_fault, .progress = on_progress, .arg = &reading };
	LayerStreamResult result;
	uint64_t before = verify->counts.faults;
	Error wrong = { 0 };
	int r = layer_stream(reader, &hooks, !blob_wrong, &result, &wrong);
	if (r == -ENOMEM || r == -EAGAIN)
		return error_set(error, r, "%s", error_text(&wrong, r));
	if (r < 0) {
		verify_report_layer(verify, &reader->layer, error_text(&wrong, r));
		return 0;
	}
	verify->counts.layers++;
	verify->counts.chunks += reader->chunks.count;
	verify->counts.blob_bytes += reader->layer.blob_size;
	verify->counts.tar_bytes += reader->layer.tar_size;
	if (verify->counts.faults > before)
		return 0;
	if (!digest_equal(&result.tar, &reader->layer.diff_id))
		verify_report_layer(verify, &reader->layer,
				    "it does not yield the layer: the tar's SHA-256 is not the diffID");
	if (!blob_wrong && !digest_equal(&result.blob, &reader->layer.blob))
		verify_report_layer(verify, &reader->layer, "the SHA-256 of the blob is another");
	return 0;
}

/* The footer must say what the manifest says. Returns whether it does, having reported if not. */
static bool verify_footer(Verify *verify, const LayerReader *reader)
{
	const ManifestLayer *layer = &reader->layer;
	uint8_t bytes[FORMAT_FOOTER_SIZE];
	BlobFooter footer;
	Error error = { 0 };
	int r = fd_pread_all(reader->fd, bytes, sizeof(bytes), layer->blob_size - sizeof(bytes));
	if (r == 0)
		r = blob_footer_decode(bytes, layer->blob_size, &footer, &error);
	if (r < 0) {
		verify_report_layer(verify, layer, error_text(&error, r));
		return false;
	}
	bool same = footer.tar_size == layer->tar_size && footer.index_offset == layer->index_offset &&
		    footer.index_size == layer->index_size && footer.chunk_count == reader->chunks.count &&
		    digest_equal(&footer.index_digest, &layer->index) && digest_equal(&footer.diff_id, &layer->diff_id);
	if (!same)
		verify_report_layer(verify, layer, "its footer contradicts the manifest");
	return same;
}

/*
 * The list of frames is but a hint for exports, which check what they take: only its length is held against the blob. A list of an older
 * build is longer, and no frame is found by it.
 */
static void verify_frame_list(Verify *verify, const LayerReader *reader)
{
	char path[STORE_PATH_SIZE], hex[DIGEST_HEX_SIZE];
	_cleanup_free_ char *list = NULL;
	size_t size, count = reader->chunks.count;
	(void)snprintf(path, sizeof(path), "frames/%s", digest_hex(&reader->layer.blob, hex));
	int r = fd_read_file(verify->store->fd, path, count * STORE_FRAME_OLD_KEY_SIZE, &list, &size);
	if (r == -ENOMEM ||
	    (r == 0 && (size == count * STORE_FRAME_KEY_SIZE || size == count * STORE_FRAME_OLD_KEY_SIZE)))
		return;
	verify_report_layer(verify, &reader->layer,
			    r == -ENOENT ? "its list of frames is missing, so that exports cannot reuse them"
					 : "its list of frames is of another length than its chunk table");
}

static int verify_blob(Verify *verify, const ManifestLayer *layer, Error *error)
{
	_cleanup_(layer_reader_free_p) LayerReader *reader = NULL;
	Error wrong = { 0 };
	Tree tree;
	int r = layer_reader_open(verify->store, layer, &reader, &wrong);
	if (r == 0)
		r = tree_open(&reader->image, &tree, &wrong);
	if (r == -ENOMEM)
		return error_set(error, r, "out of memory to verify a layer");
	if (r < 0) {
		verify_report_layer(verify, layer, error_text(&wrong, r));
		return 0;
	}
	/* Behind a rotten footer the blob's digest is wrong for certain. */
	bool blob_wrong = !verify_footer(verify, reader);
	verify_frame_list(verify, reader);
	return verify_content(verify, reader, blob_wrong, error);
}

static bool same_layer(const ManifestLayer *left, const ManifestLayer *right)
{
	return digest_equal(&left->diff_id, &right->diff_id) && left->tar_size == right->tar_size &&
	       digest_equal(&left->blob, &right->blob) && left->blob_size == right->blob_size &&
	       left->index_offset == right->index_offset && left->index_size == right->index_size &&
	       digest_equal(&left->index, &right->index);
}

static bool was_seen(const Verify *verify, const ManifestLayer *layer)
{
	for (size_t i = 0; i < verify->seen_count; i++) {
		if (same_layer(&verify->seen[i], layer))
			return true;
	}
	return false;
}

static int remember(Verify *verify, const ManifestLayer *layer)
{
	if (verify->seen_count == verify->seen_capacity) {
		size_t capacity = verify->seen_capacity ? 2 * verify->seen_capacity : 32;
		ManifestLayer *seen = reallocarray(verify->seen, capacity, sizeof(*seen));
		if (!seen)
			return -ENOMEM;
		verify->seen = seen;
		verify->seen_capacity = capacity;
	}
	verify->seen[verify->seen_count++] = *layer;
	return 0;
}

/* Servers find a layer's tar by its record, exports find the layer by it. */
static int verify_record(Verify *verify, const ManifestLayer *layer, Error *error)
{
	ManifestLayer record;
	Error wrong = { 0 };
	int r = store_layer_get(verify->store, &layer->diff_id, &record, &wrong);
	if (r < 0) {
		verify_report_layer(verify, layer, error_text(&wrong, r));
		return r == -ENOMEM ? r : 0;
	}
	if (same_layer(&record, layer))
		return 0;
	if (digest_equal(&record.blob, &layer->blob)) {
		verify_report_layer(verify, layer, "the layer's record contradicts the manifest");
		return 0;
	}
	/* Another export wrote the layer anew; that blob has to be good as well. */
	return was_seen(verify, &record) ? 0 : remember(verify, &record) ?: verify_blob(verify, &record, error);
}

int verify_layer(Verify *verify, const ManifestLayer *layer, Error *error)
{
	if (was_seen(verify, layer)) {
		if (verify->hooks->progress)
			verify->hooks->progress(verify->hooks->arg, layer->blob_size);
		return 0;
	}
	int r = remember(verify, layer);
	if (r == 0)
		r = verify_record(verify, layer, error);
	return r == 0 ? verify_blob(verify, layer, error) : r;
}
