/* What the parts of meta share: connections to the database with their prepared statements. */
#pragma once

#include <pthread.h>
#include <sqlite3.h>

#include "snapshotter/meta.h"

#define META_REF_LABEL "containerd.io/snapshot.ref"

typedef enum MetaStatement {
	META_BEGIN,
	META_BEGIN_WRITE,
	META_END,
	META_UNDO,
	META_MARK,
	META_UNDO_MARK,
	META_END_MARK,
	META_FIND,
	META_LIST,
	META_LIST_REF,
	META_LABELS,
	META_ANCESTORS,
	META_IDS,
	META_LAZY_IDS,
	META_DIRECTORY_IDS,
	META_LAST_ID,
	META_INSERT,
	META_COMMIT,
	META_DELETE,
	META_TOUCH,
	META_HAS_CHILD,
	META_ADD_LABEL,
	META_DROP_LABELS,
	META_ADD_LAZY,
	META_MOVE_LAZY,
	META_LAYERS,
	META_HAS_REF,
	META_KEY,
	META_MAPPINGS,
	META_STATEMENTS,
} MetaStatement;

/* One connection; used by one thread at a time. */
typedef struct MetaDb {
	struct MetaDb *next;
	sqlite3 *db;
	sqlite3_stmt *statements[META_STATEMENTS];
} MetaDb;

typedef struct MetaChange {
	struct MetaChange *prev, *next;
	int (*apply)(MetaDb *db, void *arg, Error *error);
	void *arg;
	Error *error;
	int result;
	bool done;
} MetaChange;

#define META_READERS_KEPT 16 /* each has a cache of up to 1 MiB */

struct Meta {
	char *path;
	bool read_only;
	pthread_mutex_t lock;
	pthread_cond_t written;
	MetaDb *readers; /* free ones, under the lock, as is their count */
	size_t reader_count;
	MetaChange *changes; /* that wait, under the lock */
	bool writing;        /* a thread does its and others' changes; `writer` is its */
	MetaDb *writer;
};

int meta_db_open(const char *path, bool read_only, MetaDb **ret_db, Error *error) _must_check_;
MetaDb *meta_db_close(MetaDb *db);

/* Has a connection keep the room that is set aside. */
void meta_reserve_prepare(MetaDb *db);

/* Set room aside for the database, and for the log of that at `path`. Where there is none now, or the file system cannot, all else is as ever. */
void meta_reserve_database(MetaDb *db);
void meta_reserve_log(const char *path);

/* Brings the schema up to date, or only sees whether it is: -EINVAL. */
int meta_schema_apply(MetaDb *db, const char *path, Error *error) _must_check_;
int meta_schema_check(MetaDb *db, const char *path, Error *error) _must_check_;

/* The statement, ready for its parameters. NULL with a sentence when it cannot be. */
sqlite3_stmt *meta_statement(MetaDb *db, MetaStatement which, Error *error);

/* Steps: 1 a row, 0 the end, or an error with its sentence. At 0 and an error the statement is reset. */
int meta_step(MetaDb *db, sqlite3_stmt *statement, Error *error);

/* Runs a statement with no rows to the end. */
int meta_run(MetaDb *db, MetaStatement which, Error *error);
int meta_fail(const MetaDb *db, Error *error);

/* Rows. */
int meta_db_find(MetaDb *db, const char *key, MetaInfo *ret_info, Error *error);
int meta_db_labels(MetaDb *db, uint64_t id, MetaLabels *ret_labels, Error *error);
int meta_db_has_ref(MetaDb *db, const char *parent, const char *ref, Error *error);
int meta_db_ancestors(MetaDb *db, uint64_t id, MetaChain *ret_chain, Error *error);

/* Reads out of one state of the database. */
typedef int MetaRead(MetaDb *db, void *arg, Error *error);
int meta_read(Meta *meta, MetaRead *read, void *arg, Error *error);

int meta_bind_text(MetaDb *db, sqlite3_stmt *statement, int at, const char *text, Error *error);
int meta_add_labels(MetaDb *db, uint64_t id, const MetaLabels *labels, Error *error);
/* `name` may be NULL: 0. */
int meta_find_parent(MetaDb *db, const char *name, int not_committed, uint64_t *ret_id, Error *error);

/* A new row of any kind, with its labels. */
typedef struct MetaRow {
	uint64_t id;
	const char *key;
	uint64_t parent; /* 0: none */
	MetaKind kind;
	const MetaLabels *labels;
	int64_t now;
} MetaRow;
int meta_insert_row(MetaDb *db, const MetaRow *row, Error *error);
int meta_refuse_existing(MetaDb *db, const char *key, Error *error);

/* Does a change in the next transaction; returns once it is durable. */
int meta_change(Meta *meta, int (*apply)(MetaDb *db, void *arg, Error *error), void *arg, Error *error);
