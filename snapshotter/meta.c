/* Opening, and what only reads. */
#include "snapshotter/meta.h"

#include <string.h>

#include "snapshotter/meta-private.h"

void meta_labels_done(MetaLabels *labels)
{
	for (size_t i = 0; i < labels->count; i++) {
		free(labels->labels[i].name);
		free(labels->labels[i].value);
	}
	free(labels->labels);
	*labels = (MetaLabels){ 0 };
}

void meta_info_done(MetaInfo *info)
{
	free(info->key);
	free(info->parent);
	free(info->lazy_path);
	meta_labels_done(&info->labels);
	*info = (MetaInfo){ 0 };
}

void meta_chain_done(MetaChain *chain)
{
	free(chain->ids);
	free(chain->lazy_path);
	*chain = (MetaChain){ 0 };
}

static int append_label(MetaLabels *labels, const char *name, const char *value)
{
	MetaLabel *larger = reallocarray(labels->labels, labels->count + 1, sizeof(*larger));
	if (!larger)
		return -ENOMEM;
	labels->labels = larger;
	MetaLabel label = { strdup(name), strdup(value) };
	if (!label.name || !label.value) {
		free(label.name);
		free(label.value);
		return -ENOMEM;
	}
	labels->labels[labels->count++] = label;
	labels->size += strlen(name) + strlen(value) + META_LABEL_COST;
	return 0;
}

static void remove_label(MetaLabels *labels, const char *name)
{
	for (size_t i = 0; i < labels->count; i++) {
		if (strcmp(labels->labels[i].name, name) != 0)
			continue;
		labels->size -= strlen(name) + strlen(labels->labels[i].value) + META_LABEL_COST;
		free(labels->labels[i].name);
		free(labels->labels[i].value);
		labels->labels[i] = labels->labels[--labels->count];
		return;
	}
}

int meta_labels_set(MetaLabels *labels, const char *name, const char *value, Error *error)
{
	remove_label(labels, name);
	if (!value[0])
		return 0;
	if (labels->size + strlen(name) + strlen(value) + META_LABEL_COST > META_LABELS_MAX)
		return error_set(error, -EINVAL, "a snapshot has at most %u bytes of labels, each with %u more",
				 META_LABELS_MAX, META_LABEL_COST);
	return append_label(labels, name, value) < 0 ? error_set(error, -ENOMEM, "out of memory") : 0;
}

const char *meta_labels_get(const MetaLabels *labels, const char *name)
{
	for (size_t i = 0; i < labels->count; i++)
		if (strcmp(labels->labels[i].name, name) == 0)
			return labels->labels[i].value;
	return NULL;
}

static char *column_text(sqlite3_stmt *statement, int column)
{
	const unsigned char *text = sqlite3_column_text(statement, column);
	return text ? strdup((const char *)text) : NULL;
}

/* All but the labels. */
static int read_row(sqlite3_stmt *statement, MetaInfo *info)
{
	*info = (MetaInfo){
		.id = (uint64_t)sqlite3_column_int64(statement, 0),
		.key = column_text(statement, 1),
		.parent = column_text(statement, 2),
		.kind = (MetaKind)sqlite3_column_int(statement, 3),
		.created = sqlite3_column_int64(statement, 4),
		.updated = sqlite3_column_int64(statement, 5),
		.size = sqlite3_column_int64(statement, 6),
		.inodes = sqlite3_column_int64(statement, 7),
		.lazy_path = column_text(statement, 8),
	};
	bool lacks = !info->key || (!info->parent && sqlite3_column_type(statement, 2) != SQLITE_NULL) ||
		     (!info->lazy_path && sqlite3_column_type(statement, 8) != SQLITE_NULL);
	return lacks ? -ENOMEM : 0;
}

