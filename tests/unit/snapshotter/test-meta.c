/* The metadata in a directory of the test's own: semantics, order, many threads, versions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sqlite3.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "snapshotter/meta-private.h"

typedef struct Place {
	char directory[64], path[96];
	Meta *meta;
} Place;

static int setup(void **state)
{
	static Place place;
	(void)strcpy(place.directory, "/tmp/imgfs-meta-XXXXXX");
	if (!mkdtemp(place.directory))
		return -1;
	(void)snprintf(place.path, sizeof(place.path), "%s/metadata.db", place.directory);
	*state = &place;
	return meta_open(place.path, &place.meta, NULL);
}

static int teardown(void **state)
{
	Place *place = *state;
	static const char *const suffixes[] = { "", "-wal", "-shm" };
	place->meta = meta_close(place->meta);
	for (size_t i = 0; i < ELEMENTS(suffixes); i++) {
		char path[128];
		(void)snprintf(path, sizeof(path), "%s%s", place->path, suffixes[i]);
		(void)unlink(path);
	}
	return rmdir(place->directory);
}

static const MetaLabels none;

static int create(Meta *meta, uint64_t id, const char *key, const char *parent)
{
	MetaChain chain = { 0 };
	const MetaCreate what = {
		.id = id, .kind = META_ACTIVE, .key = key, .parent = parent, .labels = &none, .now = (int64_t)id
	};
	int r = meta_create(meta, &what, &chain, NULL);
	meta_chain_done(&chain);
	return r;
}

static int commit(Meta *meta, uint64_t id, const char *key, const char *name, const char *parent)
{
	const MetaCommit what = {
		.id = id, .key = key, .name = name, .parent = parent, .labels = &none, .size = 7, .inodes = 2, .now = 99
	};
	return meta_commit(meta, &what, NULL);
}

static void test_life(void **state)
{
	Meta *meta = ((Place *)*state)->meta;
	MetaInfo info;
	MetaChain chain;
	assert_int_equal(create(meta, 1, "a", NULL), 0);
	assert_int_equal(create(meta, 2, "a", NULL), -EEXIST);
	assert_int_equal(create(meta, 2, "b", "nothing"), -ENOENT);
	assert_int_equal(create(meta, 2, "b", "a"), -EINVAL);
	assert_int_equal(commit(meta, 1, "nothing", "n", NULL), -ENOENT);
	assert_int_equal(commit(meta, 1, "a", "a", NULL), -EEXIST);
	assert_int_equal(commit(meta, 5, "a", "layer", NULL), -ENOENT); /* another snapshot with that key */
	assert_int_equal(commit(meta, 1, "a", "layer", NULL), 0);
	assert_int_equal(commit(meta, 1, "layer", "again", NULL), -EBUSY);
	assert_int_equal(create(meta, 2, "a", "layer"), 0);
	assert_int_equal(meta_chain(meta, "a", &info, &chain, NULL), 0);
	assert_string_equal(info.parent, "layer");
	assert_int_equal(info.created, 2);
	assert_int_equal(chain.count, 1);
	assert_int_equal(chain.ids[0], 1);
	meta_info_done(&info);
	meta_chain_done(&chain);
	assert_int_equal(meta_stat(meta, "layer", &info, NULL), 0);
	assert_int_equal(info.kind, META_COMMITTED);
	assert_int_equal(info.size, 7);
	assert_int_equal(info.created, 99);
	meta_info_done(&info);
	Error error = { 0 };
	assert_int_equal(meta_remove(meta, "layer", &error), -EBUSY);
	assert_non_null(strstr(error.message, "remove"));
	assert_int_equal(meta_remove(meta, "a", NULL), 0);
	assert_int_equal(meta_remove(meta, "layer", NULL), 0);
	assert_int_equal(meta_remove(meta, "layer", NULL), -ENOENT);
	uint64_t last;
	assert_int_equal(meta_last_id(meta, &last, NULL), 0);
	assert_int_equal(last, 2);
}

/* A parent that the commit names. */
static void test_new_parent(void **state)
{
	Meta *meta = ((Place *)*state)->meta;
	MetaInfo info;
	assert_int_equal(create(meta, 1, "a", NULL), 0);
	assert_int_equal(create(meta, 2, "b", NULL), 0);
	assert_int_equal(commit(meta, 2, "b", "child", "nothing"), -ENOENT);
	assert_int_equal(commit(meta, 2, "b", "child", "a"), -EBUSY);
	assert_int_equal(commit(meta, 1, "a", "base", NULL), 0);
	assert_int_equal(commit(meta, 2, "b", "child", "base"), 0);
	assert_int_equal(meta_stat(meta, "child", &info, NULL), 0);
	assert_string_equal(info.parent, "base");
	meta_info_done(&info);
	assert_int_equal(create(meta, 3, "c", "child"), 0);
	assert_int_equal(commit(meta, 3, "c", "d", "base"), -EINVAL);
	assert_int_equal(commit(meta, 3, "c", "d", "child"), 0);
}

