#include "tools/image/image-archive.h"

#include <string.h>

#define BUFFER_SIZE (256u << 10)
#define SKIP_MIN    (1u << 20) /* less than this is read rather than passed over */

struct ImageArchive {
	ImageArchiveInput input;
	TarReader *reader;
	uint64_t data_left; /* of the current member */
	bool ended;
	size_t used, filled;
	uint8_t buffer[BUFFER_SIZE]; /* [used, filled) was read and not yet fed */
};

int image_archive_new(const ImageArchiveInput *input, ImageArchive **ret_archive)
{
	_cleanup_(image_archive_free_p) ImageArchive *archive = calloc(1, sizeof(*archive));
	if (!archive)
		return -ENOMEM;
	archive->input = *input;
	int r = tar_reader_new(&archive->reader);
	if (r < 0)
		return r;
	*ret_archive = TAKE_PTR(archive);
	return 0;
}

ImageArchive *image_archive_free(ImageArchive *archive)
{
	if (archive) {
		tar_reader_free(archive->reader);
		free(archive);
	}
	return NULL;
}

/* Has at least one byte buffered, or `ended`. */
static int fill(ImageArchive *archive, Error *error)
{
	if (archive->used < archive->filled || archive->ended)
		return 0;
	archive->used = archive->filled = 0;
	ssize_t count = archive->input.source.read(archive->input.source.arg, archive->buffer, BUFFER_SIZE, error);
	if (count < 0)
		return (int)count;
	archive->filled = (size_t)count;
	archive->ended = count == 0;
	return 0;
}

static int feed_all(ImageArchive *archive, const uint8_t *bytes, size_t size, Error *error)
{
	while (size > 0) {
		size_t consumed;
		TarPiece piece;
		int r = tar_reader_feed(archive->reader, bytes, size, &consumed, &piece, error);
		if (r < 0)
			return r;
		bytes += consumed;
		size -= consumed;
	}
	return 0;
}

/*
 * Passes over data without reading it. The reader wants to see every byte, but looks at none of a member's that is not sparse: zeros
 * stand for those that were passed over.
 */
static int skip_unread(ImageArchive *archive, uint64_t size, Error *error)
{
	static const uint8_t zeros[BUFFER_SIZE];
	int r = archive->input.skip(archive->input.source.arg, size, error);
	archive->data_left -= size;
	while (r == 0 && size > 0) {
		size_t count = size < sizeof(zeros) ? (size_t)size : sizeof(zeros);
		r = feed_all(archive, zeros, count, error);
		size -= count;
	}
	return r;
}

ssize_t image_archive_read(ImageArchive *archive, void *buffer, size_t size, Error *error)
{
	if (size > archive->data_left)
		size = (size_t)archive->data_left;
	if (size == 0)
		return 0;
	int r = fill(archive, error);
	if (r < 0)
		return r;
	if (archive->ended) {
		r = tar_reader_end(archive->reader, error);
		return r < 0 ? r : error_set(error, -EBADMSG, "the archive ends in the middle of a member");
	}
	const uint8_t *from = archive->buffer + archive->used;
	if (size > archive->filled - archive->used)
		size = archive->filled - archive->used;
	r = feed_all(archive, from, size, error);
	if (r < 0)
		return r;
	memcpy(buffer, from, size);
	archive->used += size;
	archive->data_left -= size;
	return (ssize_t)size;
}

int image_archive_peek(ImageArchive *archive, uint8_t *ret_byte, Error *error)
{
	if (archive->data_left == 0)
		return 0;
	int r = fill(archive, error);
	if (r < 0 || archive->ended)
		return r;
	*ret_byte = archive->buffer[archive->used];
	return 1;
}

static int skip_data(ImageArchive *archive, Error *error)
{
	uint8_t ignored[16384];
	while (archive->data_left > 0) {
		size_t buffered = archive->filled - archive->used;
		if (archive->input.skip && buffered == 0 && archive->data_left >= SKIP_MIN)
			return skip_unread(archive, archive->data_left, error);
		ssize_t count = image_archive_read(archive, ignored, sizeof(ignored), error);
		if (count < 0)
			return (int)count;
	}
	return 0;
}

int image_archive_next(ImageArchive *archive, const TarEntry **ret_entry, Error *error)
{
	int r = skip_data(archive, error);
	while (r == 0) {
		size_t consumed;
		TarPiece piece;
		r = fill(archive, error);
		if (r < 0)
			break;
		if (archive->ended)
			return tar_reader_end(archive->reader, error);
		r = tar_reader_feed(archive->reader, archive->buffer + archive->used, archive->filled - archive->used,
				    &consumed, &piece, error);
		if (r < 0)
			break;
		archive->used += consumed;
		if (piece != TAR_ENTRY)
			continue;
		const TarEntry *entry = tar_reader_entry(archive->reader);
		if (entry->sparse)
			return error_set(error, -EOPNOTSUPP, "member %s is stored sparse, which no image archive is",
					 entry->name);
		archive->data_left = entry->data_size;
		*ret_entry = entry;
		return 1;
	}
	return r;
}
