/* Tars made by hand, byte for byte, for tests. Every function fails the test when memory is out. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "fs/format/buffer.h"

#define BLOCK 512u

/*
 * Appends a POSIX ustar header (mode 0644, owner 1:2, mtime 3) without data; valid until the next call. Change fields
 * and then call tar_seal(). `name` is cut at 100 bytes.
 */
uint8_t *tar_header(Buffer *tar, const char *name, char typeflag, uint64_t size);

/* Sets the checksum of a header whose fields were changed. */
void tar_seal(uint8_t *header);

/* Sets a text or an octal number in a header, and its checksum. */
void tar_text(uint8_t *header, size_t offset, const char *text);
void tar_octal(uint8_t *header, size_t offset, size_t size, uint64_t value);

/* Makes a header one of GNU tar's: another magic. */
void tar_make_gnu(uint8_t *header);

/* Appends bytes, and zeros up to the end of the block. */
void tar_data(Buffer *tar, const void *data, size_t size);

/* A regular file with its data; a directory, symlink or hard link. */
void tar_file(Buffer *tar, const char *name, const void *data, size_t size);
void tar_directory(Buffer *tar, const char *name);
void tar_link(Buffer *tar, const char *name, char typeflag, const char *target);

/* A header with data of its own: pax ('x', 'g'), GNU long name ('L', 'K'). */
void tar_extension(Buffer *tar, char typeflag, const void *data, size_t size);

/* Appends a pax record to records. */
void tar_record(Buffer *records, const char *key, const void *value, size_t size);

/* A pax header with one record whose value is text. */
void tar_pax(Buffer *tar, const char *key, const char *value);

/* The end marker. */
void tar_end(Buffer *tar);
