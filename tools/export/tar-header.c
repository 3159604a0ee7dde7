#include "tools/export/tar-header.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

enum {
	NAME = 0,
	NAME_SIZE = 100,
	MODE = 100,
	UID = 108,
	GID = 116,
	SIZE = 124,
	MTIME = 136,
	CHECKSUM = 148,
	TYPEFLAG = 156,
	TARGET = 157,
	TARGET_SIZE = 100,
	MAGIC = 257,
	MAJOR = 329,
	MINOR = 337,
	PREFIX = 345,
	PREFIX_SIZE = 155,
	STAR_PREFIX_SIZE = 131,
	STAR_MAGIC = 508,
};

#define SHORT 8  /* bytes of mode, uid, gid, checksum and device numbers */
#define LONG  12 /* bytes of size and mtime */

static bool is_blank(uint8_t byte)
{
	return byte == ' ' || byte == '\0';
}

/* Two's complement, big-endian, the first bit being a marker (GNU tar manual, "Extensions"). */
static int base256_number(const uint8_t *field, size_t size, int64_t *ret_value)
{
	uint8_t invert = field[0] & 0x40 ? 0xff : 0;
	uint64_t value = 0;
	for (size_t i = 0; i < size; i++) {
		uint8_t byte = field[i] ^ invert;
		if (i == 0)
			byte &= 0x7f;
		if (value >> 55)
			return -EBADMSG;
		value = value << 8 | byte;
	}
	*ret_value = invert ? -(int64_t)value - 1 : (int64_t)value;
	return 0;
}

int tar_header_number(const uint8_t *field, size_t size, int64_t *ret_value)
{
	if (field[0] & 0x80)
		return base256_number(field, size, ret_value);
	size_t at = 0;
	while (at < size && is_blank(field[at]))
		at++;
	int64_t value = 0;
	for (; at < size && field[at] >= '0' && field[at] <= '7'; at++) {
		if (value >> 59)
			return -EBADMSG;
		value = value << 3 | (field[at] - '0');
	}
	if (at < size && !is_blank(field[at]))
		return -EBADMSG;
	*ret_value = value;
	return 0;
}

TarBlockKind tar_block_kind(const uint8_t block[static TAR_BLOCK])
{
	uint32_t sum = 0, high = 0;
	for (size_t i = 0; i < TAR_BLOCK; i++) {
		sum += block[i];
		high += block[i] >> 7;
	}
	if (sum == 0)
		return TAR_BLOCK_ZERO;
	/* The checksum's own bytes count as spaces. */
	for (size_t i = CHECKSUM; i < CHECKSUM + SHORT; i++) {
		sum += (uint32_t)' ' - block[i];
		high -= block[i] >> 7;
	}
	int64_t stored;
	if (tar_header_number(block + CHECKSUM, SHORT, &stored) < 0)
		return TAR_BLOCK_GARBAGE;
	/* Old writers summed signed bytes (GNU tar manual, "Basic Tar Format"): either sum is right. */
	int64_t signed_sum = (int64_t)sum - 256 * (int64_t)high;
	return stored == sum || stored == signed_sum ? TAR_BLOCK_HEADER : TAR_BLOCK_GARBAGE;
}

static int unsigned_number(const uint8_t *field, size_t size, uint64_t limit, uint64_t *ret_value)
{
	int64_t value;
	if (tar_header_number(field, size, &value) < 0 || value < 0 || (uint64_t)value > limit)
		return -EBADMSG;
	*ret_value = (uint64_t)value;
	return 0;
}

static int number32(const uint8_t *field, uint32_t *ret_value)
{
	uint64_t value;
	int r = unsigned_number(field, SHORT, UINT32_MAX, &value);
	if (r < 0)
		return r;
	*ret_value = (uint32_t)value;
	return 0;
}

static size_t copy_text(char *to, const uint8_t *from, size_t size)
{
	size_t length = strnlen((const char *)from, size);
	memcpy(to, from, length);
	to[length] = '\0';
	return length;
}

/* The prefix field is a part of the name in ustar only; GNU tar keeps other things there, and star's is shorter. */
static void decode_name(const uint8_t *block, char ret_name[static TAR_HEADER_NAME])
{
	size_t length = 0;
	if (memcmp(block + MAGIC, "ustar\0", 6) == 0) {
		bool star = memcmp(block + STAR_MAGIC, "tar\0", 4) == 0;
		length = copy_text(ret_name, block + PREFIX, star ? STAR_PREFIX_SIZE : PREFIX_SIZE);
		if (length > 0)
			ret_name[length++] = '/';
	}
	copy_text(ret_name + length, block + NAME, NAME_SIZE);
}

int tar_header_decode(const uint8_t block[static TAR_BLOCK], TarHeader *ret_header, const char **ret_field)
{
	TarHeader header = { .typeflag = (char)block[TYPEFLAG] };
	const char *field = NULL;
	int64_t mode = 0;
	if (tar_header_number(block + MODE, SHORT, &mode) < 0)
		field = "mode";
	else if (number32(block + UID, &header.uid) < 0)
		field = "uid";
	else if (number32(block + GID, &header.gid) < 0)
		field = "gid";
	else if (unsigned_number(block + SIZE, LONG, INT64_MAX, &header.size) < 0)
		field = "size";
	else if (tar_header_number(block + MTIME, LONG, &header.mtime) < 0)
		field = "mtime";
	/* A v7 header holds nothing defined where a device's numbers are in later ones. */
	bool device = header.typeflag == '3' || header.typeflag == '4';
	if (!field && device &&
	    (number32(block + MAJOR, &header.device_major) < 0 || number32(block + MINOR, &header.device_minor) < 0))
		field = "device number";
	if (field) {
		*ret_field = field;
		return -EBADMSG;
	}
	header.mode = (uint32_t)mode & 07777;
	decode_name(block, header.name);
	copy_text(header.target, block + TARGET, TARGET_SIZE);
	*ret_header = header;
	return 0;
}