int meta_db_find(MetaDb *db, const char *key, MetaInfo *ret_info, Error *error)
{
	_cleanup_(meta_info_done) MetaInfo info = { 0 };
	sqlite3_stmt *statement = meta_statement(db, META_FIND, error);
	if (!statement)
		return -EIO;
	if (sqlite3_bind_text(statement, 1, key, -1, SQLITE_STATIC) != SQLITE_OK)
		return meta_fail(db, error);
	int r = meta_step(db, statement, error);
	if (r == 0)
		return error_set(error, -ENOENT, "snapshot %s does not exist", key);
	if (r < 0)
		return r;
	r = read_row(statement, &info);
	(void)sqlite3_reset(statement);
	if (r < 0)
		return error_set(error, r, "out of memory");
	*ret_info = info;
	info = (MetaInfo){ 0 };
	return 0;
}

int meta_db_labels(MetaDb *db, uint64_t id, MetaLabels *ret_labels, Error *error)
{
	sqlite3_stmt *statement = meta_statement(db, META_LABELS, error);
	if (!statement)
		return -EIO;
	(void)sqlite3_bind_int64(statement, 1, (int64_t)id);
	int r;
	while ((r = meta_step(db, statement, error)) == 1) {
		const char *name = (const char *)sqlite3_column_text(statement, 0);
		const char *value = (const char *)sqlite3_column_text(statement, 1);
		if (name && value && append_label(ret_labels, name, value) == 0)
			continue;
		(void)sqlite3_reset(statement);
		return error_set(error, -ENOMEM, "out of memory");
	}
	return r;
}

static int append_id(uint64_t **ids, size_t *count, uint64_t id)
{
	if ((*count & (*count - 1)) == 0) {
		uint64_t *larger = reallocarray(*ids, *count ? *count * 2 : 1, sizeof(*larger));
		if (!larger)
			return -ENOMEM;
		*ids = larger;
	}
	(*ids)[(*count)++] = id;
	return 0;
}

/* All ids of a statement's rows. */
static int read_ids(MetaDb *db, sqlite3_stmt *statement, MetaChain *ret_ids, Error *error)
{
	_cleanup_(meta_chain_done) MetaChain ids = { 0 };
	int r;
	while ((r = meta_step(db, statement, error)) == 1) {
		if (append_id(&ids.ids, &ids.count, (uint64_t)sqlite3_column_int64(statement, 0)) == 0)
			continue;
		(void)sqlite3_reset(statement);
		return error_set(error, -ENOMEM, "out of memory");
	}
	if (r < 0)
		return r;
	*ret_ids = ids;
	ids = (MetaChain){ 0 };
	return 0;
}

int meta_db_ancestors(MetaDb *db, uint64_t id, MetaChain *ret_chain, Error *error)
{
	_cleanup_(meta_chain_done) MetaChain chain = { 0 };
	int r;
	sqlite3_stmt *statement = meta_statement(db, META_ANCESTORS, error);
	if (!statement)
		return -EIO;
	(void)sqlite3_bind_int64(statement, 1, (int64_t)id);
	while ((r = meta_step(db, statement, error)) == 1) {
		uint64_t ancestor = (uint64_t)sqlite3_column_int64(statement, 0);
		bool lazy = sqlite3_column_type(statement, 1) != SQLITE_NULL;
		if (lazy) {
			chain.lazy_id = ancestor;
			chain.lazy_path = column_text(statement, 1);
		}
		bool lacks = lazy ? !chain.lazy_path : append_id(&chain.ids, &chain.count, ancestor) < 0;
		if (lazy || lacks)
			(void)sqlite3_reset(statement);
		if (lacks)
			return error_set(error, -ENOMEM, "out of memory");
		if (lazy)
			break;
	}
	if (r < 0)
		return r;
	*ret_chain = chain;
	chain = (MetaChain){ 0 };
	return 0;
}

