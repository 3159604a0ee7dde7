/* Which tags an exported image gets. */
#pragma once

#include "tools/export/export-image.h"

void export_tags_free(ExportTag *tags, size_t count);

/*
 * The tags for an image its source calls `names`, or the one `wanted` when that is not NULL. A registry host is left out of the source's
 * names (the store's tags have none), and names that cannot be tags are left out whole. Errors: -EINVAL with a sentence
 * when nothing remains; -ENOMEM.
 */
int export_tags_choose(const char *wanted, char *const *names, size_t name_count, ExportTag **ret_tags,
		       size_t *ret_count, Error *error) _must_check_;