static void check_label(Meta *meta, const char *name, const char *value)
{
	MetaInfo info;
	assert_int_equal(meta_stat(meta, "a", &info, NULL), 0);
	const char *found = meta_labels_get(&info.labels, name);
	assert_int_equal(!found, !value);
	if (value)
		assert_string_equal(found, value);
	meta_info_done(&info);
}

static int update(Meta *meta, const char *key, const char *name, const char *value, const char *path)
{
	MetaLabels labels = { 0 };
	MetaInfo info;
	char *paths[] = { (char *)(uintptr_t)path };
	assert_int_equal(meta_labels_set(&labels, name, value, NULL), 0);
	const MetaUpdate what = {
		.key = key, .labels = &labels, .paths = paths, .path_count = path ? 1 : 0, .now = 50
	};
	int r = meta_update(meta, &what, &info, NULL);
	meta_labels_done(&labels);
	if (r == 0) {
		assert_int_equal(info.updated, 50);
		meta_info_done(&info);
	}
	return r;
}

static void test_labels(void **state)
{
	Meta *meta = ((Place *)*state)->meta;
	assert_int_equal(create(meta, 1, "a", NULL), 0);
	assert_int_equal(update(meta, "a", "x", "1", NULL), 0);
	assert_int_equal(update(meta, "a", "y.z", "2", "labels.y.z"), 0);
	check_label(meta, "x", "1");
	check_label(meta, "y.z", "2");
	assert_int_equal(update(meta, "a", "y.z", "", "labels.y.z"), 0);
	check_label(meta, "y.z", NULL);
	assert_int_equal(update(meta, "a", "q", "3", "labels"), 0);
	check_label(meta, "x", NULL);
	check_label(meta, "q", "3");
	assert_int_equal(update(meta, "a", "q", "4", "parent"), -EINVAL);
	assert_int_equal(update(meta, "nothing", "q", "4", NULL), -ENOENT);
	check_label(meta, "q", "3");
}

static void test_list(void **state)
{
	Meta *meta = ((Place *)*state)->meta;
	MetaInfo infos[2];
	size_t count;
	for (uint64_t id = 1; id <= 3; id++) {
		char key[8];
		(void)snprintf(key, sizeof(key), "%d", (int)id);
		assert_int_equal(create(meta, id, key, NULL), 0);
	}
	assert_int_equal(meta_list(meta, 0, NULL, 2, infos, &count, NULL), 0);
	assert_int_equal(count, 2);
	assert_string_equal(infos[1].key, "2");
	meta_info_done(&infos[0]);
	meta_info_done(&infos[1]);
	assert_int_equal(meta_list(meta, 2, NULL, 2, infos, &count, NULL), 0);
	assert_int_equal(count, 1);
	meta_info_done(&infos[0]);
	assert_int_equal(update(meta, "3", "containerd.io/snapshot.ref", "sha256:x", NULL), 0);
	assert_int_equal(meta_list(meta, 0, "sha256:x", 2, infos, &count, NULL), 0);
	assert_int_equal(count, 1);
	assert_string_equal(infos[0].key, "3");
	meta_info_done(&infos[0]);
}

typedef struct Writer {
	Meta *meta;
	uint64_t first;
	unsigned lost; /* of the keys that all want */
} Writer;

#define WRITERS 8
#define WRITES  40

static void *write_many(void *arg)
{
	Writer *writer = arg;
	for (uint64_t i = 0; i < WRITES; i++) {
		char key[32];
		(void)snprintf(key, sizeof(key), "shared-%d", (int)i);
		int r = create(writer->meta, writer->first + i, key, NULL);
		if (r == -EEXIST)
			writer->lost++;
		else if (r < 0)
			return NULL;
	}
	return writer;
}