/* A connection of one's own, made when there is none free. */
static int take_reader(Meta *meta, MetaDb **ret_db, Error *error)
{
	(void)pthread_mutex_lock(&meta->lock);
	MetaDb *db = meta->readers;
	if (db) {
		meta->readers = db->next;
		meta->reader_count--;
	}
	(void)pthread_mutex_unlock(&meta->lock);
	if (!db)
		return meta_db_open(meta->path, meta->read_only, ret_db, error);
	*ret_db = db;
	return 0;
}

static void return_reader(Meta *meta, MetaDb *db)
{
	(void)pthread_mutex_lock(&meta->lock);
	bool keep = meta->reader_count < META_READERS_KEPT;
	if (keep) {
		db->next = meta->readers;
		meta->readers = db;
		meta->reader_count++;
	}
	(void)pthread_mutex_unlock(&meta->lock);
	if (!keep)
		(void)meta_db_close(db);
}

int meta_read(Meta *meta, MetaRead *function, void *arg, Error *error)
{
	MetaDb *db;
	int r = take_reader(meta, &db, error);
	if (r < 0)
		return r;
	r = meta_run(db, META_BEGIN, error);
	if (r == 0) {
		r = function(db, arg, error);
		(void)meta_run(db, META_END, NULL);
	}
	return_reader(meta, db);
	return r;
}

typedef struct Stat {
	const char *key;
	MetaInfo *info;
	MetaChain *chain; /* NULL: not wanted */
} Stat;

static int read_stat(MetaDb *db, void *arg, Error *error)
{
	const Stat *stat = arg;
	int r = meta_db_find(db, stat->key, stat->info, error);
	if (r == 0)
		r = meta_db_labels(db, stat->info->id, &stat->info->labels, error);
	if (r == 0 && stat->chain)
		r = meta_db_ancestors(db, stat->info->id, stat->chain, error);
	return r;
}

int meta_chain(Meta *meta, const char *key, MetaInfo *ret_info, MetaChain *ret_chain, Error *error)
{
	MetaInfo info = { 0 };
	MetaChain chain = { 0 };
	Stat stat = { .key = key, .info = &info, .chain = ret_chain ? &chain : NULL };
	int r = meta_read(meta, read_stat, &stat, error);
	if (r < 0) {
		meta_info_done(&info);
		return r;
	}
	*ret_info = info;
	if (ret_chain)
		*ret_chain = chain;
	return 0;
}

int meta_stat(Meta *meta, const char *key, MetaInfo *ret_info, Error *error)
{
	return meta_chain(meta, key, ret_info, NULL, error);
}

typedef struct List {
	uint64_t after;
	const char *ref;
	size_t limit;
	MetaInfo *infos;
	size_t count;
} List;

static int read_list(MetaDb *db, void *arg, Error *error)
{
	List *list = arg;
	sqlite3_stmt *statement = meta_statement(db, list->ref ? META_LIST_REF : META_LIST, error);
	if (!statement)
		return -EIO;
	(void)sqlite3_bind_int64(statement, 1, (int64_t)list->after);
	(void)sqlite3_bind_int64(statement, 2, (int64_t)list->limit);
	if (list->ref && sqlite3_bind_text(statement, 3, list->ref, -1, SQLITE_STATIC) != SQLITE_OK)
		return meta_fail(db, error);
	int r;
	while ((r = meta_step(db, statement, error)) == 1) {
		MetaInfo *info = &list->infos[list->count++];
		r = read_row(statement, info);
		if (r < 0)
			(void)error_set(error, r, "out of memory");
		else
			r = meta_db_labels(db, info->id, &info->labels, error);
		if (r < 0) {
			(void)sqlite3_reset(statement);
			break;
		}
	}
	return r;
}

int meta_list(Meta *meta, uint64_t after, const char *ref, size_t limit, MetaInfo *ret_infos, size_t *ret_count,
	      Error *error)
{
	List list = { .after = after, .ref = ref, .limit = limit, .infos = ret_infos };
	int r = meta_read(meta, read_list, &list, error);
	if (r == 0) {
		*ret_count = list.count;
		return 0;
	}
	for (size_t i = 0; i < list.count; i++)
		meta_info_done(&ret_infos[i]);
	return r;
}

