/* Connections to the database, its schema, and the statements. */
#include <string.h>

#include "snapshotter/meta-private.h"
#include "snapshotter/plan.h"

#define BUSY_MILLIS 10000
#define CACHE_KIB   1024

/*
 * Each entry brings the schema one version further; the database keeps its version in user_version. Add to the end, never change one that
 * was released.
 */
static const char *const migrations[] = {
	/* AUTOINCREMENT: an id, and so a directory, is never used again. */
	("CREATE TABLE snapshots ("
	 " id INTEGER PRIMARY KEY AUTOINCREMENT,"
	 " key TEXT NOT NULL UNIQUE,"
	 " parent INTEGER REFERENCES snapshots(id),"
	 " kind INTEGER NOT NULL,"
	 " created INTEGER NOT NULL,"
	 " updated INTEGER NOT NULL,"
	 " size INTEGER NOT NULL DEFAULT 0,"
	 " inodes INTEGER NOT NULL DEFAULT 0"
	 ") STRICT;"
	 "CREATE INDEX snapshots_parent ON snapshots(parent) WHERE parent IS NOT NULL;"
	 "CREATE TABLE labels ("
	 " snapshot INTEGER NOT NULL REFERENCES snapshots(id) ON DELETE CASCADE,"
	 " name TEXT NOT NULL,"
	 " value TEXT NOT NULL,"
	 " PRIMARY KEY (snapshot, name)"
	 ") STRICT, WITHOUT ROWID;"
	 "CREATE INDEX labels_ref ON labels(value) WHERE name = '" META_REF_LABEL "';"),
	/* Layers that are fetched as they are read. */
	("CREATE TABLE lazy ("
	 " snapshot INTEGER PRIMARY KEY REFERENCES snapshots(id) ON DELETE CASCADE,"
	 " layer TEXT NOT NULL,"
	 " reference TEXT,"
	 " path TEXT NOT NULL"
	 ") STRICT;"),
};

#define COLUMNS "s.id, s.key, p.key, s.kind, s.created, s.updated, s.size, s.inodes, z.path"
#define TABLES  "snapshots s LEFT JOIN snapshots p ON p.id = s.parent LEFT JOIN lazy z ON z.snapshot = s.id"

