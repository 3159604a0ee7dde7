/* Which mappings of ids are in use. */
#include <string.h>

#include "snapshotter/meta-private.h"

typedef struct Mappings {
	size_t count;
	MetaMapping *mappings;
} Mappings;

void meta_mappings_free(MetaMapping *mappings, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		free(mappings[i].uids);
		free(mappings[i].gids);
	}
	free(mappings);
}

static int add(Mappings *all, const char *uids, const char *gids, uint64_t lazy_id)
{
	MetaMapping *larger = reallocarray(all->mappings, all->count + 1, sizeof(*larger));
	if (!larger)
		return -ENOMEM;
	all->mappings = larger;
	MetaMapping *one = &larger[all->count++];
	*one = (MetaMapping){ uids ? strdup(uids) : NULL, gids ? strdup(gids) : NULL, lazy_id };
	return (uids && !one->uids) || (gids && !one->gids) ? -ENOMEM : 0;
}

static int read_mappings(MetaDb *db, void *arg, Error *error)
{
	int r;
	sqlite3_stmt *statement = meta_statement(db, META_MAPPINGS, error);
	if (!statement)
		return -EIO;
	while ((r = meta_step(db, statement, error)) == 1) {
		if (add(arg, (const char *)sqlite3_column_text(statement, 0),
			(const char *)sqlite3_column_text(statement, 1),
			(uint64_t)sqlite3_column_int64(statement, 2)) < 0) {
			(void)sqlite3_reset(statement);
			return error_set(error, -ENOMEM, "out of memory");
		}
	}
	return r;
}

int meta_mappings(Meta *meta, MetaMapping **ret_mappings, size_t *ret_count, Error *error)
{
	Mappings all = { 0 };
	int r = meta_read(meta, read_mappings, &all, error);
	if (r < 0) {
		meta_mappings_free(all.mappings, all.count);
		return r;
	}
	*ret_mappings = all.mappings;
	*ret_count = all.count;
	return 0;
}