typedef struct Ids {
	MetaStatement which;
	MetaChain found;
} Ids;

static int read_which(MetaDb *db, void *arg, Error *error)
{
	Ids *ids = arg;
	sqlite3_stmt *statement = meta_statement(db, ids->which, error);
	return statement ? read_ids(db, statement, &ids->found, error) : -EIO;
}

static int ids_of(Meta *meta, MetaStatement which, uint64_t **ret_ids, size_t *ret_count, Error *error)
{
	Ids ids = { .which = which };
	int r = meta_read(meta, read_which, &ids, error);
	if (r < 0)
		return r;
	*ret_ids = ids.found.ids;
	*ret_count = ids.found.count;
	return 0;
}

int meta_ids(Meta *meta, uint64_t **ret_ids, size_t *ret_count, Error *error)
{
	return ids_of(meta, META_IDS, ret_ids, ret_count, error);
}

int meta_lazy_ids(Meta *meta, uint64_t **ret_ids, size_t *ret_count, Error *error)
{
	return ids_of(meta, META_LAZY_IDS, ret_ids, ret_count, error);
}

int meta_directory_ids(Meta *meta, uint64_t **ret_ids, size_t *ret_count, Error *error)
{
	return ids_of(meta, META_DIRECTORY_IDS, ret_ids, ret_count, error);
}

static int read_last_id(MetaDb *db, void *arg, Error *error)
{
	uint64_t *id = arg;
	sqlite3_stmt *statement = meta_statement(db, META_LAST_ID, error);
	int r = statement ? meta_step(db, statement, error) : -EIO;
	if (r == 1) {
		*id = (uint64_t)sqlite3_column_int64(statement, 0);
		(void)sqlite3_reset(statement);
		r = 0;
	}
	return r;
}

int meta_last_id(Meta *meta, uint64_t *ret_id, Error *error)
{
	uint64_t id = 0;
	int r = meta_read(meta, read_last_id, &id, error);
	if (r == 0)
		*ret_id = id;
	return r;
}

static int open_meta(const char *path, bool read_only, Meta **ret_meta, Error *error)
{
	_cleanup_(meta_close_p) Meta *meta = calloc(1, sizeof(*meta));
	if (!meta || !(meta->path = strdup(path))) {
		free(TAKE_PTR(meta));
		return error_set(error, -ENOMEM, "out of memory");
	}
	meta->read_only = read_only;
	(void)pthread_mutex_init(&meta->lock, NULL);
	(void)pthread_cond_init(&meta->written, NULL);
	int r = meta_db_open(path, read_only, &meta->writer, error);
	if (r == 0)
		r = (read_only ? meta_schema_check : meta_schema_apply)(meta->writer, path, error);
	if (r < 0)
		return r;
	if (!read_only) {
		meta_reserve_database(meta->writer);
		meta_reserve_log(path);
	}
	*ret_meta = TAKE_PTR(meta);
	return 0;
}

int meta_open(const char *path, Meta **ret_meta, Error *error)
{
	return open_meta(path, false, ret_meta, error);
}

int meta_look(const char *path, Meta **ret_meta, Error *error)
{
	if (access(path, F_OK) < 0)
		return error_set(error, -errno, "%s: %s", path, strerror(errno));
	return open_meta(path, true, ret_meta, error);
}

Meta *meta_close(Meta *meta)
{
	if (!meta)
		return NULL;
	while (meta->readers) {
		MetaDb *db = meta->readers;
		meta->readers = db->next;
		(void)meta_db_close(db);
	}
	if (meta->writer) {
		(void)meta_db_close(meta->writer);
		meta_reserve_log(meta->path); /* so that the next start finds it on a full disk, too */
	}
	(void)pthread_cond_destroy(&meta->written);
	(void)pthread_mutex_destroy(&meta->lock);
	free(meta->path);
	free(meta);
	return NULL;
}
