/*
 * Changes. Whoever finds nobody writing does what waits, its own change among it, in one transaction; the others sleep until theirs is
 * done. With one client that is a transaction a change, with many one fsync for all that came meanwhile.
 */
#include <string.h>
#include <utlist.h>

#include "snapshotter/meta-private.h"

static int apply(MetaDb *db, MetaChange *change)
{
	int r = meta_run(db, META_MARK, change->error);
	if (r < 0)
		return r;
	r = change->apply(db, change->arg, change->error);
	if (r < 0)
		(void)meta_run(db, META_UNDO_MARK, NULL);
	int end = meta_run(db, META_END_MARK, r < 0 ? NULL : change->error);
	return r < 0 ? r : end;
}

static void fail_all(MetaChange *changes, int result, const Error *error)
{
	MetaChange *change;
	DL_FOREACH(changes, change)
	{
		if (change->result == 0)
			change->result = error_set(change->error, result, "%s", error->message);
	}
}

/*
 * A failure of the disk can undo the whole transaction (sqlite3_get_autocommit()): then nothing has happened of what came before, and what comes
 * after would be a transaction of its own.
 */
static int apply_all(MetaDb *db, MetaChange *changes, bool *any, Error *error)
{
	MetaChange *change;
	DL_FOREACH(changes, change)
	{
		change->result = apply(db, change);
		*any = *any || change->result == 0;
		if (change->result < 0 && sqlite3_get_autocommit(db->db))
			return error_set(error, change->result, "a change at the same time failed: %s",
					 error_text(change->error, change->result));
	}
	return 0;
}

static void write_batch(MetaDb *db, MetaChange *changes)
{
	Error error = { 0 };
	bool any = false;
	int r = meta_run(db, META_BEGIN_WRITE, &error);
	if (r == 0)
		r = apply_all(db, changes, &any, &error);
	if (r < 0) {
		fail_all(changes, r, &error);
		return;
	}
	r = meta_run(db, any ? META_END : META_UNDO, &error);
	if (r < 0) {
		fail_all(changes, r, &error);
		/* Some failures have undone the transaction already. */
		if (!sqlite3_get_autocommit(db->db))
			(void)meta_run(db, META_UNDO, NULL);
	}
}

int meta_change(Meta *meta, int (*apply_change)(MetaDb *db, void *arg, Error *error), void *arg, Error *error)
{
	MetaChange change = { .apply = apply_change, .arg = arg, .error = error };
	(void)pthread_mutex_lock(&meta->lock);
	DL_APPEND(meta->changes, &change);
	while (!change.done) {
		if (meta->writing) {
			(void)pthread_cond_wait(&meta->written, &meta->lock);
			continue;
		}
		MetaChange *batch = TAKE_PTR(meta->changes), *one;
		meta->writing = true;
		(void)pthread_mutex_unlock(&meta->lock);
		write_batch(meta->writer, batch);
		(void)pthread_mutex_lock(&meta->lock);
		meta->writing = false;
		DL_FOREACH(batch, one)
		one->done = true;
		(void)pthread_cond_broadcast(&meta->written);
	}
	(void)pthread_mutex_unlock(&meta->lock);
	return change.result;
}

int meta_bind_text(MetaDb *db, sqlite3_stmt *statement, int at, const char *text, Error *error)
{
	return sqlite3_bind_text(statement, at, text, -1, SQLITE_STATIC) == SQLITE_OK ? 0 : meta_fail(db, error);
}

int meta_add_labels(MetaDb *db, uint64_t id, const MetaLabels *labels, Error *error)
{
	for (size_t i = 0; i < labels->count; i++) {
		const MetaLabel *label = &labels->labels[i];
		sqlite3_stmt *statement = meta_statement(db, META_ADD_LABEL, error);
		if (!statement)
			return -EIO;
		(void)sqlite3_bind_int64(statement, 1, (int64_t)id);
		int r = meta_bind_text(db, statement, 2, label->name, error);
		if (r == 0)
			r = meta_bind_text(db, statement, 3, label->value, error);
		if (r == 0)
			r = meta_step(db, statement, error);
		if (r < 0)
			return r;
	}
	return 0;
}