static const char *const statements[META_STATEMENTS] = {
	[META_BEGIN] = "BEGIN",
	[META_BEGIN_WRITE] = "BEGIN IMMEDIATE",
	[META_END] = "COMMIT",
	[META_UNDO] = "ROLLBACK",
	[META_MARK] = "SAVEPOINT change",
	[META_UNDO_MARK] = "ROLLBACK TO change",
	[META_END_MARK] = "RELEASE change",
	[META_FIND] = ("SELECT " COLUMNS " FROM " TABLES " WHERE s.key = ?1"),
	[META_LIST] = ("SELECT " COLUMNS " FROM " TABLES " WHERE s.id > ?1 ORDER BY s.id LIMIT ?2"),
	[META_LIST_REF] = ("SELECT " COLUMNS " FROM " TABLES " WHERE s.id > ?1 AND s.id IN (SELECT snapshot FROM labels"
			   " WHERE name = '" META_REF_LABEL "' AND value = ?3) ORDER BY s.id LIMIT ?2"),
	[META_LABELS] = "SELECT name, value FROM labels WHERE snapshot = ?1",
	[META_ANCESTORS] =
		("WITH RECURSIVE chain(id, depth) AS (SELECT parent, 1 FROM snapshots WHERE id = ?1"
		 " UNION ALL SELECT s.parent, depth + 1 FROM snapshots s JOIN chain c ON s.id = c.id)"
		 " SELECT id, path FROM chain LEFT JOIN lazy ON snapshot = id WHERE id IS NOT NULL ORDER BY depth"),
	[META_IDS] = "SELECT id FROM snapshots ORDER BY id",
	[META_LAZY_IDS] = "SELECT snapshot FROM lazy ORDER BY snapshot",
	[META_DIRECTORY_IDS] = "SELECT id FROM snapshots WHERE id NOT IN (SELECT snapshot FROM lazy) ORDER BY id",
	[META_LAST_ID] = "SELECT seq FROM sqlite_sequence WHERE name = 'snapshots'",
	[META_INSERT] =
		"INSERT INTO snapshots (id, key, parent, kind, created, updated) VALUES (?1, ?2, ?3, ?4, ?5, ?5)",
	[META_COMMIT] = ("UPDATE snapshots SET key = ?2, kind = 3, created = ?3, updated = ?3, size = ?4, inodes = ?5,"
			 " parent = coalesce(?6, parent) WHERE id = ?1"),
	[META_DELETE] = "DELETE FROM snapshots WHERE id = ?1",
	[META_TOUCH] = "UPDATE snapshots SET updated = ?2 WHERE id = ?1",
	[META_HAS_CHILD] = "SELECT 1 FROM snapshots WHERE parent = ?1 LIMIT 1",
	[META_ADD_LABEL] = "INSERT OR REPLACE INTO labels (snapshot, name, value) VALUES (?1, ?2, ?3)",
	[META_DROP_LABELS] = "DELETE FROM labels WHERE snapshot = ?1",
	[META_ADD_LAZY] = "INSERT INTO lazy (snapshot, layer, reference, path) VALUES (?1, ?2, ?3, ?4)",
	[META_MOVE_LAZY] = "UPDATE lazy SET path = ?2 WHERE snapshot = ?1",
	[META_LAYERS] = ("WITH RECURSIVE chain(id, depth) AS (SELECT id, 0 FROM snapshots WHERE key = ?1"
			 " UNION ALL SELECT s.parent, depth + 1 FROM snapshots s JOIN chain c ON s.id = c.id)"
			 " SELECT layer, reference FROM chain LEFT JOIN lazy ON snapshot = id"
			 " WHERE id IS NOT NULL ORDER BY depth DESC"),
	[META_HAS_REF] =
		("SELECT 1 FROM labels l JOIN snapshots s ON s.id = l.snapshot"
		 " LEFT JOIN snapshots p ON p.id = s.parent"
		 " WHERE l.name = '" META_REF_LABEL "' AND l.value = ?1 AND s.kind = 3 AND p.key IS ?2 LIMIT 1"),
	/* The nearest lazy ancestor is the one made last. */
	[META_MAPPINGS] =
		("WITH RECURSIVE up(top, id) AS (SELECT snapshot, snapshot FROM labels"
		 " WHERE name IN ('" PLAN_LABEL_UID_MAPPING "', '" PLAN_LABEL_GID_MAPPING "')"
		 " UNION SELECT top, s.parent FROM up JOIN snapshots s ON s.id = up.id WHERE s.parent IS NOT NULL)"
		 " SELECT DISTINCT u.value, g.value, max(z.snapshot) FROM up"
		 " LEFT JOIN lazy z ON z.snapshot = up.id"
		 " LEFT JOIN labels u ON u.snapshot = top AND u.name = '" PLAN_LABEL_UID_MAPPING "'"
		 " LEFT JOIN labels g ON g.snapshot = top AND g.name = '" PLAN_LABEL_GID_MAPPING "' GROUP BY top"),
	[META_KEY] = "SELECT key FROM snapshots WHERE id = ?1",
};

static int error_of(int code)
{
	switch (code & 0xff) {
	case SQLITE_NOMEM:
		return -ENOMEM;
	case SQLITE_FULL:
		return -ENOSPC;
	default:
		return -EIO;
	}
}

int meta_fail(const MetaDb *db, Error *error)
{
	int code = sqlite3_extended_errcode(db->db);
	return error_set(error, error_of(code), "the metadata cannot be read or written: %s (SQLite error %d)",
			 sqlite3_errmsg(db->db), code);
}

sqlite3_stmt *meta_statement(MetaDb *db, MetaStatement which, Error *error)
{
	sqlite3_stmt **statement = &db->statements[which];
	if (!*statement && sqlite3_prepare_v3(db->db, statements[which], -1, SQLITE_PREPARE_PERSISTENT, statement,
					      NULL) != SQLITE_OK) {
		(void)meta_fail(db, error);
		return NULL;
	}
	(void)sqlite3_reset(*statement);
	(void)sqlite3_clear_bindings(*statement);
	return *statement;
}

