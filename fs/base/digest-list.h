/* A set of digests that is filled first and asked then. One owner. */
#pragma once

#include <stddef.h>

#include "fs/base/digest.h"

typedef struct DigestList {
	Digest *digests;
	size_t count, room;
} DigestList;

void digest_list_done(DigestList *list); /* safe on a zeroed one */

/* Errors: -ENOMEM. */
int digest_list_add(DigestList *list, const Digest *digest) _must_check_;

/* Puts them into order, as digest_list_has() wants it. */
void digest_list_sort(DigestList *list);
bool digest_list_has(const DigestList *list, const Digest *digest);
