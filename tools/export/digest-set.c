#include "tools/export/digest-set.h"

#include <errno.h>
#include <stdlib.h>

void digest_set_done(DigestSet *set)
{
	free(set->items);
	*set = (DigestSet){ 0 };
}

int digest_set_add(DigestSet *set, const Digest *digest)
{
	if (set->count == set->capacity) {
		size_t capacity = set->capacity ? 2 * set->capacity : 64;
		Digest *items = reallocarray(set->items, capacity, sizeof(*items));
		if (!items)
			return -ENOMEM;
		set->items = items;
		set->capacity = capacity;
	}
	set->items[set->count++] = *digest;
	return 0;
}

static int compare(const void *left, const void *right)
{
	return digest_compare(left, right);
}

void digest_set_seal(DigestSet *set)
{
	size_t kept = 0;
	if (set->count > 0)
		qsort(set->items, set->count, sizeof(*set->items), compare);
	for (size_t i = 0; i < set->count; i++) {
		if (kept == 0 || !digest_equal(&set->items[kept - 1], &set->items[i]))
			set->items[kept++] = set->items[i];
	}
	set->count = kept;
}

bool digest_set_has(const DigestSet *set, const Digest *digest)
{
	return set->count > 0 && bsearch(digest, set->items, set->count, sizeof(*set->items), compare) != NULL;
}
