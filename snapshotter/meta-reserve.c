/*
 * Room set aside for the metadata. Where the disk is full snapshots must still be removable, since it is their removal that makes room; so what a
 * change needs has its blocks already, unless the database is just about to need more of them.
 */
#include <fcntl.h>
#include <stdio.h>

#include "snapshotter/meta-private.h"

#define DATABASE_CHUNK (8 << 20) /* the database grows by that; a snapshot takes half a KiB and its labels */
#define LOG_SIZE \
	(5 << 20) /* what the log has before it begins anew is less: a thousand pages of 4 KiB with their headers */

void meta_reserve_prepare(MetaDb *db)
{
	int chunk = DATABASE_CHUNK, keep = 1;
	(void)sqlite3_file_control(db->db, NULL, SQLITE_FCNTL_CHUNK_SIZE, &chunk);
	(void)sqlite3_file_control(db->db, NULL, SQLITE_FCNTL_PERSIST_WAL,
				   &keep); /* the last to close it cuts it to nothing */
}

void meta_reserve_log(const char *path)
{
	_cleanup_free_ char *log = NULL;
	if (asprintf(&log, "%s-wal", path) < 0)
		return;
	/* Behind its end, where SQLite does not see it. Nobody has locks on this file, so it may be closed again (fcntl(2), "F_SETLK"). */
	_cleanup_close_ int fd = open(log, O_RDWR | O_CLOEXEC);
	if (fd >= 0 && fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, LOG_SIZE) < 0)
		return;
}

void meta_reserve_database(MetaDb *db)
{
	sqlite3_int64 size = 1; /* is rounded up to a chunk */
	(void)sqlite3_file_control(db->db, NULL, SQLITE_FCNTL_SIZE_HINT, &size);
}
