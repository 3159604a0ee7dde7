#include "tools/export/tar-reader.h"

#include <inttypes.h>
#include <string.h>

#include "tools/export/tar-reader-internal.h"

#define LONG_NAME_MAX  65536u     /* data of a GNU long name or link: far above what a path may have */
#define GLOBAL_PAX_MAX 65536u     /* records of global headers, which every entry inherits */
#define HEADERS_MAX    (4u << 20) /* all headers of one entry: whoever cuts the stream holds them in memory */
#define EXTENSION_STEP 65536u     /* memory for an extension header grows with what has arrived */

int tar_reader_new(TarReader **ret_reader)
{
	TarReader *reader = calloc(1, sizeof(*reader));
	if (!reader)
		return -ENOMEM;
	*ret_reader = reader;
	return 0;
}

TarReader *tar_reader_free(TarReader *reader)
{
	if (reader) {
		tar_pax_done(&reader->global);
		tar_pax_done(&reader->local);
		tar_map_done(&reader->map);
		free(reader->extension.data);
		free(reader->long_name);
		free(reader->long_target);
		free(reader->xattrs);
		buffer_done(&reader->acls[0]);
		buffer_done(&reader->acls[1]);
		free(reader);
	}
	return NULL;
}

const TarEntry *tar_reader_entry(const TarReader *reader)
{
	return &reader->entry;
}

static const char *way_out(const TarReader *reader, int code)
{
	if (code == -EBADMSG && !reader->has_entry && reader->block_offset == 0 && !reader->in_headers)
		return "; it is no tar, or damaged from its first byte on";
	if (code == -EOPNOTSUPP)
		return "; imgfs does not take such layers, build the image without it";
	return code == -EBADMSG ? "; the layer is corrupt, build or pull the image again" : "";
}

/* Says where in the tar the trouble is, and what to do. */
static int locate(const TarReader *reader, int code, const Error *reason, Error *error)
{
	bool in_data = reader->phase == TAR_PHASE_DATA || reader->phase == TAR_PHASE_PADDING;
	char near[128] = "at its start";
	if (reader->has_entry)
		(void)snprintf(near, sizeof(near), "%s %.100s", in_data ? "in" : "after", reader->entry.name);
	for (char *at = near; *at; at++) {
		if ((unsigned char)*at < ' ' || *at == 0x7f)
			*at = '?';
	}
	return error_set(error, code, "tar, byte %" PRIu64 " (%s): %.400s%s",
			 in_data ? reader->offset : reader->block_offset, near, error_text(reason, code),
			 way_out(reader, code));
}

/* The first header of an entry: forgets what belonged to the one before. */
static void begin_headers(TarReader *reader)
{
	reader->in_headers = true;
	reader->header_offset = reader->block_offset;
	reader->member_pending = false;
	reader->map.count = 0;
	tar_pax_done(&reader->local);
	free(reader->long_name);
	free(reader->long_target);
	reader->long_name = reader->long_target = NULL;
}

static int begin_extension(TarReader *reader, Error *error)
{
	TarExtension *extension = &reader->extension;
	char typeflag = reader->header.typeflag;
	bool pax = typeflag == 'x' || typeflag == 'g';
	uint32_t limit = pax ? TAR_PAX_MAX : LONG_NAME_MAX;
	if (reader->header.size > limit)
		return error_set(error, -EOPNOTSUPP, "a %s header of more than %u bytes", pax ? "pax" : "GNU long name",
				 limit);
	if (typeflag != 'g')
		reader->member_pending = true;
	extension->typeflag = typeflag;
	extension->size = reader->header.size;
	extension->filled = 0;
	reader->left = (extension->size + TAR_BLOCK - 1) / TAR_BLOCK * TAR_BLOCK;
	reader->phase = reader->left > 0 ? TAR_PHASE_EXTENSION : TAR_PHASE_BLOCK;
	return 0;
}

/* Takes a GNU long name or link, which ends at its first NUL; an empty one says nothing. */
static int set_long(const TarExtension *extension, char **text)
{
	char *copy = strndup((const char *)extension->data, extension->size);
	if (!copy)
		return -ENOMEM;
	free(*text);
	*text = copy;
	if (copy[0] == '\0') {
		free(copy);
		*text = NULL;
	}
	return 0;
}

static int add_global(TarReader *reader, Error *error)
{
	TarPax *global = &reader->global;
	int r = tar_pax_add(global, reader->extension.data, reader->extension.size, error);
	if (r < 0)
		return r;
	if (global->text_size > GLOBAL_PAX_MAX)
		return error_set(error, -EOPNOTSUPP, "global pax records of more than %u bytes", GLOBAL_PAX_MAX);
	if (global->has_map || global->sparse_major.state != TAR_PAX_ABSENT ||
	    global->sparse_size.state != TAR_PAX_ABSENT)
		return error_set(error, -EOPNOTSUPP, "a sparse file's records in a global pax header");
	return 0;
}

