/*
 * A start-up profile: which chunks of an image were read first, and in which order (docs/format.md section 7). What it says is a hint:
 * a wrong one costs bytes and never correctness.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "fs/base/digest.h"
#include "fs/base/error.h"

#define PROFILE_MEDIA_TYPE  "application/vnd.imgfs.profile.v1"
#define PROFILE_VERSION     1u
#define PROFILE_HEADER_SIZE 64u
#define PROFILE_RANGE_SIZE  12u
#define PROFILE_SUM_SIZE    8u
#define PROFILE_RANGES_MAX  32768u
#define PROFILE_SIZE_MAX    (PROFILE_HEADER_SIZE + PROFILE_RANGES_MAX * PROFILE_RANGE_SIZE + PROFILE_SUM_SIZE)

/* The most that a profile may make a node fetch, and that one is recorded of: bytes of frames. */
#define PROFILE_BYTES_MAX (UINT64_C(64) << 20)

enum {
	PROFILE_CARRIED = 1, /* not recorded with this image, but carried over from another version of it */
};

typedef struct ProfileRange {
	uint32_t layer; /* of the manifest, lowest first */
	uint32_t first; /* chunk */
	uint32_t count; /* of chunks, at least 1 */
} ProfileRange;

typedef struct Profile {
	Digest manifest;       /* of the image */
	uint32_t milliseconds; /* from the first read to the last one that is in it */
	uint32_t flags;        /* PROFILE_* */
	size_t count;
	ProfileRange *ranges; /* in the order of first reads; owned */
} Profile;

void profile_done(Profile *profile); /* safe on a zeroed one and twice */

/*
 * Appends chunks of a layer; those that go on where the last range ends, up or down, become part of it. Errors: -EFBIG
 * (PROFILE_RANGES_MAX), -EINVAL (no chunk, or numbers that cannot be), -ENOMEM.
 */
int profile_add(Profile *profile, uint32_t layer, uint32_t first, uint32_t count) _must_check_;

/* The bytes of a profile, malloc'ed, the caller's. Errors: -EFBIG, -ENOMEM. */
int profile_encode(const Profile *profile, uint8_t **ret_data, size_t *ret_size) _must_check_;

/*
 * Whether layers and chunks exist, only the image knows; all else is checked. Errors: -EBADMSG, -EPROTONOSUPPORT (another version),
 * -ENOMEM.
 */
int profile_decode(const void *data, size_t size, Profile *ret_profile, Error *error) _must_check_;