/* Each key goes to exactly one, and a change that fails takes no other of its transaction with it. */
static void test_threads(void **state)
{
	Place *place = *state;
	Writer writers[WRITERS];
	pthread_t threads[WRITERS];
	unsigned lost = 0;
	for (unsigned i = 0; i < WRITERS; i++) {
		writers[i] = (Writer){ .meta = place->meta, .first = 1 + i * WRITES };
		assert_int_equal(pthread_create(&threads[i], NULL, write_many, &writers[i]), 0);
	}
	for (unsigned i = 0; i < WRITERS; i++) {
		void *result;
		assert_int_equal(pthread_join(threads[i], &result), 0);
		assert_non_null(result);
		lost += writers[i].lost;
	}
	assert_int_equal(lost, (WRITERS - 1) * WRITES);
	place->meta = meta_close(place->meta);
	assert_int_equal(meta_open(place->path, &place->meta, NULL), 0);
	uint64_t *ids;
	size_t count;
	assert_int_equal(meta_ids(place->meta, &ids, &count, NULL), 0);
	assert_int_equal(count, WRITES);
	free(ids);
}

static void execute(const char *path, const char *sql)
{
	sqlite3 *db;
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void test_later_version(void **state)
{
	Place *place = *state;
	Error error = { 0 };
	place->meta = meta_close(place->meta);
	execute(place->path, "PRAGMA user_version = 1000");
	assert_int_equal(meta_open(place->path, &place->meta, &error), -EINVAL);
	assert_non_null(strstr(error.message, "version 1000"));
}

/* A database of the first version, which knew nothing of lazy snapshots, keeps what it has. */
static void test_first_version(void **state)
{
	Place *place = *state;
	Error error = { 0 };
	MetaInfo info;
	assert_int_equal(create(place->meta, 1, "old", NULL), 0);
	place->meta = meta_close(place->meta);
	execute(place->path, "DROP TABLE lazy; PRAGMA user_version = 1");
	assert_int_equal(meta_open(place->path, &place->meta, &error), 0);
	assert_int_equal(meta_stat(place->meta, "old", &info, NULL), 0);
	assert_int_equal(info.id, 1);
	assert_null(info.lazy_path);
	meta_info_done(&info);
}

static void test_no_database(void **state)
{
	Place *place = *state;
	Error error = { 0 };
	place->meta = meta_close(place->meta);
	FILE *file = fopen(place->path, "we");
	assert_non_null(file);
	for (int i = 0; i < 1000; i++)
		assert_true(fputs("this is no database\n", file) >= 0);
	assert_int_equal(fclose(file), 0);
	assert_int_equal(meta_open(place->path, &place->meta, &error), -EIO);
	assert_non_null(strstr(error.message, "not a database"));
}

/* Three changes in one transaction: the first waits until the others have come, the second is what undoes all of it. */
typedef struct Batch {
	Meta *meta;
	int results[3];
} Batch;

static size_t waiting(Meta *meta)
{
	size_t count = 0;
	(void)pthread_mutex_lock(&meta->lock);
	for (const MetaChange *change = meta->changes; change; change = change->next)
		count++;
	(void)pthread_mutex_unlock(&meta->lock);
	return count;
}

static int apply_wait(MetaDb *db _unused_, void *arg, Error *error _unused_)
{
	while (waiting(arg) < 3)
		(void)sched_yield();
	return 0;
}

static int apply_key(MetaDb *db, void *arg, Error *error)
{
	char sql[128];
	(void)snprintf(sql, sizeof(sql), "INSERT INTO snapshots (key, kind, created, updated) VALUES ('%s', 2, 1, 1)",
		       (const char *)arg);
	return sqlite3_exec(db->db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : meta_fail(db, error);
}

/* As SQLite does by itself when the disk is full or fails. */
static int apply_undo(MetaDb *db, void *arg _unused_, Error *error)
{
	assert_int_equal(sqlite3_exec(db->db, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
	return error_set(error, -ENOSPC, "the disk is full");
}

static void *change_before(void *arg)
{
	Batch *batch = arg;
	batch->results[0] = meta_change(batch->meta, apply_key, (void *)(uintptr_t) "before", NULL);
	return arg;
}

static void *change_undo(void *arg)
{
	Batch *batch = arg;
	while (waiting(batch->meta) < 1)
		(void)sched_yield();
	batch->results[1] = meta_change(batch->meta, apply_undo, NULL, NULL);
	return arg;
}

static void *change_after(void *arg)
{
	Batch *batch = arg;
	while (waiting(batch->meta) < 2)
		(void)sched_yield();
	batch->results[2] = meta_change(batch->meta, apply_key, (void *)(uintptr_t) "after", NULL);
	return arg;
}

static void *change_wait(void *arg)
{
	const Batch *batch = arg;
	return meta_change(batch->meta, apply_wait, batch->meta, NULL) == 0 ? arg : NULL;
}

static bool is_writing(Meta *meta)
{
	(void)pthread_mutex_lock(&meta->lock);
	bool writing = meta->writing;
	(void)pthread_mutex_unlock(&meta->lock);
	return writing;
}

/* Whoever is told that his change failed finds it not done, and the database serves on. */
static void test_undone(void **state)
{
	static void *(*const functions[])(void *) = { change_before, change_undo, change_after };
	Batch batch = { .meta = ((Place *)*state)->meta };
	pthread_t threads[4];
	MetaInfo info;
	void *result;
	assert_int_equal(pthread_create(&threads[3], NULL, change_wait, &batch), 0);
	while (!is_writing(batch.meta))
		(void)sched_yield();
	for (size_t i = 0; i < ELEMENTS(functions); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, functions[i], &batch), 0);
	for (size_t i = 0; i < ELEMENTS(threads); i++) {
		assert_int_equal(pthread_join(threads[i], &result), 0);
		assert_non_null(result);
	}
	assert_int_equal(meta_stat(batch.meta, "before", &info, NULL), -ENOENT);
	assert_int_equal(meta_stat(batch.meta, "after", &info, NULL), -ENOENT);
	for (size_t i = 0; i < ELEMENTS(batch.results); i++)
		assert_int_equal(batch.results[i], -ENOSPC);
	assert_int_equal(create(batch.meta, 7, "next", NULL), 0);
}

#define READERS 40

typedef struct Readers {
	Meta *meta;
	pthread_barrier_t all;
} Readers;

static int read_together(MetaDb *db _unused_, void *arg, Error *error _unused_)
{
	Readers *readers = arg;
	(void)pthread_barrier_wait(&readers->all);
	return 0;
}

static void *read_once(void *arg)
{
	Readers *readers = arg;
	return meta_read(readers->meta, read_together, readers, NULL) == 0 ? arg : NULL;
}

/* Many at a time leave few connections open. */
static void test_readers(void **state)
{
	Readers readers = { .meta = ((Place *)*state)->meta };
	pthread_t threads[READERS];
	size_t count = 0;
	assert_int_equal(pthread_barrier_init(&readers.all, NULL, READERS), 0);
	for (size_t i = 0; i < READERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, read_once, &readers), 0);
	for (size_t i = 0; i < READERS; i++) {
		void *result;
		assert_int_equal(pthread_join(threads[i], &result), 0);
		assert_non_null(result);
	}
	for (const MetaDb *db = readers.meta->readers; db; db = db->next)
		count++;
	assert_int_equal(count, META_READERS_KEPT);
	(void)pthread_barrier_destroy(&readers.all);
}

static int fill_disk(const char *directory)
{
	static const char block[4096] = "x";
	char path[160];
	(void)snprintf(path, sizeof(path), "%s/filler", directory);
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600), r = 0;
	while (fd >= 0 && write(fd, block, sizeof(block)) > 0)
		;
	if (fd < 0 || errno != ENOSPC)
		r = -errno;
	if (fd >= 0)
		(void)close(fd);
	return r;
}

#define ON_DISK 600

static void remove_some(Meta *meta, uint64_t from, uint64_t to)
{
	char key[32];
	for (uint64_t id = from; id < to; id++) {
		(void)snprintf(key, sizeof(key), "%d", (int)id);
		assert_int_equal(meta_remove(meta, key, NULL), 0);
	}
}

/* What is on a disk that is full can be removed, after a restart too: it is the removal that makes room. */
static void test_full_disk(void **state)
{
	const Place *place = *state;
	char directory[80], path[96], key[32];
	Meta *meta;
	(void)snprintf(directory, sizeof(directory), "%s/disk", place->directory);
	(void)snprintf(path, sizeof(path), "%s/metadata.db", directory);
	if (unshare(CLONE_NEWNS) < 0) {
		print_message("mounting is not allowed here\n");
		skip();
	}
	assert_int_equal(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	assert_int_equal(mkdir(directory, 0700), 0);
	assert_int_equal(mount("disk", directory, "tmpfs", 0, "size=32m"), 0);
	assert_int_equal(meta_open(path, &meta, NULL), 0);
	for (uint64_t id = 1; id <= ON_DISK; id++) {
		(void)snprintf(key, sizeof(key), "%d", (int)id);
		assert_int_equal(create(meta, id, key, NULL), 0);
	}
	assert_int_equal(fill_disk(directory), 0);
	remove_some(meta, 1, ON_DISK / 2);
	meta = meta_close(meta);
	assert_int_equal(meta_open(path, &meta, NULL), 0);
	remove_some(meta, ON_DISK / 2, ON_DISK + 1);
	meta = meta_close(meta);
	assert_int_equal(umount2(directory, 0), 0);
	assert_int_equal(rmdir(directory), 0);
}

static int create_labelled(Meta *meta, uint64_t id, const char *key, const char *parent, const char *label,
			   const char *value)
{
	MetaChain chain = { 0 };
	MetaLabel one = { (char *)(uintptr_t)label, (char *)(uintptr_t)value };
	const MetaLabels labels = { .count = 1, .labels = &one };
	const MetaCreate what = {
		.id = id, .kind = META_ACTIVE, .key = key, .parent = parent, .labels = &labels, .now = (int64_t)id
	};
	int r = meta_create(meta, &what, &chain, NULL);
	meta_chain_done(&chain);
	return r;
}

static int create_lazy(Meta *meta, uint64_t id, const char *name, const char *parent)
{
	MetaLabel ref = { (char *)(uintptr_t) "containerd.io/snapshot.ref", (char *)(uintptr_t)name };
	const MetaLabels labels = { .count = 1, .labels = &ref };
	const MetaLazy what = {
		.id = id, .name = name, .parent = parent, .labels = &labels, .layer = "{}", .path = "/tree"
	};
	return meta_create_lazy(meta, &what, NULL);
}

/* Each pair once for the tree below it, which is that of the nearest lazy ancestor. */
static void test_mappings(void **state)
{
	Meta *meta = ((Place *)*state)->meta;
	static const char uids[] = "containerd.io/snapshot/uidmapping", gids[] = "containerd.io/snapshot/gidmapping";
	MetaMapping *mappings;
	size_t count;
	assert_int_equal(create_lazy(meta, 1, "low", NULL), 0);
	assert_int_equal(create_lazy(meta, 2, "high", "low"), 0);
	assert_int_equal(create_labelled(meta, 3, "a", "high", uids, "0:1:2"), 0);
	assert_int_equal(create_labelled(meta, 4, "b", "high", uids, "0:1:2"), 0);
	assert_int_equal(create(meta, 5, "none", "high"), 0);
	assert_int_equal(commit(meta, 5, "none", "ordinary", NULL), 0);
	assert_int_equal(create_labelled(meta, 6, "c", "ordinary", gids, "0:3:4"), 0);
	assert_int_equal(create_labelled(meta, 7, "d", NULL, uids, "0:1:2"), 0);
	assert_int_equal(meta_mappings(meta, &mappings, &count, NULL), 0);
	assert_int_equal(count, 3);
	unsigned seen = 0;
	for (size_t i = 0; i < count; i++) {
		const MetaMapping *one = &mappings[i];
		if (one->gids) {
			assert_null(one->uids);
			assert_string_equal(one->gids, "0:3:4");
			assert_int_equal(one->lazy_id, 2);
			seen |= 1;
		} else {
			assert_string_equal(one->uids, "0:1:2");
			assert_true(one->lazy_id == 2 || one->lazy_id == 0);
			seen |= one->lazy_id ? 2 : 4;
		}
	}
	assert_int_equal(seen, 7);
	meta_mappings_free(mappings, count);
}

/* Whoever only looks makes no database, changes none and writes nothing. */
static void test_look(void **state)
{
	Place *place = *state;
	Meta *look;
	MetaInfo info;
	char nothing[128];
	(void)snprintf(nothing, sizeof(nothing), "%s/nothing", place->directory);
	assert_int_equal(meta_look(nothing, &look, NULL), -ENOENT);
	assert_int_equal(access(nothing, F_OK), -1);
	assert_int_equal(create(place->meta, 1, "a", NULL), 0);
	assert_int_equal(meta_look(place->path, &look, NULL), 0);
	assert_int_equal(meta_stat(look, "a", &info, NULL), 0);
	meta_info_done(&info);
	look = meta_close(look);
	place->meta = meta_close(place->meta);
	/* Also without the one that writes. */
	assert_int_equal(meta_look(place->path, &look, NULL), 0);
	assert_int_equal(meta_stat(look, "a", &info, NULL), 0);
	meta_info_done(&info);
	look = meta_close(look);
	sqlite3 *db;
	assert_int_equal(sqlite3_open(place->path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "PRAGMA user_version = 1", NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
	assert_int_equal(meta_look(place->path, &look, NULL), -EINVAL);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_life),      TEST(test_new_parent),    TEST(test_labels),        TEST(test_list),
		TEST(test_threads),   TEST(test_later_version), TEST(test_first_version), TEST(test_no_database),
		TEST(test_full_disk), TEST(test_undone),        TEST(test_readers),       TEST(test_mappings),
		TEST(test_look),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
