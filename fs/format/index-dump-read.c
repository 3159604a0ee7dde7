#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/format/buffer.h"
#include "fs/format/chunk-table.h"
#include "fs/format/index-dump-text.h"
#include "fs/format/index-dump.h"
#include "fs/format/tree.h"

/* Above the longest line: an xattr, each byte of name and value as \xHH. */
#define LINE_SIZE (4u * (FORMAT_XATTR_NAME_MAX + FORMAT_XATTR_VALUE_MAX) + 64u)

/* A string decoded to a Buffer, by its place there, since the Buffer moves as it grows. */
typedef struct Place {
	size_t offset;
	size_t size;
} Place;

typedef struct PlacedXattr {
	Place name;
	Place value;
} PlacedXattr;

typedef struct PlacedEntry {
	TreeDirent entry;
	Place name;
} PlacedEntry;

typedef struct Reader {
	FILE *file;
	Error *error;
	size_t line_number;
	char *line;     /* LINE_SIZE bytes; owned */
	const char *at; /* what of the line is still to be read */

	bool has_header;
	ImageHeader header;
	ChunkTableWriter *chunks;
	TreeWriter *tree;
	uint32_t inode_count;
	Buffer layers;
	bool has_packed;
	Buffer packed;

	/* What is collected until the next inode, directory or end. */
	enum { NOTHING, INODE, DIRECTORY } pending;
	TreeInode inode;
	uint32_t directory;
	Place target;
	Buffer strings;
	Buffer extents; /* of TreeExtent */
	Buffer xattrs;  /* of PlacedXattr */
	Buffer entries; /* of PlacedEntry */
} Reader;

static void reader_done(Reader *reader)
{
	free(reader->line);
	reader->chunks = chunk_table_writer_free(reader->chunks);
	reader->tree = tree_writer_free(reader->tree);
	buffer_done(&reader->layers);
	buffer_done(&reader->packed);
	buffer_done(&reader->strings);
	buffer_done(&reader->extents);
	buffer_done(&reader->xattrs);
	buffer_done(&reader->entries);
}

static int bad_line(const Reader *reader, const char *what)
{
	return error_set(reader->error, -EBADMSG, "line %zu of the dump: %s; write it as docs/format.md section 4 says",
			 reader->line_number, what);
}

/* The next line to `reader->at`, without its end. Returns 1, 0 at the end of the file, or a negative errno. */
static int read_line(Reader *reader)
{
	errno = 0;
	if (!fgets(reader->line, LINE_SIZE, reader->file)) {
		if (!ferror(reader->file))
			return 0;
		return errno ? -errno : -EIO;
	}
	reader->line_number++;
	size_t length = strlen(reader->line);
	if (length == 0 || reader->line[length - 1] != '\n')
		return bad_line(reader, "it is too long, cut short, or holds a NUL");
	reader->line[length - 1] = '\0';
	reader->at = reader->line;
	return 1;
}

static bool skip_word(Reader *reader, const char *word)
{
	size_t length = strlen(word);
	if (strncmp(reader->at, word, length) != 0)
		return false;
	reader->at += length;
	return true;
}

/* A number after `word`, in base 8 or 10. */
static int get_number(Reader *reader, const char *word, int base, uint64_t limit, uint64_t *ret_number)
{
	char *end;
	if (!skip_word(reader, word) || !isdigit((unsigned char)*reader->at))
		return bad_line(reader, "a field is missing, misplaced or no number");
	errno = 0;
	uint64_t number = strtoull(reader->at, &end, base);
	if (errno != 0 || number > limit)
		return bad_line(reader, "a number is too large");
	reader->at = end;
	*ret_number = number;
	return 0;
}

static int get_u32(Reader *reader, const char *word, int base, uint32_t *ret_number)
{
	uint64_t number;
	int r = get_number(reader, word, base, UINT32_MAX, &number);
	if (r == 0)
		*ret_number = (uint32_t)number;
	return r;
}

static int get_u64(Reader *reader, const char *word, uint64_t *ret_number)
{
	return get_number(reader, word, 10, UINT64_MAX, ret_number);
}

static int get_time(Reader *reader, const char *word, int64_t *ret_time)
{
	uint64_t number;
	if (!skip_word(reader, word))
		return bad_line(reader, "a field is missing or misplaced");
	bool negative = skip_word(reader, "-");
	int r = get_number(reader, "", 10, (uint64_t)INT64_MAX + negative, &number);
	if (r == 0)
		*ret_time = negative ? (int64_t)-number : (int64_t)number;
	return r;
}

