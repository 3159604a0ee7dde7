/* What a snapshot may be called and labelled with: as much as List can always say. And calls beside Cleanup. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "snapshotter/mounts-idmap.h"
#include "snapshotter/mounts-tree.h"
#include "snapshotter/service-private.h"
#include "snapshotter/wire-message.h"

#define SNAPSHOTS   100  /* a page of List */
#define LABEL_SIZE  4096 /* name and value, as containerd allows one */
#define LABELS_MANY 60

typedef struct Place {
	char root[64];
	Mounts mounts;
	Meta *meta;
	Service *service;
} Place;

static int setup(void **state)
{
	static Place place;
	char database[96];
	place = (Place){ 0 };
	(void)strcpy(place.root, "/tmp/imgfs-service-XXXXXX");
	if (!mkdtemp(place.root))
		return -1;
	(void)snprintf(database, sizeof(database), "%s/metadata.db", place.root);
	if (mounts_open(place.root, &place.mounts, NULL) < 0 || meta_open(database, &place.meta, NULL) < 0)
		return -1;
	*state = &place;
	return service_new(&(ServiceOptions){ .meta = place.meta, .mounts = &place.mounts }, &place.service, NULL);
}

static int teardown(void **state)
{
	Place *place = *state;
	place->service = service_free(place->service);
	place->meta = meta_close(place->meta);
	mounts_close(&place->mounts);
	return mounts_tree_remove(AT_FDCWD, place->root);
}

typedef int Handler(WireCall *call, void *arg, Error *error);

/* Calls with a packed message. Of the reply the size of the largest message comes back. */
static int call(const Place *place, Handler *handle, const ProtobufCMessage *message, size_t *ret_largest)
{
	_cleanup_free_ uint8_t *bytes = malloc(protobuf_c_message_get_packed_size(message) + 1);
	WireCall one = { .message = bytes, .size = protobuf_c_message_pack(message, bytes) };
	int r = handle(&one, place->service, NULL);
	*ret_largest = 0;
	for (size_t at = 0; r == 0 && at < one.reply.size;) {
		bool compressed;
		uint32_t size;
		wire_prefix_read(one.reply.data + at, &compressed, &size);
		*ret_largest = size > *ret_largest ? size : *ret_largest;
		at += WIRE_PREFIX_SIZE + size;
	}
	buffer_done(&one.reply);
	return r;
}

/* Prepare with `count` labels, and a key of `key_size` bytes that ends with `number`. */
static int prepare(const Place *place, int number, size_t count, size_t key_size)
{
	static Snapshots__CreateRequest__LabelsEntry entries[LABELS_MANY], *pointers[LABELS_MANY];
	static char names[LABELS_MANY][64], value[LABEL_SIZE], key[META_KEY_MAX + 16];
	Snapshots__CreateRequest request;
	size_t size;
	snapshots__create_request__init(&request);
	memset(key, 'k', sizeof(key));
	(void)snprintf(key + key_size - 4, 5, "%04u", (unsigned)number % 10000);
	request.key = key;
	request.labels = pointers;
	request.n_labels = count;
	for (size_t i = 0; i < count; i++) {
		int length = snprintf(names[i], sizeof(names[i]), "containerd.io/snapshot/label-%zu", i);
		memset(value, 'v', sizeof(value));
		value[LABEL_SIZE - length] = '\0';
		snapshots__create_request__labels_entry__init(&entries[i]);
		entries[i].key = names[i];
		entries[i].value = value;
		pointers[i] = &entries[i];
	}
	return call(place, service_prepare, &request.base, &size);
}

/* The annotations of an image's layer become labels: too many of them must not be a message of List that nobody may send. */
static void test_list_is_always_possible(void **state)
{
	const Place *place = *state;
	Snapshots__ListRequest request = SNAPSHOTS__LIST_REQUEST__INIT;
	size_t size, most = LABELS_MANY;
	int accepted = 0;
	/* As large as they may be. */
	while (most > 0 && prepare(place, 9999, most, META_KEY_MAX) < 0)
		most--;
	assert_true(most >= 16); /* what all clients together send is less */
	for (; accepted < SNAPSHOTS; accepted++)
		assert_int_equal(prepare(place, accepted, most, META_KEY_MAX), 0);
	assert_int_equal(call(place, service_list, &request.base, &size), 0);
	assert_in_range(size, SNAPSHOTS * most * LABEL_SIZE, WIRE_MESSAGE_MAX);
}

