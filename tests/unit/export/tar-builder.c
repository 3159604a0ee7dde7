#include "tests/unit/export/tar-builder.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static uint8_t *extend(Buffer *tar, size_t size)
{
	uint8_t *room = buffer_extend(tar, size);
	if (!room)
		abort();
	return room;
}

static void octal(uint8_t *field, size_t size, uint64_t value)
{
	char text[32];
	(void)snprintf(text, sizeof(text), "%0*" PRIo64, (int)size - 1, value);
	memcpy(field, text, size);
}

void tar_seal(uint8_t *header)
{
	uint64_t sum = 0;
	memset(header + 148, ' ', 8);
	for (size_t i = 0; i < BLOCK; i++)
		sum += header[i];
	octal(header + 148, 7, sum);
}

uint8_t *tar_header(Buffer *tar, const char *name, char typeflag, uint64_t size)
{
	uint8_t *header = extend(tar, BLOCK);
	memset(header, 0, BLOCK);
	memcpy(header, name, strnlen(name, 100));
	octal(header + 100, 8, 0644);
	octal(header + 108, 8, 1);
	octal(header + 116, 8, 2);
	octal(header + 124, 12, size);
	octal(header + 136, 12, 3);
	header[156] = (uint8_t)typeflag;
	memcpy(header + 257, "ustar\00000", 8);
	tar_seal(header);
	return header;
}

void tar_text(uint8_t *header, size_t offset, const char *text)
{
	memcpy(header + offset, text, strlen(text));
	tar_seal(header);
}

void tar_octal(uint8_t *header, size_t offset, size_t size, uint64_t value)
{
	octal(header + offset, size, value);
	tar_seal(header);
}

void tar_make_gnu(uint8_t *header)
{
	memcpy(header + 257, "ustar  ", 8);
	tar_seal(header);
}

void tar_data(Buffer *tar, const void *data, size_t size)
{
	size_t padding = -size % BLOCK;
	assert_int_equal(buffer_append(tar, data, size), 0);
	if (padding > 0)
		memset(extend(tar, padding), 0, padding);
}

void tar_file(Buffer *tar, const char *name, const void *data, size_t size)
{
	tar_header(tar, name, '0', size);
	tar_data(tar, data, size);
}

void tar_directory(Buffer *tar, const char *name)
{
	tar_octal(tar_header(tar, name, '5', 0), 100, 8, 0755);
}

void tar_link(Buffer *tar, const char *name, char typeflag, const char *target)
{
	tar_text(tar_header(tar, name, typeflag, 0), 157, target);
}

void tar_extension(Buffer *tar, char typeflag, const void *data, size_t size)
{
	tar_header(tar, "././@LongLink", typeflag, size);
	tar_data(tar, data, size);
}

void tar_record(Buffer *records, const char *key, const void *value, size_t size)
{
	char text[32];
	size_t body = strlen(key) + size + 3, total = body + 1;
	while ((size_t)snprintf(text, sizeof(text), "%zu", total) + body != total)
		total++;
	assert_int_equal(buffer_append(records, text, strlen(text)), 0);
	assert_int_equal(buffer_append(records, " ", 1), 0);
	assert_int_equal(buffer_append(records, key, strlen(key)), 0);
	assert_int_equal(buffer_append(records, "=", 1), 0);
	assert_int_equal(buffer_append(records, value, size), 0);
	assert_int_equal(buffer_append(records, "\n", 1), 0);
}

void tar_pax(Buffer *tar, const char *key, const char *value)
{
	Buffer records = { 0 };
	tar_record(&records, key, value, strlen(value));
	tar_extension(tar, 'x', records.data, records.size);
	buffer_done(&records);
}

void tar_end(Buffer *tar)
{
	memset(extend(tar, 2 * BLOCK), 0, 2 * BLOCK);
}
