/* Lazy snapshots in the metadata. */
#include <string.h>

#include "snapshotter/meta-private.h"

void meta_layers_done(MetaLayers *layers)
{
	for (size_t i = 0; i < layers->count; i++)
		free(layers->layers[i]);
	free(layers->layers);
	free(layers->reference);
	*layers = (MetaLayers){ 0 };
}

int meta_db_has_ref(MetaDb *db, const char *parent, const char *ref, Error *error)
{
	sqlite3_stmt *statement = meta_statement(db, META_HAS_REF, error);
	if (!statement)
		return -EIO;
	int r = meta_bind_text(db, statement, 1, ref, error);
	if (r == 0 && parent)
		r = meta_bind_text(db, statement, 2, parent, error);
	if (r == 0)
		r = meta_step(db, statement, error);
	(void)sqlite3_reset(statement);
	return r;
}

typedef struct Ref {
	const char *parent, *ref;
	int found;
} Ref;

static int read_ref(MetaDb *db, void *arg, Error *error)
{
	Ref *ref = arg;
	ref->found = meta_db_has_ref(db, ref->parent, ref->ref, error);
	return ref->found < 0 ? ref->found : 0;
}

int meta_has_ref(Meta *meta, const char *parent, const char *ref, Error *error)
{
	Ref question = { .parent = parent, .ref = ref };
	int r = meta_read(meta, read_ref, &question, error);
	return r < 0 ? r : question.found;
}

static int insert_lazy(MetaDb *db, const MetaLazy *what, Error *error)
{
	sqlite3_stmt *statement = meta_statement(db, META_ADD_LAZY, error);
	if (!statement)
		return -EIO;
	(void)sqlite3_bind_int64(statement, 1, (int64_t)what->id);
	int r = meta_bind_text(db, statement, 2, what->layer, error);
	if (r == 0 && what->reference)
		r = meta_bind_text(db, statement, 3, what->reference, error);
	if (r == 0)
		r = meta_bind_text(db, statement, 4, what->path, error);
	return r < 0 ? r : meta_step(db, statement, error);
}

static int apply_lazy(MetaDb *db, void *arg, Error *error)
{
	const MetaLazy *what = arg;
	const char *ref = meta_labels_get(what->labels, META_REF_LABEL);
	MetaRow row = {
		.id = what->id, .key = what->name, .kind = META_COMMITTED, .labels = what->labels, .now = what->now
	};
	int r = meta_find_parent(db, what->parent, -EINVAL, &row.parent, error);
	if (r == 0)
		r = meta_db_has_ref(db, what->parent, ref, error);
	if (r == 1)
		return error_set(error, -EEXIST, "there is a snapshot of %s already", ref);
	if (r == 0)
		r = meta_refuse_existing(db, what->name, error);
	if (r == 0)
		r = meta_insert_row(db, &row, error);
	return r < 0 ? r : insert_lazy(db, what, error);
}

int meta_create_lazy(Meta *meta, const MetaLazy *lazy, Error *error)
{
	MetaLazy change = *lazy;
	return meta_change(meta, apply_lazy, &change, error);
}

typedef struct Move {
	uint64_t id;
	const char *path;
} Move;

static int apply_move(MetaDb *db, void *arg, Error *error)
{
	const Move *move = arg;
	sqlite3_stmt *statement = meta_statement(db, META_MOVE_LAZY, error);
	if (!statement)
		return -EIO;
	(void)sqlite3_bind_int64(statement, 1, (int64_t)move->id);
	int r = meta_bind_text(db, statement, 2, move->path, error);
	return r < 0 ? r : meta_step(db, statement, error);
}

int meta_move_lazy(Meta *meta, uint64_t id, const char *path, Error *error)
{
	Move move = { .id = id, .path = path };
	return meta_change(meta, apply_move, &move, error);
}

typedef struct Layers {
	const char *key;
	MetaLayers layers;
} Layers;

static int add_layer(Layers *layers, sqlite3_stmt *statement)
{
	MetaLayers *all = &layers->layers;
	char **larger = reallocarray(all->layers, all->count + 1, sizeof(*larger));
	if (!larger)
		return -ENOMEM;
	all->layers = larger;
	larger[all->count] = strdup((const char *)sqlite3_column_text(statement, 0));
	if (!larger[all->count])
		return -ENOMEM;
	all->count++;
	free(TAKE_PTR(all->reference));
	const unsigned char *reference = sqlite3_column_text(statement, 1);
	if (reference && !(all->reference = strdup((const char *)reference)))
		return -ENOMEM;
	return 0;
}

static int read_layers(MetaDb *db, void *arg, Error *error)
{
	Layers *layers = arg;
	sqlite3_stmt *statement = meta_statement(db, META_LAYERS, error);
	if (!statement)
		return -EIO;
	int r = meta_bind_text(db, statement, 1, layers->key, error);
	while (r >= 0 && (r = meta_step(db, statement, error)) == 1) {
		if (sqlite3_column_type(statement, 0) == SQLITE_NULL)
			r = error_set(error, -EBUSY, "snapshot %s is not, or not wholly, a lazy one", layers->key);
		else if (add_layer(layers, statement) < 0)
			r = error_set(error, -ENOMEM, "out of memory");
	}
	(void)sqlite3_reset(statement);
	if (r == 0 && layers->layers.count == 0)
		return error_set(error, -ENOENT, "snapshot %s does not exist", layers->key);
	return r;
}

int meta_lazy_layers(Meta *meta, const char *key, MetaLayers *ret_layers, Error *error)
{
	Layers layers = { .key = key };
	int r = meta_read(meta, read_layers, &layers, error);
	if (r < 0)
		meta_layers_done(&layers.layers);
	else
		*ret_layers = layers.layers;
	return r;
}

typedef struct Key {
	uint64_t id;
	char *key;
} Key;

static int read_key(MetaDb *db, void *arg, Error *error)
{
	Key *key = arg;
	sqlite3_stmt *statement = meta_statement(db, META_KEY, error);
	if (!statement)
		return -EIO;
	(void)sqlite3_bind_int64(statement, 1, (int64_t)key->id);
	int r = meta_step(db, statement, error);
	if (r == 1)
		key->key = strdup((const char *)sqlite3_column_text(statement, 0));
	(void)sqlite3_reset(statement);
	if (r == 0)
		return error_set(error, -ENOENT, "the snapshot was removed meanwhile");
	if (r == 1 && !key->key)
		return error_set(error, -ENOMEM, "out of memory");
	return r < 0 ? r : 0;
}

int meta_lazy_key(Meta *meta, uint64_t id, char **ret_key, Error *error)
{
	Key key = { .id = id };
	int r = meta_read(meta, read_key, &key, error);
	if (r == 0)
		*ret_key = key.key;
	return r;
}