static int get_digest(Reader *reader, const char *word, Digest *ret_digest)
{
	if (!skip_word(reader, word) || digest_from_hex(reader->at, ret_digest) < 0)
		return bad_line(reader, "it does not end in a digest of 64 lower-case hex digits");
	reader->at += strlen(reader->at);
	return 0;
}

static int hex_digit(char digit)
{
	const char *digits = "0123456789abcdef", *found = digit ? strchr(digits, digit) : NULL;
	return found ? (int)(found - digits) : -1;
}

/* One byte of a quoted string; -1 when it is not one. */
static int get_byte(Reader *reader)
{
	unsigned char first = (unsigned char)*reader->at;
	if (first != '\\') {
		if (first < 0x20 || first >= 0x7f)
			return -1;
		reader->at++;
		return first;
	}
	int high = reader->at[1] == 'x' ? hex_digit(reader->at[2]) : -1;
	int low = high >= 0 ? hex_digit(reader->at[3]) : -1;
	if (low < 0)
		return -1;
	reader->at += 4;
	return high << 4 | low;
}

static int get_string(Reader *reader, const char *word, Place *ret_place)
{
	Place place = { .offset = reader->strings.size };
	if (!skip_word(reader, word) || !skip_word(reader, "\""))
		return bad_line(reader, "a quoted string is missing");
	while (!skip_word(reader, "\"")) {
		int value = get_byte(reader);
		if (value < 0)
			return bad_line(reader,
					"a quoted string does not end, or a byte in it is not written as \\xHH");
		uint8_t byte = (uint8_t)value;
		int r = buffer_append(&reader->strings, &byte, 1);
		if (r < 0)
			return r;
		place.size++;
	}
	*ret_place = place;
	return 0;
}

static TreeString placed(const Reader *reader, Place place)
{
	if (place.size == 0)
		return (TreeString){ .data = "" };
	return (TreeString){ .data = (const char *)reader->strings.data + place.offset, .size = place.size };
}

static int end_inode(Reader *reader)
{
	size_t count = reader->xattrs.size / sizeof(PlacedXattr);
	const PlacedXattr *from = (const PlacedXattr *)(const void *)reader->xattrs.data;
	_cleanup_free_ TreeXattr *xattrs = calloc(count ? count : 1, sizeof(*xattrs));
	if (!xattrs)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++)
		xattrs[i] = (TreeXattr){ .name = placed(reader, from[i].name), .value = placed(reader, from[i].value) };
	const TreeExtras extras = {
		.target = placed(reader, reader->target),
		.extents = (const TreeExtent *)(const void *)reader->extents.data,
		.extent_count = reader->extents.size / sizeof(TreeExtent),
		.xattrs = xattrs,
		.xattr_count = count,
	};
	uint32_t number;
	return tree_writer_add_inode(reader->tree, &reader->inode, &extras, &number);
}

static int end_directory(Reader *reader)
{
	size_t count = reader->entries.size / sizeof(PlacedEntry);
	const PlacedEntry *from = (const PlacedEntry *)(const void *)reader->entries.data;
	_cleanup_free_ TreeDirent *entries = calloc(count ? count : 1, sizeof(*entries));
	if (!entries)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		entries[i] = from[i].entry;
		entries[i].name = placed(reader, from[i].name);
	}
	return tree_writer_add_entries(reader->tree, reader->directory, entries, count);
}

/* Hands what was collected to the writer. */
static int end_pending(Reader *reader)
{
	int r = reader->pending == INODE ? end_inode(reader) : reader->pending == DIRECTORY ? end_directory(reader) : 0;
	reader->pending = NOTHING;
	reader->target = (Place){ 0 };
	reader->strings.size = reader->extents.size = reader->xattrs.size = reader->entries.size = 0;
	return r;
}

static int read_header(Reader *reader)
{
	if (reader->has_header)
		return bad_line(reader, "a second header");
	reader->has_header = true;
	int r = get_u32(reader, " kind=", 10, &reader->header.kind);
	if (r == 0)
		r = get_u32(reader, " codec=", 10, &reader->header.codec);
	if (r == 0)
		r = get_u64(reader, " tar=", &reader->header.tar_size);
	if (r == 0)
		r = get_u64(reader, " chunks=", &reader->header.chunks_size);
	return r == 0 ? get_digest(reader, " id=", &reader->header.id) : r;
}