static void test_refused(void **state)
{
	const Place *place = *state;
	uint64_t *ids;
	size_t count;
	assert_int_equal(prepare(place, 1, LABELS_MANY, 8), -EINVAL);
	assert_int_equal(prepare(place, 1, 1, META_KEY_MAX + 1), -EINVAL);
	assert_int_equal(mounts_ids(&place->mounts, &ids, &count, NULL), 0);
	assert_int_equal(count, 0);
	free(ids);
	assert_int_equal(prepare(place, 1, 1, 8), 0);
}

/* A label at a time comes to the same limit. */
static void test_update(void **state)
{
	const Place *place = *state;
	Snapshots__Info info;
	Snapshots__Info__LabelsEntry label, *labels = &label;
	Snapshots__Mask mask = SNAPSHOTS__MASK__INIT;
	Snapshots__UpdateRequest request = SNAPSHOTS__UPDATE_REQUEST__INIT;
	char name[32], path[64], value[4000], *paths = path;
	size_t size;
	int r = 0;
	snapshots__info__init(&info);
	snapshots__info__labels_entry__init(&label);
	memset(value, 'v', sizeof(value));
	value[sizeof(value) - 1] = '\0';
	info.name = (char *)(uintptr_t) "0001";
	info.labels = &labels;
	info.n_labels = 1;
	mask.paths = &paths;
	mask.n_paths = 1;
	request.info = &info;
	request.update_mask = &mask;
	label.key = name;
	label.value = value;
	assert_int_equal(prepare(place, 1, 0, 4), 0);
	for (int i = 0; r == 0 && i < LABELS_MANY; i++) {
		(void)snprintf(name, sizeof(name), "label-%d", i);
		(void)snprintf(path, sizeof(path), "labels.%s", name);
		r = call(place, service_update, &request.base, &size);
	}
	assert_int_equal(r, -EINVAL);
	(void)strcpy(value, "less"); /* one that is there may shrink */
	(void)strcpy(name, "label-0");
	(void)strcpy(path, "labels.label-0");
	assert_int_equal(call(place, service_update, &request.base, &size), 0);
}

typedef struct Cleaner {
	const Place *place;
	atomic_bool enough;
} Cleaner;

static void *clean_always(void *arg)
{
	Cleaner *cleaner = arg;
	size_t count;
	while (!atomic_load(&cleaner->enough))
		if (service_reconcile(cleaner->place->service, NULL, &count, NULL) < 0)
			return NULL;
	return arg;
}

static bool is_mount(const char *directory)
{
	struct statx status;
	return statx(AT_FDCWD, directory, 0, 0, &status) == 0 && status.stx_attributes & STATX_ATTR_MOUNT_ROOT;
}

static int prepare_mapped(const Place *place)
{
	Snapshots__CreateRequest request;
	Snapshots__CreateRequest__LabelsEntry label, *labels = &label;
	size_t size;
	snapshots__create_request__init(&request);
	snapshots__create_request__labels_entry__init(&label);
	label.key = (char *)(uintptr_t)PLAN_LABEL_UID_MAPPING;
	label.value = (char *)(uintptr_t) "0:100000:65536";
	request.key = (char *)(uintptr_t) "mapped";
	request.parent = (char *)(uintptr_t) "base";
	request.labels = &labels;
	request.n_labels = 1;
	return call(place, service_prepare, &request.base, &size);
}

