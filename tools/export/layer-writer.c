#include "tools/export/layer-writer.h"

#include <string.h>

#include "fs/format/chunker.h"
#include "tools/export/layer-blob.h"
#include "tools/export/layer-tree.h"
#include "tools/export/tar-reader.h"

#define WINDOW_SIZE (2u << 20)   /* grows for an entry with huge headers only: the reader limits those */
#define READ_SIZE   (256u << 10) /* small enough to be hashed, parsed and cut while it is in the processor's cache */

/*
 * The tar goes through a window that holds what is not cut off yet. `start`, `fed` and `filled` are places in the
 * window: where the current chunk begins, what the reader has seen, what is there.
 */
typedef struct Writer {
	const LayerSource *source;
	const LayerOptions *options;
	TarReader *reader;
	LayerTree *tree;
	LayerBlob *blob;
	DigestState *diff;
	uint8_t *window;
	size_t capacity;
	size_t start, fed, filled;
	uint64_t window_offset; /* of the window in the tar */
	bool ended;             /* the source has no more */

	const TarEntry *entry;
	uint64_t data_left; /* of the entry, to be fed */
	bool large;         /* its data makes chunks of its own */
	uint64_t entry_count;
	uint8_t small[FORMAT_LARGE_FILE]; /* content that wants a digest */
	size_t small_filled;
	Error *error;
} Writer;

void layer_result_done(LayerResult *result)
{
	free(result->contents);
	*result = (LayerResult){ 0 };
}

static void writer_done(Writer *writer)
{
	layer_blob_free(writer->blob);
	layer_tree_free(writer->tree);
	tar_reader_free(writer->reader);
	digest_state_free(writer->diff);
	free(writer->window);
}

static int writer_init(Writer *writer, int fd)
{
	writer->capacity = WINDOW_SIZE;
	writer->window = malloc(writer->capacity);
	if (!writer->window)
		return -ENOMEM;
	int r = tar_reader_new(&writer->reader);
	if (r == 0)
		r = layer_tree_new(&writer->tree);
	if (r == 0)
		r = digest_state_new(&writer->diff);
	if (r == 0)
		r = layer_blob_new(writer->options, fd, &writer->blob, writer->error);
	if (r < 0)
		return r;
	writer->entry = tar_reader_entry(writer->reader);
	return 0;
}

/* Makes room for another read, at best by dropping what was cut off. */
static int make_room(Writer *writer)
{
	if (writer->capacity - writer->filled >= READ_SIZE)
		return 0;
	memmove(writer->window, writer->window + writer->start, writer->filled - writer->start);
	writer->window_offset += writer->start;
	writer->filled -= writer->start;
	writer->fed -= writer->start;
	writer->start = 0;
	if (writer->capacity - writer->filled >= READ_SIZE)
		return 0;
	uint8_t *window = realloc(writer->window, 2 * writer->capacity);
	if (!window)
		return -ENOMEM;
	writer->window = window;
	writer->capacity *= 2;
	return 0;
}

static int read_more(Writer *writer)
{
	int r = make_room(writer);
	if (r < 0)
		return r;
	uint8_t *to = writer->window + writer->filled;
	ssize_t count = writer->source->read(writer->source->arg, to, READ_SIZE, writer->error);
	if (count < 0)
		return (int)count;
	if (count == 0) {
		writer->ended = true;
		return 0;
	}
	writer->filled += (size_t)count;
	r = digest_state_add(writer->diff, to, (size_t)count);
	if (r == 0 && writer->options->progress)
		writer->options->progress(writer->options->progress_arg, writer->window_offset + writer->filled);
	return r;
}

/* Ends the current chunk after `size` bytes. */
static int cut(Writer *writer, size_t size)
{
	int r = layer_blob_add(writer->blob, writer->window + writer->start, size, writer->error);
	writer->start += size;
	return r;
}

/* Cuts a run that has reached its greatest length. */
static int cut_run(Writer *writer)
{
	int r = 0;
	while (r == 0 && writer->fed - writer->start >= FORMAT_CHUNK_MAX)
		r = cut(writer, FORMAT_CHUNK_MAX);
	return r;
}

/* Cuts data of a large entry where its chunk's end is certain. */
static int cut_data(Writer *writer)
{
	int r = 0;
	for (;;) {
		size_t size = writer->fed - writer->start;
		if (r < 0 || size == 0 || (size < FORMAT_CHUNK_MAX && writer->data_left > 0))
			return r;
		r = cut(writer, chunker_cut(writer->window + writer->start, size, writer->data_left == 0));
	}
}

/* An entry is complete with its data. */
static int add_entry(Writer *writer)
{
	Digest content;
	bool wanted = layer_tree_wants_digest(writer->entry);
	int r = wanted ? digest_of(writer->small, writer->small_filled, &content) : 0;
	if (r < 0)
		return r;
	writer->entry_count++;
	return layer_tree_add(writer->tree, writer->entry, wanted ? &content : NULL, writer->error);
}

