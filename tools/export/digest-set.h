/* A set of digests: filled first, asked afterwards. One owner, no locking. A zeroed one is empty. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "fs/base/digest.h"

typedef struct DigestSet {
	Digest *items;
	size_t count, capacity;
} DigestSet;

void digest_set_done(DigestSet *set);

/* Errors: -ENOMEM. */
int digest_set_add(DigestSet *set, const Digest *digest) _must_check_;

/* Sorts it and leaves each digest once; must come between the last digest_set_add() and the first digest_set_has(). */
void digest_set_seal(DigestSet *set);

bool digest_set_has(const DigestSet *set, const Digest *digest);
