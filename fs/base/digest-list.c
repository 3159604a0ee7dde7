#include "fs/base/digest-list.h"

#include <errno.h>
#include <stdlib.h>

void digest_list_done(DigestList *list)
{
	free(list->digests);
	*list = (DigestList){ 0 };
}

int digest_list_add(DigestList *list, const Digest *digest)
{
	if (list->count == list->room) {
		size_t room = 2 * list->room + 64;
		Digest *digests = reallocarray(list->digests, room, sizeof(*digests));
		if (!digests)
			return -ENOMEM;
		list->digests = digests;
		list->room = room;
	}
	list->digests[list->count++] = *digest;
	return 0;
}

static int compare(const void *left, const void *right)
{
	return digest_compare(left, right);
}

void digest_list_sort(DigestList *list)
{
	if (list->count > 0)
		qsort(list->digests, list->count, sizeof(*list->digests), compare);
}

bool digest_list_has(const DigestList *list, const Digest *digest)
{
	return list->count > 0 && bsearch(digest, list->digests, list->count, sizeof(*digest), compare);
}