/* The first snapshot that is seen with other owners, among mounts of the test's own. */
static void begin_mapped(const Place *place)
{
	const MetaLabels none = { 0 };
	const MetaCommit commit = { .id = 1, .key = "0001", .name = "base", .labels = &none };
	int r = unshare(CLONE_NEWNS);
	if (r == 0) {
		assert_int_equal(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
		assert_int_equal(prepare(place, 1, 0, 4), 0);
		assert_int_equal(meta_commit(place->meta, &commit, NULL), 0);
		r = prepare_mapped(place);
	}
	if (r < 0) {
		print_message("no mounts with other owners here\n");
		skip();
	}
}

/* In libc's place: while `stuck`, a look at what is seen with other owners does not come back, as where a file system hangs. */
static pthread_mutex_t stuck_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t stuck_changed = PTHREAD_COND_INITIALIZER;
static bool stuck;
static unsigned stuck_count; /* who is in it */

int stat(const char *restrict path, struct stat *restrict status)
{
	(void)pthread_mutex_lock(&stuck_lock);
	if (stuck && strstr(path, "/idmap/")) {
		stuck_count++;
		(void)pthread_cond_broadcast(&stuck_changed);
		while (stuck)
			(void)pthread_cond_wait(&stuck_changed, &stuck_lock);
	}
	(void)pthread_mutex_unlock(&stuck_lock);
	return fstatat(AT_FDCWD, path, status, 0);
}

static void *get_stuck(void *arg)
{
	return prepare_mapped(arg) == 0 ? arg : NULL;
}

/* A mount that hangs while it is looked at holds up no Cleanup, which leaves it. */
static void test_cleanup_beside_a_stuck_mapping(void **state)
{
	const Place *place = *state;
	pthread_t thread;
	void *result;
	size_t count;
	begin_mapped(place);
	assert_int_equal(meta_remove(place->meta, "mapped", NULL), 0);
	stuck = true;
	assert_int_equal(pthread_create(&thread, NULL, get_stuck, (void *)(uintptr_t)place), 0);
	(void)pthread_mutex_lock(&stuck_lock);
	while (stuck_count == 0)
		(void)pthread_cond_wait(&stuck_changed, &stuck_lock);
	(void)pthread_mutex_unlock(&stuck_lock);
	assert_int_equal(service_reconcile(place->service, NULL, &count, NULL), 0);
	(void)pthread_mutex_lock(&stuck_lock);
	stuck = false;
	(void)pthread_cond_broadcast(&stuck_changed);
	(void)pthread_mutex_unlock(&stuck_lock);
	assert_int_equal(pthread_join(thread, &result), 0);
	assert_non_null(result);
	const MountsIdmap idmap = { .uids = "0:100000:65536" };
	_cleanup_free_ char *directory = mounts_idmap_directory(&place->mounts, &idmap);
	assert_true(is_mount(directory));
	assert_int_equal(meta_remove(place->meta, "mapped", NULL), 0);
	assert_int_equal(service_reconcile(place->service, NULL, &count, NULL), 0);
	assert_false(is_mount(directory));
}

#define ROUNDS 300

/* Cleanup leaves what a snapshot is mounted through while it is made. */
static void test_cleanup_beside_mappings(void **state)
{
	const Place *place = *state;
	Cleaner cleaner = { .place = place };
	pthread_t thread;
	void *result;
	begin_mapped(place);
	const MountsIdmap idmap = { .uids = "0:100000:65536" };
	_cleanup_free_ char *directory = mounts_idmap_directory(&place->mounts, &idmap);
	assert_int_equal(pthread_create(&thread, NULL, clean_always, &cleaner), 0);
	bool there = true;
	for (int i = 0; there && i < ROUNDS; i++) {
		assert_int_equal(meta_remove(place->meta, "mapped", NULL), 0);
		assert_int_equal(prepare_mapped(place), 0);
		there = is_mount(directory);
	}
	atomic_store(&cleaner.enough, true);
	assert_int_equal(pthread_join(thread, &result), 0);
	assert_non_null(result);
	assert_true(there && is_mount(directory));
	assert_int_equal(meta_remove(place->meta, "mapped", NULL), 0);
	size_t count;
	assert_int_equal(service_reconcile(place->service, NULL, &count, NULL), 0);
	assert_false(is_mount(directory));
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = { TEST(test_list_is_always_possible), TEST(test_refused), TEST(test_update),
					    TEST(test_cleanup_beside_mappings),
					    TEST(test_cleanup_beside_a_stuck_mapping) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