static int read_layer(Reader *reader)
{
	Digest digest;
	int r = get_digest(reader, " ", &digest);
	return r == 0 ? buffer_append(&reader->layers, digest.bytes, DIGEST_SIZE) : r;
}

static int read_chunk(Reader *reader)
{
	uint32_t tar_size = 0, frame_size = 0;
	Digest digest;
	int r = get_u32(reader, " tar=", 10, &tar_size);
	if (r == 0)
		r = get_u32(reader, " frame=", 10, &frame_size);
	if (r == 0)
		r = get_digest(reader, " digest=", &digest);
	if (r == 0)
		r = chunk_table_writer_add(reader->chunks, tar_size, frame_size, &digest);
	return r == -EINVAL ? bad_line(reader, "a chunk of impossible length") : r;
}

static int read_inode(Reader *reader)
{
	uint32_t number = 0;
	TreeInode inode = { 0 };
	int r = end_pending(reader);
	if (r == 0)
		r = get_u32(reader, " ", 10, &number);
	if (r == 0 && number != reader->inode_count)
		return bad_line(reader, "an inode out of order");
	if (r == 0)
		r = get_u32(reader, " mode=", 8, &inode.mode);
	if (r == 0)
		r = get_u32(reader, " uid=", 10, &inode.uid);
	if (r == 0)
		r = get_u32(reader, " gid=", 10, &inode.gid);
	if (r == 0)
		r = get_u32(reader, " nlink=", 10, &inode.nlink);
	if (r == 0)
		r = get_time(reader, " mtime=", &inode.mtime_sec);
	if (r == 0)
		r = get_u32(reader, " nsec=", 10, &inode.mtime_nsec);
	if (r == 0)
		r = get_u32(reader, " flags=", 10, &inode.flags);
	if (r == 0)
		r = get_u64(reader, " size=", &inode.size);
	if (r == 0)
		r = get_u64(reader, " data=", &inode.data);
	if (r == 0)
		r = get_u32(reader, " parent=", 10, &inode.parent);
	if (r == 0)
		r = get_u32(reader, " layer=", 10, &inode.layer);
	if (r < 0)
		return r;
	reader->inode = inode;
	reader->inode_count++;
	reader->pending = INODE;
	return 0;
}

static int read_target(Reader *reader)
{
	if (reader->pending != INODE || !(S_ISLNK(reader->inode.mode) || reader->inode.flags & TREE_LOWER_LINK))
		return bad_line(reader, "a target without a link before it");
	return get_string(reader, " ", &reader->target);
}

static int read_extent(Reader *reader)
{
	TreeExtent extent = { 0 };
	if (reader->pending != INODE || !(reader->inode.flags & TREE_SPARSE))
		return bad_line(reader, "an extent without a sparse inode before it");
	int r = get_u64(reader, " file=", &extent.file_offset);
	if (r == 0)
		r = get_u64(reader, " tar=", &extent.tar_offset);
	if (r == 0)
		r = get_u64(reader, " length=", &extent.length);
	return r == 0 ? buffer_append(&reader->extents, &extent, sizeof(extent)) : r;
}

static int read_xattr(Reader *reader)
{
	PlacedXattr xattr = { 0 };
	if (reader->pending != INODE)
		return bad_line(reader, "an xattr without an inode before it");
	int r = get_string(reader, " ", &xattr.name);
	if (r == 0)
		r = get_string(reader, " ", &xattr.value);
	return r == 0 ? buffer_append(&reader->xattrs, &xattr, sizeof(xattr)) : r;
}

static int read_entries(Reader *reader)
{
	int r = end_pending(reader);
	if (r == 0)
		r = get_u32(reader, " ", 10, &reader->directory);
	if (r == 0 && reader->directory >= reader->inode_count)
		return bad_line(reader, "entries of an inode that does not exist");
	if (r == 0)
		reader->pending = DIRECTORY;
	return r;
}

static int read_entry(Reader *reader)
{
	PlacedEntry entry = { 0 };
	if (reader->pending != DIRECTORY)
		return bad_line(reader, "an entry without \"entries\" before it");
	const char *type = skip_word(reader, " ") && *reader->at > ' ' ? strchr(DUMP_TYPES, *reader->at) : NULL;
	if (!type)
		return bad_line(reader, "an entry without a type");
	reader->at++;
	entry.entry.type = (uint8_t)(type - DUMP_TYPES);
	int r = get_u32(reader, " ", 10, &entry.entry.inode);
	if (r == 0)
		r = get_string(reader, " ", &entry.name);
	return r == 0 ? buffer_append(&reader->entries, &entry, sizeof(entry)) : r;
}

