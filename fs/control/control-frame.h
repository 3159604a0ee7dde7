/*
 * Frames of the control socket: 4 bytes, little-endian, with the length of what follows, and a JSON object of that length. Both sides
 * first send {"imgfsd": CONTROL_VERSION}. Pure computation on bytes from outside.
 */
#pragma once

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/base/error.h"

#define CONTROL_VERSION     1
#define CONTROL_FRAME_MAX   (1u << 20) /* of the object; the header comes before it */
#define CONTROL_HEADER_SIZE 4u

/* Collects one frame. Memory grows with what has come, not with what a header promises. One owner. */
typedef struct ControlReader {
	uint8_t header[CONTROL_HEADER_SIZE];
	size_t header_used;
	uint8_t *body;
	size_t body_used, body_room;
} ControlReader;

void control_reader_done(ControlReader *reader); /* safe on a zeroed one; it can be used again then */

/* How many bytes may be read next without running into the next frame: at least 1, but for a frame that is whole. */
size_t control_reader_wanted(const ControlReader *reader);

/*
 * Takes `size` bytes, at most control_reader_wanted(). Returns 1 when the frame is whole, 0 when not yet. Errors: -EMSGSIZE (the header
 * promises nothing, or more than CONTROL_FRAME_MAX), -ENOMEM.
 */
int control_reader_feed(ControlReader *reader, const void *bytes, size_t size) _must_check_;

/* Parses a frame that is whole and empties the reader; the object is the caller's. Errors: -EBADMSG (no JSON object), with a sentence. */
int control_reader_take(ControlReader *reader, json_t **ret_json, Error *error) _must_check_;

/*
 * As above from a socket: reads once, what is there, at most to the end of the frame. Returns as control_reader_feed(). Errors: that one's,
 * -EAGAIN (nothing there), -ECONNRESET (the other side has ended), read's.
 */
int control_reader_read(ControlReader *reader, int fd) _must_check_;

/* The bytes of a frame, malloc'ed, the caller's. Errors: -EMSGSIZE, -ENOMEM. */
int control_frame_encode(const json_t *json, uint8_t **ret_bytes, size_t *ret_size) _must_check_;

/* Checks the first frame of the other side. Errors: -EPROTONOSUPPORT, -EBADMSG, with a sentence. */
int control_check_hello(const json_t *hello, Error *error) _must_check_;

/* {"imgfsd": CONTROL_VERSION}, the caller's; NULL when memory is out. */
json_t *control_hello(void);

/* "ENOENT" and the like for an errno (negative or not) and back; -EIO for a name that is none. */
const char *control_code_name(int code);
int control_code_of(const char *name);