/* An entry's headers have passed: the run may end in front of them, and ends behind them if its data is large. */
static int begin_entry(Writer *writer)
{
	const TarEntry *entry = writer->entry;
	writer->large = entry->data_size >= FORMAT_LARGE_FILE;
	writer->data_left = entry->data_size;
	writer->small_filled = 0;
	uint64_t headers = entry->data_offset - entry->header_offset;
	size_t run = (size_t)(entry->header_offset - writer->window_offset) - writer->start;
	int r = 0;
	if (chunker_run_ends(run, headers + (writer->large ? 0 : entry->data_size), entry->name, entry->name_size))
		r = cut(writer, run);
	if (r == 0)
		r = cut_run(writer);
	if (r == 0 && writer->large && writer->fed > writer->start)
		r = cut(writer, writer->fed - writer->start);
	if (r == 0 && entry->data_size == 0)
		r = add_entry(writer);
	return r;
}

static int take_data(Writer *writer, const uint8_t *bytes, size_t size)
{
	writer->data_left -= size;
	if (!writer->large && layer_tree_wants_digest(writer->entry)) {
		memcpy(writer->small + writer->small_filled, bytes, size);
		writer->small_filled += size;
	}
	int r = writer->large ? cut_data(writer) : cut_run(writer);
	return r < 0 || writer->data_left > 0 ? r : add_entry(writer);
}

static int feed(Writer *writer)
{
	size_t count = 0;
	TarPiece piece = TAR_OTHER;
	const uint8_t *bytes = writer->window + writer->fed;
	int r = tar_reader_feed(writer->reader, bytes, writer->filled - writer->fed, &count, &piece, writer->error);
	if (r < 0)
		return r;
	writer->fed += count;
	switch (piece) {
	case TAR_HEADER:
		/* Where the run ends is known only when the entry is. */
		return 0;
	case TAR_ENTRY:
		return begin_entry(writer);
	case TAR_DATA:
		return take_data(writer, bytes, count);
	case TAR_OTHER:
		break;
	}
	return cut_run(writer);
}

static int read_tar(Writer *writer)
{
	for (;;) {
		int r = 0;
		/* The reader wants to see that much, unless there is no more. */
		while (r == 0 && !writer->ended && writer->filled - writer->fed < TAR_LOOKAHEAD)
			r = read_more(writer);
		if (r < 0)
			return r;
		if (writer->fed == writer->filled)
			break;
		r = feed(writer);
		if (r < 0)
			return r;
	}
	int r = tar_reader_end(writer->reader, writer->error);
	if (r == 0)
		r = cut_run(writer);
	if (r == 0 && writer->fed > writer->start)
		r = cut(writer, writer->fed - writer->start);
	return r;
}

static int check_diff_id(const Writer *writer, const Digest *diff_id)
{
	char found[DIGEST_TEXT_SIZE], wanted[DIGEST_TEXT_SIZE];
	if (!writer->options->diff_id || digest_equal(diff_id, writer->options->diff_id))
		return 0;
	return error_set(writer->error, -EKEYREJECTED,
			 "the layer's tar has digest %s where the image names %s; pull or build the image again",
			 digest_text(diff_id, found), digest_text(writer->options->diff_id, wanted));
}

struct LayerDraft {
	LayerBlob *blob;
	uint64_t entry_count;
};

LayerDraft *layer_draft_free(LayerDraft *draft)
{
	if (draft) {
		layer_blob_free(draft->blob);
		free(draft);
	}
	return NULL;
}

/* From the source to a blob that lacks its index only. */
static int read_layer(Writer *writer, int fd, Digest *ret_diff_id)
{
	Digest diff_id;
	int r = writer_init(writer, fd);
	if (r == 0)
		r = read_tar(writer);
	if (r == 0)
		r = digest_state_end(writer->diff, &diff_id);
	if (r == 0)
		r = check_diff_id(writer, &diff_id);
	if (r == 0)
		r = layer_blob_seal(writer->blob, writer->tree, &diff_id, writer->window_offset + writer->filled,
				    writer->error);
	if (r == 0)
		*ret_diff_id = diff_id;
	return r;
}

int layer_read(const LayerSource *source, const LayerOptions *options, int blob_fd, LayerDraft **ret_draft,
	       Digest *ret_diff_id, Error *error)
{
	_cleanup_(layer_draft_free_p) LayerDraft *draft = calloc(1, sizeof(*draft));
	_cleanup_free_ Writer *writer = calloc(1, sizeof(*writer));
	if (!draft || !writer)
		return -ENOMEM;
	writer->source = source;
	writer->options = options;
	writer->error = error;
	int r = read_layer(writer, blob_fd, ret_diff_id);
	if (r == 0) {
		draft->blob = TAKE_PTR(writer->blob);
		draft->entry_count = writer->entry_count;
		*ret_draft = TAKE_PTR(draft);
	}
	writer_done(writer);
	return r;
}

int layer_finish(LayerDraft *draft, LayerResult *ret_result, Error *error)
{
	int r = layer_blob_finish(draft->blob, ret_result, error);
	if (r == 0)
		ret_result->entry_count = draft->entry_count;
	return r;
}

int layer_write(const LayerSource *source, const LayerOptions *options, int blob_fd, LayerResult *ret_result,
		Error *error)
{
	_cleanup_(layer_draft_free_p) LayerDraft *draft = NULL;
	Digest diff_id;
	int r = layer_read(source, options, blob_fd, &draft, &diff_id, error);
	return r < 0 ? r : layer_finish(draft, ret_result, error);
}
