/* Prints the entries of a tar as the reader sees them, one JSON object a line; names and values in hexadecimal, since
 * they are bytes. */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "fs/base/fd.h"
#include "tools/export/tar-reader.h"

static void put_hex(const char *key, const void *data, size_t size)
{
	const uint8_t *bytes = data;
	printf("\"%s\": \"", key);
	for (size_t i = 0; i < size; i++)
		printf("%02x", bytes[i]);
	printf("\", ");
}

static void put_entry(const TarEntry *entry)
{
	printf("{");
	put_hex("name", entry->name, entry->name_size);
	put_hex("target", entry->target, entry->target_size);
	printf("\"type\": \"%c\", \"mode\": %" PRIu32 ", \"uid\": %" PRIu32 ", \"gid\": %" PRIu32 ", ", entry->typeflag,
	       entry->mode, entry->uid, entry->gid);
	printf("\"mtime\": %" PRId64 ", \"nsec\": %" PRIu32 ", \"size\": %" PRIu64 ", ", entry->mtime_sec,
	       entry->mtime_nsec, entry->size);
	printf("\"major\": %" PRIu32 ", \"minor\": %" PRIu32 ", ", entry->device_major, entry->device_minor);
	printf("\"header_offset\": %" PRIu64 ", \"data_offset\": %" PRIu64 ", \"data_size\": %" PRIu64
	       ", \"xattrs\": [",
	       entry->header_offset, entry->data_offset, entry->data_size);
	for (size_t i = 0; i < entry->xattr_count; i++) {
		printf("%s{", i ? ", " : "");
		put_hex("name", entry->xattrs[i].name.data, entry->xattrs[i].name.size);
		put_hex("value", entry->xattrs[i].value.data, entry->xattrs[i].value.size);
		printf("\"n\": %zu}", i);
	}
	printf("], \"sparse\": %s, \"extents\": [", entry->sparse ? "true" : "false");
	for (size_t i = 0; i < entry->extent_count; i++) {
		const TreeExtent *extent = &entry->extents[i];
		printf("%s[%" PRIu64 ", %" PRIu64 ", %" PRIu64 "]", i ? ", " : "", extent->file_offset,
		       extent->tar_offset, extent->length);
	}
	printf("]}\n");
}

static int list(TarReader *reader, const uint8_t *tar, size_t size, Error *error)
{
	uint64_t data_left = 0;
	for (size_t at = 0, count = 0; at < size; at += count) {
		TarPiece piece = TAR_OTHER;
		int r = tar_reader_feed(reader, tar + at, size - at, &count, &piece, error);
		if (r < 0)
			return r;
		if (piece == TAR_ENTRY)
			data_left = tar_reader_entry(reader)->data_size;
		else if (piece == TAR_DATA)
			data_left -= count;
		if ((piece == TAR_ENTRY || piece == TAR_DATA) && data_left == 0)
			put_entry(tar_reader_entry(reader));
	}
	return tar_reader_end(reader, error);
}

int main(int argc, char **argv)
{
	_cleanup_(tar_reader_free_p) TarReader *reader = NULL;
	_cleanup_free_ char *tar = NULL;
	size_t size;
	Error error = { 0 };
	if (argc != 2 || fd_read_file(AT_FDCWD, argv[1], SIZE_MAX / 2, &tar, &size) < 0) {
		fprintf(stderr, "usage: tar-list FILE.tar\n");
		return 2;
	}
	int r = tar_reader_new(&reader);
	if (r == 0)
		r = list(reader, (const uint8_t *)tar, size, &error);
	if (r < 0) {
		fprintf(stderr, "tar-list: %s\n", error_text(&error, r));
		return 1;
	}
	return 0;
}
