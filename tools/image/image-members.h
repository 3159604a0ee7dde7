/* The members of an image archive by name: where each is, or its bytes, or the layer it was. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uthash.h>

#include "fs/base/digest.h"
#include "fs/base/error.h"
#include "tools/export/tar-reader.h"

#define IMAGE_MEMBERS_MAX 65536u

typedef struct ImageMember {
	char *name;      /* without leading "./" or "/" */
	char *link;      /* what a link means, as a member's name; NULL for other types */
	uint64_t offset; /* of its data in the archive, and how much there is */
	uint64_t size;
	char *data;    /* its bytes where they were kept, NUL-terminated beyond size; else NULL */
	bool is_layer; /* it passed by and was handed on as a layer, which `diff_id` names */
	Digest diff_id;
	UT_hash_handle hh;
} ImageMember;

typedef struct ImageMembers {
	ImageMember *table;
} ImageMembers;

void image_members_done(ImageMembers *members); /* safe on a zeroed one */

/*
 * Adds what a header says; a later member of a name replaces an earlier one, as in any tar. Errors: -EFBIG above
 * IMAGE_MEMBERS_MAX, -ENOMEM.
 */
int image_members_add(ImageMembers *members, const TarEntry *entry, ImageMember **ret_member, Error *error)
	_must_check_;

/* The member of that name, over links. Errors: -ENOENT (with a sentence; also for links in a circle). */
int image_members_find(const ImageMembers *members, const char *name, ImageMember **ret_member, Error *error)
	_must_check_;

/* The SHA-256 that a member's name claims: <hex>, <hex>.json, <hex>.tar, sha256:<hex>, in any directory. Errors: -EINVAL. */
int image_member_digest(const char *name, Digest *ret_digest) _must_check_;