static int finish_extension(TarReader *reader, Error *error)
{
	const TarExtension *extension = &reader->extension;
	reader->phase = TAR_PHASE_BLOCK;
	switch (extension->typeflag) {
	case 'x':
		return tar_pax_add(&reader->local, extension->data, extension->size, error);
	case 'g':
		return add_global(reader, error);
	case 'L':
		return set_long(extension, &reader->long_name);
	default:
		return set_long(extension, &reader->long_target);
	}
}

/* The last header of an entry has been read. */
static int finish_headers(TarReader *reader, const uint8_t *rest, size_t rest_size, TarPiece *ret_piece, Error *error)
{
	int r = tar_entry_build(reader, reader->offset, rest, rest_size, error);
	if (r < 0)
		return r;
	reader->in_headers = false;
	reader->member_pending = false;
	reader->left = reader->entry.data_size;
	reader->phase = reader->left > 0 ? TAR_PHASE_DATA : TAR_PHASE_BLOCK;
	*ret_piece = TAR_ENTRY;
	return 0;
}

static int begin_old_sparse(TarReader *reader, bool *ret_more, Error *error)
{
	/* star has a type 'S' of another form. */
	if (memcmp(reader->block + 257, "ustar  ", 8) != 0)
		return error_set(error, -EOPNOTSUPP, "a sparse file of a form other than GNU's");
	return tar_map_add_header(&reader->map, reader->block, &reader->map_size, ret_more, error);
}

static int take_header(TarReader *reader, const uint8_t *rest, size_t rest_size, TarPiece *ret_piece, Error *error)
{
	const char *field;
	if (!reader->in_headers)
		begin_headers(reader);
	if (tar_header_decode(reader->block, &reader->header, &field) < 0)
		return error_set(error, -EBADMSG, "the %s in a header is malformed", field);
	switch (reader->header.typeflag) {
	case 'x':
	case 'g':
	case 'L':
	case 'K':
		return begin_extension(reader, error);
	case 'S': {
		bool more;
		int r = begin_old_sparse(reader, &more, error);
		if (r < 0)
			return r;
		if (more) {
			reader->phase = TAR_PHASE_SPARSE;
			return 0;
		}
		break;
	}
	default:
		break;
	}
	return finish_headers(reader, rest, rest_size, ret_piece, error);
}

static int take_zero(TarReader *reader, Error *error)
{
	if (reader->in_headers && reader->member_pending)
		return error_set(error, -EBADMSG, "a long name or pax header without an entry");
	reader->in_headers = false;
	if (reader->zero_seen)
		reader->phase = TAR_PHASE_END;
	reader->zero_seen = true;
	return 0;
}

/* A block is complete; `rest` is what follows it. */
static int take_block(TarReader *reader, const uint8_t *rest, size_t rest_size, TarPiece *ret_piece, Error *error)
{
	if (reader->in_headers && reader->offset - reader->header_offset > HEADERS_MAX)
		return error_set(error, -EOPNOTSUPP, "headers of more than %u bytes", HEADERS_MAX);
	if (reader->phase == TAR_PHASE_SPARSE) {
		bool more;
		int r = tar_map_add_extension(&reader->map, reader->block, &more, error);
		if (r < 0 || more)
			return r;
		return finish_headers(reader, rest, rest_size, ret_piece, error);
	}
	switch (tar_block_kind(reader->block)) {
	case TAR_BLOCK_ZERO:
		*ret_piece = TAR_OTHER;
		return take_zero(reader, error);
	case TAR_BLOCK_HEADER:
		reader->zero_seen = false;
		return take_header(reader, rest, rest_size, ret_piece, error);
	case TAR_BLOCK_GARBAGE:
		break;
	}
	return error_set(error, -EBADMSG, "a block that is no header, its checksum being wrong");
}

static int feed_block(TarReader *reader, const uint8_t *bytes, size_t size, size_t *ret_consumed, TarPiece *ret_piece,
		      Error *error)
{
	size_t count = TAR_BLOCK - reader->filled;
	if (count > size)
		count = size;
	if (reader->filled == 0)
		reader->block_offset = reader->offset;
	memcpy(reader->block + reader->filled, bytes, count);
	bool complete = reader->filled + count == TAR_BLOCK;
	/* What a hard link's size means is in the block behind it: leaves the last byte, to be offered with more. */
	if (complete && reader->block[156] == '1' && size - count < TAR_BLOCK && count > 1) {
		complete = false;
		count--;
	}
	reader->filled += count;
	reader->offset += count;
	*ret_consumed = count;
	*ret_piece = TAR_HEADER;
	if (!complete)
		return 0;
	reader->filled = 0;
	return take_block(reader, bytes + count, size - count, ret_piece, error);
}

