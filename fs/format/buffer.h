/* Bytes that grow as they are written. One owner, no locking. A zeroed Buffer is an empty one. */
#pragma once

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "fs/base/cleanup.h"

typedef struct Buffer {
	uint8_t *data; /* owned */
	size_t size;
	size_t capacity;
} Buffer;

/* Frees what it holds and leaves it empty. */
static inline void buffer_done(Buffer *buffer)
{
	free(buffer->data);
	*buffer = (Buffer){ 0 };
}

/* Room for `size` more bytes at the end, counted in already; valid until the next call. NULL when memory is out. */
static inline uint8_t *buffer_extend(Buffer *buffer, size_t size)
{
	if (size > buffer->capacity - buffer->size) {
		size_t capacity = buffer->capacity ? buffer->capacity : 256;
		while (capacity - buffer->size < size) {
			if (capacity > SIZE_MAX / 2)
				return NULL;
			capacity *= 2;
		}
		uint8_t *data = realloc(buffer->data, capacity);
		if (!data)
			return NULL;
		buffer->data = data;
		buffer->capacity = capacity;
	}
	uint8_t *room = buffer->data + buffer->size;
	buffer->size += size;
	return room;
}

/* Errors: -ENOMEM. */
static inline _must_check_ int buffer_append(Buffer *buffer, const void *data, size_t size)
{
	if (size == 0)
		return 0;
	uint8_t *room = buffer_extend(buffer, size);
	if (!room)
		return -ENOMEM;
	memcpy(room, data, size);
	return 0;
}