/* A statement whose parameters are an id and perhaps a number. */
static int run_with(MetaDb *db, MetaStatement which, uint64_t id, int64_t number, Error *error)
{
	sqlite3_stmt *statement = meta_statement(db, which, error);
	if (!statement)
		return -EIO;
	(void)sqlite3_bind_int64(statement, 1, (int64_t)id);
	if (sqlite3_bind_parameter_count(statement) > 1)
		(void)sqlite3_bind_int64(statement, 2, number);
	int r = meta_step(db, statement, error);
	if (r == 1)
		(void)sqlite3_reset(statement);
	return r;
}

static int replace_labels(MetaDb *db, uint64_t id, const MetaLabels *labels, Error *error)
{
	int r = run_with(db, META_DROP_LABELS, id, 0, error);
	return r < 0 ? r : meta_add_labels(db, id, labels, error);
}

/* -EEXIST if there is one. */
int meta_refuse_existing(MetaDb *db, const char *key, Error *error)
{
	_cleanup_(meta_info_done) MetaInfo info = { 0 };
	int r = meta_db_find(db, key, &info, error);
	if (r == 0)
		return error_set(error, -EEXIST, "snapshot %s exists already", key);
	return r == -ENOENT ? 0 : r;
}

typedef struct Create {
	const MetaCreate *what;
	MetaChain *ret_chain;
} Create;

int meta_find_parent(MetaDb *db, const char *name, int not_committed, uint64_t *ret_id, Error *error)
{
	_cleanup_(meta_info_done) MetaInfo parent = { 0 };
	int r = name ? meta_db_find(db, name, &parent, error) : 0;
	if (r < 0)
		return error_prefix(error, r, "the parent is missing");
	if (name && parent.kind != META_COMMITTED)
		return error_set(error, not_committed, "the parent %s is not a committed snapshot", name);
	*ret_id = parent.id; /* 0 without a name */
	return 0;
}

int meta_insert_row(MetaDb *db, const MetaRow *row, Error *error)
{
	sqlite3_stmt *statement = meta_statement(db, META_INSERT, error);
	if (!statement)
		return -EIO;
	(void)sqlite3_bind_int64(statement, 1, (int64_t)row->id);
	int r = meta_bind_text(db, statement, 2, row->key, error);
	if (r < 0)
		return r;
	if (row->parent)
		(void)sqlite3_bind_int64(statement, 3, (int64_t)row->parent);
	(void)sqlite3_bind_int(statement, 4, row->kind);
	(void)sqlite3_bind_int64(statement, 5, row->now);
	r = meta_step(db, statement, error);
	return r < 0 ? r : meta_add_labels(db, row->id, row->labels, error);
}

static int apply_create(MetaDb *db, void *arg, Error *error)
{
	const Create *create = arg;
	const MetaCreate *what = create->what;
	MetaRow row = {
		.id = what->id, .key = what->key, .kind = what->kind, .labels = what->labels, .now = what->now
	};
	int r = meta_find_parent(db, what->parent, -EINVAL, &row.parent, error);
	if (r == 0)
		r = meta_refuse_existing(db, what->key, error);
	if (r == 0)
		r = meta_insert_row(db, &row, error);
	return r < 0 ? r : meta_db_ancestors(db, what->id, create->ret_chain, error);
}

int meta_create(Meta *meta, const MetaCreate *create, MetaChain *ret_chain, Error *error)
{
	_cleanup_(meta_chain_done) MetaChain chain = { 0 };
	Create change = { .what = create, .ret_chain = &chain };
	int r = meta_change(meta, apply_create, &change, error);
	if (r < 0)
		return r;
	*ret_chain = chain;
	chain = (MetaChain){ 0 };
	return 0;
}

/* A parent that is named only now. */
static int check_new_parent(MetaDb *db, const MetaCommit *what, const MetaInfo *active, uint64_t *ret_parent,
			    Error *error)
{
	if (active->parent && strcmp(active->parent, what->parent) == 0)
		return 0;
	if (active->parent)
		return error_set(error, -EINVAL, "snapshot %s has the parent %s, which cannot become %s", what->key,
				 active->parent, what->parent);
	return meta_find_parent(db, what->parent, -EBUSY, ret_parent, error);
}