static int grow_extension(TarExtension *extension, size_t size)
{
	if (size <= extension->capacity)
		return 0;
	size_t capacity = (size + EXTENSION_STEP - 1) / EXTENSION_STEP * EXTENSION_STEP;
	uint8_t *data = realloc(extension->data, capacity);
	if (!data)
		return -ENOMEM;
	extension->data = data;
	extension->capacity = capacity;
	return 0;
}

static int feed_extension(TarReader *reader, const uint8_t *bytes, size_t count, Error *error)
{
	TarExtension *extension = &reader->extension;
	size_t kept = extension->size - extension->filled;
	if (kept > count)
		kept = count;
	int r = grow_extension(extension, extension->filled + kept);
	if (r < 0)
		return r;
	if (kept > 0)
		memcpy(extension->data + extension->filled, bytes, kept);
	extension->filled += kept;
	reader->left -= count;
	return reader->left == 0 ? finish_extension(reader, error) : 0;
}

static int feed_data(TarReader *reader, const uint8_t *bytes, size_t count, Error *error)
{
	reader->left -= count;
	if (reader->map_in_data) {
		int r = tar_map_text_feed(&reader->map_text, &reader->map, bytes, count, error);
		if (r == 0 && reader->left == 0)
			r = tar_entry_finish_map(reader, error);
		if (r < 0)
			return r;
	}
	if (reader->left == 0) {
		reader->left = -reader->entry.data_size % TAR_BLOCK;
		reader->phase = reader->left > 0 ? TAR_PHASE_PADDING : TAR_PHASE_BLOCK;
	}
	return 0;
}

/* Bytes of a phase that has a length: an extension, data or padding. */
static int feed_stretch(TarReader *reader, const uint8_t *bytes, size_t size, size_t *ret_consumed, TarPiece *ret_piece,
			Error *error)
{
	size_t count = size < reader->left ? size : (size_t)reader->left;
	int r = 0;
	switch (reader->phase) {
	case TAR_PHASE_EXTENSION:
		*ret_piece = TAR_HEADER;
		r = feed_extension(reader, bytes, count, error);
		break;
	case TAR_PHASE_DATA:
		*ret_piece = TAR_DATA;
		r = feed_data(reader, bytes, count, error);
		break;
	case TAR_PHASE_PADDING:
		*ret_piece = TAR_OTHER;
		reader->left -= count;
		if (reader->left == 0)
			reader->phase = TAR_PHASE_BLOCK;
		break;
	case TAR_PHASE_BLOCK:
	case TAR_PHASE_SPARSE:
	case TAR_PHASE_END:
		*ret_piece = TAR_OTHER;
		count = size;
		break;
	}
	reader->offset += count;
	*ret_consumed = count;
	return r;
}

int tar_reader_feed(TarReader *reader, const uint8_t *bytes, size_t size, size_t *ret_consumed, TarPiece *ret_piece,
		    Error *error)
{
	Error reason;
	size_t consumed = 0;
	TarPiece piece = TAR_OTHER;
	int r;
	reason.message[0] = '\0';
	if (size > TAR_SIZE_MAX - reader->offset) {
		r = error_set(&reason, -EFBIG, "the tar is absurdly long");
	} else if (reader->phase == TAR_PHASE_BLOCK || reader->phase == TAR_PHASE_SPARSE) {
		r = feed_block(reader, bytes, size, &consumed, &piece, &reason);
	} else {
		r = feed_stretch(reader, bytes, size, &consumed, &piece, &reason);
	}
	if (r < 0)
		return locate(reader, r, &reason, error);
	*ret_consumed = consumed;
	*ret_piece = piece;
	return 0;
}

static bool block_is_zero(const TarReader *reader)
{
	for (size_t i = 0; i < reader->filled; i++) {
		if (reader->block[i] != 0)
			return false;
	}
	return true;
}

int tar_reader_end(TarReader *reader, Error *error)
{
	Error reason;
	int r = 0;
	reason.message[0] = '\0';
	switch (reader->phase) {
	case TAR_PHASE_BLOCK:
		/* A last block of fewer zeros than it should have is an end marker of sorts. */
		if (!block_is_zero(reader) || (reader->in_headers && reader->member_pending))
			r = error_set(&reason, -EBADMSG, "the tar ends inside a header");
		break;
	case TAR_PHASE_EXTENSION:
	case TAR_PHASE_SPARSE:
		r = error_set(&reason, -EBADMSG, "the tar ends inside a header");
		break;
	case TAR_PHASE_DATA:
		r = error_set(&reason, -EBADMSG, "the tar ends %" PRIu64 " bytes before the end of a file's data",
			      reader->left);
		break;
	case TAR_PHASE_PADDING:
	case TAR_PHASE_END:
		break;
	}
	return r < 0 ? locate(reader, r, &reason, error) : 0;
}
