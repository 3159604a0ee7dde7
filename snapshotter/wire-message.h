/*
 * What gRPC puts around HTTP/2: the frame around each message, status codes and the text beside them (grpc/doc/PROTOCOL-HTTP2.md). Pure.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/base/cleanup.h"

#define WIRE_PREFIX_SIZE 5 /* before each message: 1 byte "compressed", 4 bytes length, the high one first */
#define WIRE_MESSAGE_MAX (16u << 20)

/* grpc/doc/statuscodes.md; those that are sent or understood. */
typedef enum WireStatus {
	WIRE_OK = 0,
	WIRE_CANCELLED = 1,
	WIRE_UNKNOWN = 2,
	WIRE_INVALID_ARGUMENT = 3,
	WIRE_NOT_FOUND = 5,
	WIRE_ALREADY_EXISTS = 6,
	WIRE_RESOURCE_EXHAUSTED = 8,
	WIRE_FAILED_PRECONDITION = 9,
	WIRE_UNIMPLEMENTED = 12,
	WIRE_INTERNAL = 13,
	WIRE_UNAVAILABLE = 14,
} WireStatus;

/*
 * The one place where an error of a handler becomes a status: -ENOENT NotFound, -EEXIST AlreadyExists, -EINVAL InvalidArgument, -EBUSY
 * FailedPrecondition, -EOPNOTSUPP Unimplemented, -EAGAIN Unavailable, -ECANCELED Cancelled, -ENOMEM and -ENOSPC ResourceExhausted, all
 * others Unknown. So a system call's ENOENT must never be handed on as it is.
 */
WireStatus wire_status_of(int error);

/* And back, for a client; 0 for OK, -EIO for what has no errno of its own. */
int wire_status_errno(WireStatus status);

/* The five bytes before a message of `size` bytes, at most WIRE_MESSAGE_MAX. */
void wire_prefix_write(uint8_t prefix[static WIRE_PREFIX_SIZE], size_t size);
void wire_prefix_read(const uint8_t prefix[static WIRE_PREFIX_SIZE], bool *ret_compressed, uint32_t *ret_size);

/* Percent-encodes `text` into `ret_value` (`size` bytes, at least 1), cut between two bytes of `text` where it would not fit. */
void wire_text_encode(const char *text, char *ret_value, size_t size);

/* And back; what is no escape stays as it is. */
void wire_text_decode(const char *value, size_t length, char *ret_text, size_t size);