int meta_step(MetaDb *db, sqlite3_stmt *statement, Error *error)
{
	int code = sqlite3_step(statement);
	if (code == SQLITE_ROW)
		return 1;
	int r = code == SQLITE_DONE ? 0 : meta_fail(db, error);
	(void)sqlite3_reset(statement);
	return r;
}

int meta_run(MetaDb *db, MetaStatement which, Error *error)
{
	sqlite3_stmt *statement = meta_statement(db, which, error);
	return statement ? meta_step(db, statement, error) : -EIO;
}

static int execute(MetaDb *db, const char *sql, Error *error)
{
	return sqlite3_exec(db->db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : meta_fail(db, error);
}

static int set_up(MetaDb *db, Error *error)
{
	char pragmas[256];
	meta_reserve_prepare(db);
	(void)snprintf(pragmas, sizeof(pragmas),
		       "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;"
		       "PRAGMA cache_size = -%d; PRAGMA journal_size_limit = 4194304; PRAGMA temp_store = MEMORY",
		       CACHE_KIB);
	return execute(db, pragmas, error);
}

int meta_db_open(const char *path, bool read_only, MetaDb **ret_db, Error *error)
{
	MetaDb *db = calloc(1, sizeof(*db));
	if (!db)
		return error_set(error, -ENOMEM, "out of memory");
	int flags = read_only ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
	int code = sqlite3_open_v2(path, &db->db, flags | SQLITE_OPEN_NOMUTEX, NULL);
	int r = code == SQLITE_OK ? 0 : db->db ? meta_fail(db, error) : error_set(error, -ENOMEM, "out of memory");
	if (r == 0) {
		(void)sqlite3_busy_timeout(db->db, BUSY_MILLIS);
		r = read_only ? 0 : set_up(db, error);
	}
	if (r < 0) {
		(void)meta_db_close(db);
		return error_prefix(error, r, "%s", path);
	}
	*ret_db = db;
	return 0;
}

MetaDb *meta_db_close(MetaDb *db)
{
	if (!db)
		return NULL;
	for (size_t i = 0; i < META_STATEMENTS; i++)
		(void)sqlite3_finalize(db->statements[i]);
	(void)sqlite3_close(db->db);
	free(db);
	return NULL;
}

static int read_version(MetaDb *db, int *ret_version, Error *error)
{
	sqlite3_stmt *statement;
	if (sqlite3_prepare_v2(db->db, "PRAGMA user_version", -1, &statement, NULL) != SQLITE_OK)
		return meta_fail(db, error);
	int r = sqlite3_step(statement) == SQLITE_ROW ? 0 : meta_fail(db, error);
	if (r == 0)
		*ret_version = sqlite3_column_int(statement, 0);
	(void)sqlite3_finalize(statement);
	return r;
}

static int migrate(MetaDb *db, int version, Error *error)
{
	char set[64];
	int r = 0;
	for (; r == 0 && version < (int)ELEMENTS(migrations); version++)
		r = execute(db, migrations[version], error);
	(void)snprintf(set, sizeof(set), "PRAGMA user_version = %d", (int)ELEMENTS(migrations));
	return r < 0 ? r : execute(db, set, error);
}

int meta_schema_apply(MetaDb *db, const char *path, Error *error)
{
	int version = 0;
	int r = meta_run(db, META_BEGIN_WRITE, error);
	if (r < 0)
		return r;
	r = read_version(db, &version, error);
	if (r == 0 && version > (int)ELEMENTS(migrations))
		r = error_set(error, -EINVAL,
			      "%s has version %d of the metadata and this imgfs-snapshotter knows none above %d: start "
			      "the later one that wrote it",
			      path, version, (int)ELEMENTS(migrations));
	else if (r == 0 && version < (int)ELEMENTS(migrations))
		r = migrate(db, version, error);
	if (r == 0)
		return meta_run(db, META_END, error);
	(void)meta_run(db, META_UNDO, NULL);
	return r;
}

int meta_schema_check(MetaDb *db, const char *path, Error *error)
{
	int version = 0;
	int r = read_version(db, &version, error);
	if (r == 0 && version != (int)ELEMENTS(migrations))
		return error_set(error, -EINVAL, "%s has version %d of the metadata, and this program reads %d", path,
				 version, (int)ELEMENTS(migrations));
	return r;
}