static int write_commit(MetaDb *db, const MetaCommit *what, uint64_t parent, Error *error)
{
	sqlite3_stmt *statement = meta_statement(db, META_COMMIT, error);
	if (!statement)
		return -EIO;
	(void)sqlite3_bind_int64(statement, 1, (int64_t)what->id);
	int r = meta_bind_text(db, statement, 2, what->name, error);
	if (r < 0)
		return r;
	(void)sqlite3_bind_int64(statement, 3, what->now);
	(void)sqlite3_bind_int64(statement, 4, what->size);
	(void)sqlite3_bind_int64(statement, 5, what->inodes);
	if (parent)
		(void)sqlite3_bind_int64(statement, 6, (int64_t)parent);
	r = meta_step(db, statement, error);
	return r < 0 ? r : replace_labels(db, what->id, what->labels, error);
}

static int apply_commit(MetaDb *db, void *arg, Error *error)
{
	const MetaCommit *what = arg;
	_cleanup_(meta_info_done) MetaInfo active = { 0 };
	uint64_t parent = 0;
	int r = meta_db_find(db, what->key, &active, error);
	if (r < 0)
		return r;
	if (active.id != what->id)
		return error_set(error, -ENOENT, "snapshot %s was removed meanwhile", what->key);
	r = meta_refuse_existing(db, what->name, error);
	if (r < 0)
		return r;
	if (active.kind != META_ACTIVE)
		return error_set(error, -EBUSY, "snapshot %s is not active, so it cannot be committed", what->key);
	if (what->parent)
		r = check_new_parent(db, what, &active, &parent, error);
	return r < 0 ? r : write_commit(db, what, parent, error);
}

int meta_commit(Meta *meta, const MetaCommit *commit, Error *error)
{
	MetaCommit change = *commit;
	return meta_change(meta, apply_commit, &change, error);
}

static int apply_remove(MetaDb *db, void *arg, Error *error)
{
	const char *key = arg;
	_cleanup_(meta_info_done) MetaInfo info = { 0 };
	int r = meta_db_find(db, key, &info, error);
	if (r == 0)
		r = run_with(db, META_HAS_CHILD, info.id, 0, error);
	if (r == 1)
		return error_set(error, -EBUSY, "cannot remove snapshot %s: others have it as their parent", key);
	return r < 0 ? r : run_with(db, META_DELETE, info.id, 0, error);
}

int meta_remove(Meta *meta, const char *key, Error *error)
{
	return meta_change(meta, apply_remove, (void *)(uintptr_t)key, error);
}

typedef struct Update {
	const MetaUpdate *what;
	MetaInfo *ret_info;
} Update;

static int update_path(const MetaUpdate *what, const char *path, MetaLabels *labels, Error *error)
{
	static const char one[] = "labels.";
	if (strcmp(path, "labels") == 0) {
		int r = 0;
		meta_labels_done(labels);
		for (size_t i = 0; r == 0 && i < what->labels->count; i++)
			r = meta_labels_set(labels, what->labels->labels[i].name, what->labels->labels[i].value, error);
		return r;
	}
	if (strncmp(path, one, sizeof(one) - 1) == 0) {
		const char *name = path + sizeof(one) - 1;
		return meta_labels_set(labels, name, meta_labels_get(what->labels, name) ?: "", error);
	}
	return error_set(error, -EINVAL, "the field \"%s\" of snapshot %s cannot be changed, only its labels", path,
			 what->key);
}

static int apply_update(MetaDb *db, void *arg, Error *error)
{
	const Update *update = arg;
	const MetaUpdate *what = update->what;
	MetaInfo *info = update->ret_info;
	int r = meta_db_find(db, what->key, info, error);
	if (r == 0)
		r = meta_db_labels(db, info->id, &info->labels, error);
	if (r == 0 && what->path_count == 0)
		r = update_path(what, "labels", &info->labels, error);
	for (size_t i = 0; r == 0 && i < what->path_count; i++)
		r = update_path(what, what->paths[i], &info->labels, error);
	if (r == 0)
		r = replace_labels(db, info->id, &info->labels, error);
	info->updated = what->now;
	return r < 0 ? r : run_with(db, META_TOUCH, info->id, what->now, error);
}

int meta_update(Meta *meta, const MetaUpdate *update, MetaInfo *ret_info, Error *error)
{
	_cleanup_(meta_info_done) MetaInfo info = { 0 };
	Update change = { .what = update, .ret_info = &info };
	int r = meta_change(meta, apply_update, &change, error);
	if (r < 0)
		return r;
	*ret_info = info;
	info = (MetaInfo){ 0 };
	return 0;
}