static int read_packed(Reader *reader)
{
	reader->has_packed = true;
	return 0;
}

static int read_packed_digest(Reader *reader)
{
	Digest digest;
	if (!reader->has_packed)
		return bad_line(reader, "a digest without \"packed\" before it");
	int r = get_digest(reader, " ", &digest);
	return r == 0 ? buffer_append(&reader->packed, digest.bytes, DIGEST_SIZE) : r;
}

static int read_record(Reader *reader)
{
	static const struct {
		const char *word;
		int (*read)(Reader *reader);
	} records[] = {
		{ "header", read_header }, { "layer", read_layer },          { "chunk", read_chunk },
		{ "inode", read_inode },   { "target", read_target },        { "extent", read_extent },
		{ "xattr", read_xattr },   { "entries", read_entries },      { "entry", read_entry },
		{ "packed", read_packed }, { "digest", read_packed_digest },
	};
	size_t length = strcspn(reader->at, " ");
	for (size_t i = 0; i < ELEMENTS(records); i++) {
		if (strlen(records[i].word) != length || strncmp(reader->at, records[i].word, length) != 0)
			continue;
		reader->at += length;
		int r = records[i].read(reader);
		return r == 0 && *reader->at ? bad_line(reader, "it goes on after its last field") : r;
	}
	return bad_line(reader, "it begins with no word known");
}

static int read_lines(Reader *reader)
{
	int r = read_line(reader);
	if (r == 1 && (strcmp(reader->line, DUMP_TITLE) != 0))
		return bad_line(reader, "it is not \"" DUMP_TITLE "\"");
	while (r == 1) {
		r = read_line(reader);
		if (r == 1) {
			int parsed = read_record(reader);
			if (parsed < 0)
				return parsed;
		}
	}
	if (r < 0)
		return r;
	return reader->has_header ? end_pending(reader) : bad_line(reader, "the dump ends without a header");
}

static int write_image(Reader *reader, uint8_t **ret_image, size_t *ret_size)
{
	_cleanup_(image_writer_free_p) ImageWriter *writer = NULL;
	int r = image_writer_new(&reader->header, &writer);
	if (r == 0 && reader->header.kind == FORMAT_KIND_INDEX)
		r = chunk_table_writer_finish(reader->chunks, writer);
	if (r == 0)
		r = tree_writer_finish(reader->tree, writer);
	if (r == 0 && reader->has_packed)
		r = image_writer_take(writer, FORMAT_SECTION_PACKED_DIGESTS, 0, &reader->packed);
	if (r == 0 && reader->header.kind == FORMAT_KIND_VIEW)
		r = image_writer_take(writer, FORMAT_SECTION_LAYERS, FORMAT_SECTION_MANDATORY, &reader->layers);
	return r == 0 ? image_writer_finish(writer, ret_image, ret_size) : r;
}

/* Lines may each be well formed and yet make no tree. */
static int validate(const uint8_t *data, size_t size, Error *error)
{
	Image image;
	Tree tree;
	ChunkTable chunks;
	int r = image_open(data, size, &image, error);
	if (r == 0)
		r = tree_open(&image, &tree, error);
	if (r == 0 && image.header.kind == FORMAT_KIND_INDEX)
		r = chunk_table_open(&image, &chunks, error);
	return r < 0 ? error_prefix(error, r, "what the dump describes is not valid") : 0;
}

int index_dump_read(FILE *file, uint8_t **ret_image, size_t *ret_size, Error *error)
{
	_cleanup_(reader_done) Reader reader = { .file = file, .error = error };
	_cleanup_free_ uint8_t *image = NULL;
	size_t size = 0;
	reader.line = malloc(LINE_SIZE);
	if (!reader.line)
		return -ENOMEM;
	int r = chunk_table_writer_new(&reader.chunks);
	if (r == 0)
		r = tree_writer_new(&reader.tree);
	if (r == 0)
		r = read_lines(&reader);
	if (r == 0)
		r = write_image(&reader, &image, &size);
	if (r == 0)
		r = validate(image, size, error);
	if (r < 0)
		return r;
	*ret_image = TAKE_PTR(image);
	*ret_size = size;
	return 0;
}
