#include "snapshotter/wire-message.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

static const struct {
	int error;
	WireStatus status;
} statuses[] = {
	{ 0, WIRE_OK },
	{ -ENOENT, WIRE_NOT_FOUND },
	{ -EEXIST, WIRE_ALREADY_EXISTS },
	{ -EINVAL, WIRE_INVALID_ARGUMENT },
	{ -EBUSY, WIRE_FAILED_PRECONDITION },
	{ -EOPNOTSUPP, WIRE_UNIMPLEMENTED },
	{ -EAGAIN, WIRE_UNAVAILABLE },
	{ -ECANCELED, WIRE_CANCELLED },
	{ -ENOSPC, WIRE_RESOURCE_EXHAUSTED },
	{ -ENOMEM, WIRE_RESOURCE_EXHAUSTED },
};

WireStatus wire_status_of(int error)
{
	for (size_t i = 0; i < ELEMENTS(statuses); i++)
		if (statuses[i].error == error)
			return statuses[i].status;
	return WIRE_UNKNOWN;
}

int wire_status_errno(WireStatus status)
{
	for (size_t i = 0; i < ELEMENTS(statuses); i++)
		if (statuses[i].status == status)
			return statuses[i].error;
	return -EIO;
}

void wire_prefix_write(uint8_t prefix[static WIRE_PREFIX_SIZE], size_t size)
{
	uint32_t big = htobe32((uint32_t)size);
	prefix[0] = 0;
	memcpy(prefix + 1, &big, sizeof(big));
}

void wire_prefix_read(const uint8_t prefix[static WIRE_PREFIX_SIZE], bool *ret_compressed, uint32_t *ret_size)
{
	uint32_t big;
	memcpy(&big, prefix + 1, sizeof(big));
	*ret_compressed = prefix[0] != 0;
	*ret_size = be32toh(big);
}

void wire_text_encode(const char *text, char *ret_value, size_t size)
{
	static const char digits[] = "0123456789ABCDEF";
	size_t used = 0;
	for (; *text; text++) {
		unsigned char byte = (unsigned char)*text;
		if (byte >= 0x20 && byte <= 0x7e && byte != '%') {
			if (used + 1 >= size)
				break;
			ret_value[used++] = (char)byte;
			continue;
		}
		if (used + 3 >= size)
			break;
		ret_value[used++] = '%';
		ret_value[used++] = digits[byte >> 4];
		ret_value[used++] = digits[byte & 15];
	}
	ret_value[used] = '\0';
}

static int hex_digit(char digit)
{
	if (digit >= '0' && digit <= '9')
		return digit - '0';
	if (digit >= 'A' && digit <= 'F')
		return digit - 'A' + 10;
	return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

void wire_text_decode(const char *value, size_t length, char *ret_text, size_t size)
{
	size_t used = 0;
	for (size_t i = 0; i < length && used + 1 < size; i++) {
		int high = -1, low = -1;
		if (value[i] == '%' && length - i > 2) {
			high = hex_digit(value[i + 1]);
			low = hex_digit(value[i + 2]);
		}
		if (high >= 0 && low >= 0) {
			ret_text[used++] = (char)(high << 4 | low);
			i += 2;
		} else {
			ret_text[used++] = value[i];
		}
	}
	ret_text[used] = '\0';
}
