/*
 * Little-endian loads and stores, and a bounds check for ranges that come from outside. Bytes from a file or
 * the network are read through these only; a mapped file is never cast to a struct.
 */
#pragma once

#include <endian.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static inline uint16_t load_le16(const void *bytes)
{
	uint16_t value;
	memcpy(&value, bytes, sizeof(value));
	return le16toh(value);
}

static inline uint32_t load_le32(const void *bytes)
{
	uint32_t value;
	memcpy(&value, bytes, sizeof(value));
	return le32toh(value);
}

static inline uint64_t load_le64(const void *bytes)
{
	uint64_t value;
	memcpy(&value, bytes, sizeof(value));
	return le64toh(value);
}

static inline void store_le16(void *bytes, uint16_t value)
{
	value = htole16(value);
	memcpy(bytes, &value, sizeof(value));
}

static inline void store_le32(void *bytes, uint32_t value)
{
	value = htole32(value);
	memcpy(bytes, &value, sizeof(value));
}

static inline void store_le64(void *bytes, uint64_t value)
{
	value = htole64(value);
	memcpy(bytes, &value, sizeof(value));
}

/* Is [offset, offset + length) within `total`, without overflow? */
static inline bool range_within(uint64_t offset, uint64_t length, uint64_t total)
{
	return offset <= total && length <= total - offset;
}
