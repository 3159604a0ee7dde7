/* The lazy protocol with a backend that only remembers. The chain ID is sha256sum's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sqlite3.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/base/fd.h"
#include "snapshotter/mounts-tree.h"
#include "snapshotter/service-private.h"
#include "snapshotter/wire-message.h"

/* CHAIN: printf 'sha256:11...1 sha256:22...2' | sha256sum */
#define ONE   "sha256:1111111111111111111111111111111111111111111111111111111111111111"
#define TWO   "sha256:2222222222222222222222222222222222222222222222222222222222222222"
#define THREE "sha256:3333333333333333333333333333333333333333333333333333333333333333"
#define CHAIN "sha256:9932074217c35353d2e03a3f5a86549f7c67bfeb0ba53e23d69f4d4c8f7958f5"

typedef struct Fake {
	char tree[96];
	bool fails, hidden;
	bool lists;  /* owners() does not wait */
	bool blocks; /* the others wait as long as that is set and it is not cancelled; under the lock, as is the next */
	unsigned waiting;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned attached;
	uint64_t owners[8];
	size_t owner_count;
	char reference[64];
	size_t layers; /* of the last attach */
	char lowest[80];
} Fake;

typedef struct Place {
	char root[64], metrics[96], whole[96];
	Mounts mounts;
	Meta *meta;
	Fake fake;
	LazyBackend backend;
	Service *service;
} Place;

/* Was it cancelled? */
static bool fake_wait(Fake *fake, const atomic_bool *cancelled)
{
	(void)pthread_mutex_lock(&fake->lock);
	fake->waiting++;
	(void)pthread_cond_broadcast(&fake->changed);
	while (fake->blocks && !(cancelled && atomic_load(cancelled)))
		(void)pthread_cond_wait(&fake->changed, &fake->lock);
	fake->waiting--;
	(void)pthread_mutex_unlock(&fake->lock);
	return cancelled && atomic_load(cancelled);
}

static int fake_attach(void *arg, uint64_t id, const char *reference, const json_t *layers,
		       const atomic_bool *cancelled, char **ret_path, Error *error)
{
	Fake *fake = arg;
	if (fake_wait(fake, cancelled))
		return error_set(error, -ECANCELED, "given up");
	if (fake->fails)
		return error_set(error, -EHOSTUNREACH, "the build host is asleep");
	fake->attached++;
	(void)snprintf(fake->reference, sizeof(fake->reference), "%s", reference ?: "none");
	fake->layers = json_array_size(layers);
	(void)snprintf(fake->lowest, sizeof(fake->lowest), "%s",
		       json_string_value(json_object_get(json_array_get(layers, 0), "diffId")));
	bool has = false;
	for (size_t i = 0; i < fake->owner_count; i++)
		has = has || fake->owners[i] == id;
	if (!has)
		fake->owners[fake->owner_count++] = id;
	fake->hidden = false;
	*ret_path = strdup(fake->tree);
	return 0;
}

static int fake_detach(void *arg, uint64_t id, const atomic_bool *cancelled, Error *error)
{
	Fake *fake = arg;
	if (fake_wait(fake, cancelled))
		return error_set(error, -ECANCELED, "given up");
	for (size_t i = 0; i < fake->owner_count; i++) {
		if (fake->owners[i] == id) {
			fake->owners[i] = fake->owners[--fake->owner_count];
			return 0;
		}
	}
	return -ENOENT;
}

static int fake_owners(void *arg, const atomic_bool *cancelled, uint64_t **ret_ids, size_t *ret_count, Error *error)
{
	Fake *fake = arg;
	if (!fake->lists && fake_wait(fake, cancelled))
		return error_set(error, -ECANCELED, "given up");
	*ret_ids = calloc(8, sizeof(**ret_ids));
	memcpy(*ret_ids, fake->owners, sizeof(fake->owners));
	*ret_count = fake->owner_count;
	return 0;
}

static bool fake_shown(void *arg, const char *path)
{
	const Fake *fake = arg;
	return !fake->hidden && strcmp(path, fake->tree) == 0;
}

static int setup(void **state)
{
	static Place place;
	char database[96];
	place = (Place){ 0 };
	(void)strcpy(place.root, "/tmp/imgfs-lazy-XXXXXX");
	if (!mkdtemp(place.root))
		return -1;
	(void)snprintf(place.fake.tree, sizeof(place.fake.tree), "%s/tree", place.root);
	(void)snprintf(place.metrics, sizeof(place.metrics), "%s/metrics", place.root);
	(void)snprintf(place.whole, sizeof(place.whole), "%s/whole.json", place.root);
	(void)snprintf(database, sizeof(database), "%s/metadata.db", place.root);
	place.backend = (LazyBackend){ fake_attach, fake_detach, fake_owners, fake_shown, &place.fake };
	if (mkdir(place.fake.tree, 0750) < 0 || mounts_open(place.root, &place.mounts, NULL) < 0 ||
	    meta_open(database, &place.meta, NULL) < 0)
		return -1;
	const ServiceOptions options = {
		.meta = place.meta,
		.mounts = &place.mounts,
		.lazy = &place.backend,
		.metrics = place.metrics,
		.whole = place.whole,
	};
	(void)pthread_mutex_init(&place.fake.lock, NULL);
	(void)pthread_cond_init(&place.fake.changed, NULL);
	*state = &place;
	return service_new(&options, &place.service, NULL);
}

static int teardown(void **state)
{
	Place *place = *state;
	place->service = service_free(place->service);
	place->meta = meta_close(place->meta);
	mounts_close(&place->mounts);
	return mounts_tree_remove(AT_FDCWD, place->root);
}

/* Pairs of labels, NULL at the end. */
typedef const char *const Labels[20];

static int prepare_by(WireCall *call, Place *place, const char *key, const char *parent, Labels labels, char *ret_lower,
		      Error *error)
{
	Snapshots__CreateRequest request;
	Snapshots__CreateRequest__LabelsEntry entries[10], *pointers[10];
	snapshots__create_request__init(&request);
	request.key = (char *)(uintptr_t)key;
	request.parent = (char *)(uintptr_t)parent;
	request.labels = pointers;
	for (size_t i = 0; labels[i]; i += 2) {
		snapshots__create_request__labels_entry__init(&entries[i / 2]);
		entries[i / 2].key = (char *)(uintptr_t)labels[i];
		entries[i / 2].value = (char *)(uintptr_t)labels[i + 1];
		pointers[request.n_labels++] = &entries[i / 2];
	}
	uint8_t message[4096];
	call->message = message;
	call->size = snapshots__create_request__pack(&request, message);
	int r = service_prepare(call, place->service, error);
	if (r == 0 && ret_lower) {
		Snapshots__MountsReply *reply = snapshots__mounts_reply__unpack(
			NULL, call->reply.size - WIRE_PREFIX_SIZE, call->reply.data + WIRE_PREFIX_SIZE);
		const Snapshots__Mount *mount = reply->mounts[0];
		(void)strcpy(ret_lower, mount->n_options > 2 ? mount->options[mount->n_options - 1] : mount->source);
		snapshots__mounts_reply__free_unpacked(reply, NULL);
	}
	buffer_done(&call->reply);
	return r;
}

static int prepare(Place *place, const char *key, const char *parent, Labels labels, char *ret_lower, Error *error)
{
	WireCall call = { 0 };
	return prepare_by(&call, place, key, parent, labels, ret_lower, error);
}

#define REF   "containerd.io/snapshot.ref"
#define IMGFS "containerd.io/snapshot/imgfs."
#define BLOB                                                                                                      \
	IMGFS "version", "1", IMGFS "blob.digest", THREE, IMGFS "blob.size", "1000", IMGFS "index.offset", "800", \
		IMGFS "index.size", "100", IMGFS "index.digest", THREE
#define IMAGE   "containerd.io/snapshot/cri.image-ref", "build:8500/a:1"
#define CRI     "containerd.io/snapshot/cri.layer-digest"
#define DIFF_ID "containerd.io/snapshot/diff-id"

/* The lazy snapshot that has this chain ID. */
static char *name_of(const Place *place, const char *ref)
{
	MetaInfo infos[20];
	size_t count;
	char *name = NULL;
	assert_int_equal(meta_list(place->meta, 0, ref, ELEMENTS(infos), infos, &count, NULL), 0);
	for (size_t i = 0; i < count; i++) {
		if (infos[i].kind == META_COMMITTED) {
			assert_null(name);
			name = strdup(infos[i].key);
		}
		meta_info_done(&infos[i]);
	}
	assert_non_null(name);
	return name;
}

static void test_two_layers(void **state)
{
	Place *place = *state;
	char lower[256];
	const char *chain = CHAIN;
	assert_int_equal(prepare(place, "n/1/x", "", (Labels){ REF, ONE, BLOB, IMAGE }, NULL, NULL), -EEXIST);
	_cleanup_free_ char *lowest = name_of(place, ONE);
	assert_string_equal(place->fake.reference, "build:8500/a:1");
	assert_int_equal(
		prepare(place, "n/2/y", lowest, (Labels){ REF, chain, BLOB, IMGFS "diff-id", TWO }, NULL, NULL),
		-EEXIST);
	assert_int_equal(place->fake.layers, 2);
	assert_string_equal(place->fake.lowest, ONE);
	assert_string_equal(place->fake.reference, "build:8500/a:1"); /* that of what is below */
	_cleanup_free_ char *top = name_of(place, chain);
	/* The same for another client: found, not made again. */
	assert_int_equal(prepare(place, "other/1/x", "", (Labels){ REF, ONE, BLOB }, NULL, NULL), -EEXIST);
	assert_int_equal(place->fake.attached, 2);
	/* A container over it has the one tree below. */
	assert_int_equal(prepare(place, "n/3/c", top, (Labels){ 0 }, lower, NULL), 0);
	assert_non_null(strstr(lower, "lowerdir="));
	assert_string_equal(lower + strlen("lowerdir="), place->fake.tree);
	/* Nothing goes that is in use, and everything after. */
	Error error = { 0 };
	size_t count;
	assert_int_equal(meta_remove(place->meta, top, &error), -EBUSY);
	assert_int_equal(meta_remove(place->meta, "n/3/c", NULL), 0);
	assert_int_equal(meta_remove(place->meta, top, NULL), 0);
	assert_int_equal(service_reconcile(place->service, NULL, &count, NULL), 0);
	assert_int_equal(place->fake.owner_count, 1);
	assert_int_equal(meta_remove(place->meta, lowest, NULL), 0);
	assert_int_equal(service_reconcile(place->service, NULL, &count, NULL), 0);
	assert_int_equal(place->fake.owner_count, 0);
}

/* Who sends what: each combination that is lazy, and each that is not, with the reason that is counted. */
static void test_matrix(void **state)
{
	Place *place = *state;
	const char *chain = CHAIN;
	assert_int_equal(prepare(place, "bottom", "", (Labels){ REF, ONE, BLOB }, NULL, NULL), -EEXIST);
	_cleanup_free_ char *below = name_of(place, ONE);
	const struct {
		const char *what;
		Labels labels;
		LazyReason outcome;
	} samples[] = {
		{ "no annotations", { REF, chain }, LAZY_NO_ANNOTATIONS },
		{ "cri, but no annotations", { REF, chain, CRI, TWO, IMAGE }, LAZY_NO_ANNOTATIONS },
		{ "annotations alone", { REF, chain, BLOB }, LAZY_NO_DIFF_ID },
		{ "another layer", { REF, chain, BLOB, CRI, THREE }, LAZY_OTHER_CHAIN },
		{ "no digest", { REF, chain, BLOB, CRI, "sha256:x" }, LAZY_OTHER_CHAIN },
		{ "another version", { REF, chain, IMGFS "version", "2", CRI, TWO }, LAZY_BAD_ANNOTATIONS },
		{ "half of the annotations", { REF, chain, IMGFS "version", "1", CRI, TWO }, LAZY_BAD_ANNOTATIONS },
		{ "cri", { REF, chain, BLOB, CRI, TWO, IMAGE }, LAZY_IS_LAZY },
		{ "containerd 2.4", { REF, chain, BLOB, DIFF_ID, TWO }, LAZY_IS_LAZY },
		{ "as exported", { REF, chain, BLOB, IMGFS "diff-id", TWO }, LAZY_IS_LAZY },
	};
	for (size_t i = 0; i < ELEMENTS(samples); i++) {
		unsigned long long before = atomic_load(&place->service->lazy_outcomes[samples[i].outcome]);
		char key[16];
		(void)snprintf(key, sizeof(key), "key-%zu", i);
		int r = prepare(place, key, below, samples[i].labels, NULL, NULL);
		assert_int_equal(r, samples[i].outcome == LAZY_IS_LAZY ? -EEXIST : 0);
		if (atomic_load(&place->service->lazy_outcomes[samples[i].outcome]) != before + 1)
			fail_msg("%s", samples[i].what);
		if (r == 0)
			continue;
		_cleanup_free_ char *name = name_of(place, chain);
		assert_int_equal(meta_remove(place->meta, name, NULL), 0);
	}
	/* Without the label it is an ordinary call, whatever else comes along. */
	assert_int_equal(prepare(place, "plain", "", (Labels){ BLOB, CRI, ONE, IMAGE }, NULL, NULL), 0);
}

/* Over what was unpacked nothing is lazy; a view of part of a chain is none. */
static void test_ordinary_parent(void **state)
{
	Place *place = *state;
	const MetaLabels none = { 0 };
	assert_int_equal(prepare(place, "a", "", (Labels){ 0 }, NULL, NULL), 0);
	const MetaCommit commit = { .id = 1, .key = "a", .name = "unpacked", .labels = &none };
	assert_int_equal(meta_commit(place->meta, &commit, NULL), 0);
	assert_int_equal(prepare(place, "b", "unpacked", (Labels){ REF, CHAIN, BLOB, CRI, TWO }, NULL, NULL), 0);
	assert_int_equal(atomic_load(&place->service->lazy_outcomes[LAZY_PARENT]), 1);
}

static void test_fallback(void **state)
{
	Place *place = *state;
	_cleanup_free_ char *text = NULL;
	size_t size;
	place->fake.fails = true;
	assert_int_equal(prepare(place, "a", "", (Labels){ REF, ONE, BLOB }, NULL, NULL), 0);
	assert_int_equal(fd_read_file(AT_FDCWD, place->metrics, 10000, &text, &size), 0);
	assert_non_null(strstr(text, "imgfs_snapshotter_layers_total{outcome=\"unavailable\"} 1\n"));
	assert_non_null(strstr(text, "imgfs_snapshotter_layers_total{outcome=\"lazy\"} 0\n"));
}

static json_t *whole_of(const Place *place)
{
	return json_load_file(place->whole, 0, NULL);
}

static const char *whole_text(const json_t *list, size_t index, const char *key)
{
	return json_string_value(json_object_get(json_array_get(list, index), key));
}

/* What is known of an image that was pulled whole: once a reason, over a restart, until the image is pulled again. */
static void test_whole(void **state)
{
	Place *place = *state;
	const ServiceOptions again = {
		.meta = place->meta, .mounts = &place->mounts, .lazy = &place->backend, .whole = place->whole
	};
	assert_int_equal(prepare(place, "plain", "", (Labels){ REF, TWO }, NULL, NULL), 0);
	assert_null(whole_of(place)); /* an ordinary image without a name is nothing to speak of */
	assert_int_equal(prepare(place, "named", "", (Labels){ REF, TWO, IMAGE }, NULL, NULL), 0);
	place->fake.fails = true;
	for (int i = 0; i < 2; i++) {
		const char *key = i == 0 ? "a" : "b";
		assert_int_equal(prepare(place, key, "", (Labels){ REF, ONE, BLOB, IMAGE }, NULL, NULL), 0);
		json_auto_t *list = whole_of(place);
		assert_int_equal(json_array_size(list), 1);
		assert_string_equal(whole_text(list, 0, "image"), "build:8500/a:1");
		assert_string_equal(whole_text(list, 0, "chain"), ONE);
		assert_string_equal(whole_text(list, 0, "reason"), "unavailable");
		assert_string_equal(whole_text(list, 0, "why"), "the build host is asleep");
		place->service = service_free(place->service);
		assert_int_equal(service_new(&again, &place->service, NULL), 0);
	}
	place->fake.fails = false;
	assert_int_equal(prepare(place, "c", "", (Labels){ REF, ONE, BLOB, IMAGE }, NULL, NULL), -EEXIST);
	json_auto_t *list = whole_of(place);
	assert_true(json_is_array(list) && json_array_size(list) == 0);
}

/* A tree that has vanished is shown again; where that fails the answer is Unavailable, and never an empty directory. */
static void test_unreachable(void **state)
{
	Place *place = *state;
	char lower[256];
	Error error = { 0 };
	assert_int_equal(prepare(place, "x", "", (Labels){ REF, ONE, BLOB }, NULL, NULL), -EEXIST);
	_cleanup_free_ char *name = name_of(place, ONE);
	place->fake.hidden = true;
	assert_int_equal(prepare(place, "c", name, (Labels){ 0 }, lower, NULL), 0);
	assert_int_equal(place->fake.attached, 2);
	place->fake.hidden = place->fake.fails = true;
	assert_int_equal(prepare(place, "d", name, (Labels){ 0 }, lower, &error), -EAGAIN);
	assert_non_null(strstr(error.message, "the build host is asleep"));
	MetaInfo info;
	assert_int_equal(meta_stat(place->meta, "d", &info, NULL), -ENOENT);
	assert_int_equal(atomic_load(&place->service->lazy_unreachable), 1);
}

/* What cannot be mounted is not there afterwards either, so that the same key can be asked for again. */
static void test_unreachable_below(void **state)
{
	Place *place = *state;
	const MetaLabels none = { 0 };
	MetaInfo info;
	uint64_t *ids;
	size_t count;
	assert_int_equal(prepare(place, "x", "", (Labels){ REF, ONE, BLOB }, NULL, NULL), -EEXIST);
	_cleanup_free_ char *name = name_of(place, ONE);
	assert_int_equal(prepare(place, "c", name, (Labels){ 0 }, NULL, NULL), 0);
	assert_int_equal(meta_stat(place->meta, "c", &info, NULL), 0);
	const MetaCommit commit = { .id = info.id, .key = "c", .name = "ordinary", .labels = &none };
	meta_info_done(&info);
	assert_int_equal(meta_commit(place->meta, &commit, NULL), 0);
	place->fake.hidden = place->fake.fails = true;
	assert_int_equal(prepare(place, "d", "ordinary", (Labels){ 0 }, NULL, NULL), -EAGAIN);
	place->fake.fails = false;
	assert_int_equal(prepare(place, "d", "ordinary", (Labels){ 0 }, NULL, NULL), 0);
	assert_int_equal(mounts_ids(&place->mounts, &ids, &count, NULL), 0);
	assert_int_equal(count, 2);
	free(ids);
}

/* A tree that is shown is used though the daemon cannot be asked: it may be starting anew, or the network is away. */
static void test_shown(void **state)
{
	Place *place = *state;
	char lower[256];
	assert_int_equal(prepare(place, "x", "", (Labels){ REF, ONE, BLOB }, NULL, NULL), -EEXIST);
	_cleanup_free_ char *name = name_of(place, ONE);
	place->fake.fails = true;
	assert_int_equal(prepare(place, "c", name, (Labels){ 0 }, lower, NULL), 0);
	assert_string_equal(lower + strlen("lowerdir="), place->fake.tree);
	assert_int_equal(place->fake.attached, 1);
}

/* A layer whose row cannot be written is not counted as one that is lazy, nor held. */
static void test_no_row(void **state)
{
	static const char trigger[] =
		"CREATE TRIGGER full BEFORE INSERT ON lazy BEGIN SELECT RAISE(ABORT, 'the disk is full'); END";
	Place *place = *state;
	char database[96];
	sqlite3 *db;
	(void)snprintf(database, sizeof(database), "%s/metadata.db", place->root);
	assert_int_equal(sqlite3_open(database, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, trigger, NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
	assert_int_equal(prepare(place, "a", "", (Labels){ REF, ONE, BLOB }, NULL, NULL), 0);
	assert_int_equal(place->fake.owner_count, 0);
	assert_int_equal(atomic_load(&place->service->lazy_outcomes[LAZY_IS_LAZY]), 0);
	assert_int_equal(atomic_load(&place->service->lazy_outcomes[LAZY_UNAVAILABLE]), 1);
}

/* Overlayfs would take such a path for two. */
static void test_separators(void **state)
{
	Place *place = *state;
	char lower[256];
	(void)strcat(place->fake.tree, ":x");
	assert_int_equal(prepare(place, "a", "", (Labels){ REF, ONE, BLOB }, lower, NULL), 0);
	assert_int_equal(atomic_load(&place->service->lazy_outcomes[LAZY_UNAVAILABLE]), 1);
	assert_int_equal(place->fake.owner_count, 0);
}

typedef struct Caller {
	Place *place;
	char key[16];
	unsigned *done; /* under the fake's lock */
	int result;
} Caller;

static void *call_prepare(void *arg)
{
	Caller *caller = arg;
	Fake *fake = &caller->place->fake;
	caller->result = prepare(caller->place, caller->key, "", (Labels){ REF, ONE, BLOB }, NULL, NULL);
	(void)pthread_mutex_lock(&fake->lock);
	++*caller->done;
	(void)pthread_cond_broadcast(&fake->changed);
	(void)pthread_mutex_unlock(&fake->lock);
	return NULL;
}

/* A daemon that hangs has some calls wait, and not all that come: threads are left for what needs it not. */
static void test_daemon_hangs(void **state)
{
	Place *place = *state;
	Fake *fake = &place->fake;
	Caller callers[SERVICE_LAZY_WAITING_MAX + 1];
	pthread_t threads[ELEMENTS(callers)];
	unsigned done = 0;
	fake->blocks = fake->fails = true;
	for (unsigned i = 0; i < ELEMENTS(callers); i++) {
		callers[i] = (Caller){ .place = place, .done = &done };
		(void)snprintf(callers[i].key, sizeof(callers[i].key), "key-%u", i);
		assert_int_equal(pthread_create(&threads[i], NULL, call_prepare, &callers[i]), 0);
	}
	(void)pthread_mutex_lock(&fake->lock);
	while (fake->waiting + done < ELEMENTS(callers))
		(void)pthread_cond_wait(&fake->changed, &fake->lock);
	assert_int_equal(done, 1);
	fake->blocks = false;
	(void)pthread_cond_broadcast(&fake->changed);
	(void)pthread_mutex_unlock(&fake->lock);
	for (unsigned i = 0; i < ELEMENTS(callers); i++) {
		assert_int_equal(pthread_join(threads[i], NULL), 0);
		assert_int_equal(callers[i].result, 0); /* pulled whole */
	}
}

typedef struct Quitter {
	Place *place;
	WireCall call;
	const char *key, *parent;
	int result;
} Quitter;

static void *call_and_quit(void *arg)
{
	Quitter *quitter = arg;
	quitter->result = prepare_by(&quitter->call, quitter->place, quitter->key, quitter->parent,
				     (Labels){ REF, CHAIN, BLOB, CRI, TWO, IMAGE }, NULL, NULL);
	return NULL;
}

/* Who gives up while the daemon hangs has his call ended, and nothing comes of it: no snapshot, and no word of a layer that was pulled whole. */
static void test_cancelled(void **state)
{
	Place *place = *state;
	Fake *fake = &place->fake;
	assert_int_equal(prepare(place, "x", "", (Labels){ REF, ONE, BLOB }, NULL, NULL), -EEXIST);
	_cleanup_free_ char *name = name_of(place, ONE);
	const MetaLabels none = { 0 };
	assert_int_equal(prepare(place, "c", name, (Labels){ 0 }, NULL, NULL), 0);
	const MetaCommit commit = { .id = 2, .key = "c", .name = "ordinary", .labels = &none };
	assert_int_equal(meta_commit(place->meta, &commit, NULL), 0);
	Quitter quitters[] = {
		{ .place = place, .key = "layer", .parent = name },      /* a layer that is to be lazy */
		{ .place = place, .key = "over", .parent = "ordinary" }, /* a tree that is to be shown again */
	};
	fake->blocks = fake->hidden = true;
	for (size_t i = 0; i < ELEMENTS(quitters); i++) {
		pthread_t thread;
		MetaInfo info;
		assert_int_equal(pthread_create(&thread, NULL, call_and_quit, &quitters[i]), 0);
		(void)pthread_mutex_lock(&fake->lock);
		while (fake->waiting == 0)
			(void)pthread_cond_wait(&fake->changed, &fake->lock);
		atomic_store(&quitters[i].call.cancelled, true);
		(void)pthread_cond_broadcast(&fake->changed);
		(void)pthread_mutex_unlock(&fake->lock);
		assert_int_equal(pthread_join(thread, NULL), 0);
		assert_int_equal(quitters[i].result, -ECANCELED);
		assert_int_equal(meta_stat(place->meta, quitters[i].key, &info, NULL), -ENOENT);
	}
	assert_int_equal(atomic_load(&place->service->lazy_outcomes[LAZY_UNAVAILABLE]), 0);
	assert_int_equal(atomic_load(&place->service->lazy_unreachable), 0);
	assert_int_equal(fake->owner_count, 1);
}

static void *clean_and_quit(void *arg)
{
	Quitter *quitter = arg;
	quitter->result = service_cleanup(&quitter->call, quitter->place->service, NULL);
	buffer_done(&quitter->call.reply);
	return NULL;
}

/* So has who gives Cleanup up, whether the daemon hangs when it is asked what is held or when something is to go; the next one does the rest. */
static void test_cleanup_cancelled(void **state)
{
	Place *place = *state;
	Fake *fake = &place->fake;
	size_t count;
	fake->owners[fake->owner_count++] = 90;
	fake->owners[fake->owner_count++] = 91;
	for (int i = 0; i < 2; i++) {
		Quitter quitter = { .place = place };
		pthread_t thread;
		fake->blocks = true;
		fake->lists = i == 1;
		assert_int_equal(pthread_create(&thread, NULL, clean_and_quit, &quitter), 0);
		(void)pthread_mutex_lock(&fake->lock);
		while (fake->waiting == 0)
			(void)pthread_cond_wait(&fake->changed, &fake->lock);
		atomic_store(&quitter.call.cancelled, true);
		(void)pthread_cond_broadcast(&fake->changed);
		(void)pthread_mutex_unlock(&fake->lock);
		assert_int_equal(pthread_join(thread, NULL), 0);
		assert_int_equal(quitter.result, 0);
		assert_int_equal(fake->owner_count, 2);
	}
	fake->blocks = false;
	assert_int_equal(service_reconcile(place->service, NULL, &count, NULL), 0);
	assert_int_equal(fake->owner_count, 0);
}

/* As containerd shortens lower directories: all are in one, whatever their number, and the lowest leads to the tree, where that is now. */
static void check_lowers(const Place *place, const char *lowers, size_t count)
{
	char target[128] = "", last[128] = "";
	size_t length = strlen(place->mounts.snapshots);
	assert_memory_equal(lowers, "lowerdir=", 9);
	for (const char *at = lowers + 8; at; at = strchr(at, ':'), count--) {
		at++;
		assert_memory_equal(at, place->mounts.snapshots, length);
		(void)snprintf(last, sizeof(last), "%.*s", (int)strcspn(at, ":"), at);
	}
	assert_int_equal(count, 0);
	assert_true(readlink(last, target, sizeof(target) - 1) > 0);
	assert_string_equal(target, place->fake.tree);
}

#define MANY 150

static void test_many_layers(void **state)
{
	Place *place = *state;
	const MetaLabels none = { 0 };
	char lowers[MANY * 64], parent[32];
	size_t count;
	assert_int_equal(prepare(place, "x", "", (Labels){ REF, ONE, BLOB }, NULL, NULL), -EEXIST);
	_cleanup_free_ char *name = name_of(place, ONE);
	for (unsigned i = 0; i < MANY; i++) {
		char next[32];
		(void)snprintf(next, sizeof(next), "layer-%u", i);
		assert_int_equal(prepare(place, "a", i == 0 ? name : parent, (Labels){ 0 }, NULL, NULL), 0);
		const MetaCommit commit = { .id = i + 2, .key = "a", .name = next, .labels = &none };
		assert_int_equal(meta_commit(place->meta, &commit, NULL), 0);
		(void)memcpy(parent, next, sizeof(next));
	}
	assert_int_equal(prepare(place, "c", parent, (Labels){ 0 }, lowers, NULL), 0);
	check_lowers(place, lowers, MANY + 1);
	(void)strcat(place->fake.tree, "-moved");
	assert_int_equal(mkdir(place->fake.tree, 0755), 0);
	assert_int_equal(prepare(place, "d", parent, (Labels){ 0 }, lowers, NULL), 0);
	check_lowers(place, lowers, MANY + 1);
	/* The link goes with the snapshot. */
	assert_int_equal(meta_remove(place->meta, "c", NULL), 0);
	assert_int_equal(meta_remove(place->meta, "d", NULL), 0);
	for (unsigned i = MANY; i-- > 0;) {
		(void)snprintf(parent, sizeof(parent), "layer-%u", i);
		assert_int_equal(meta_remove(place->meta, parent, NULL), 0);
	}
	assert_int_equal(service_reconcile(place->service, NULL, &count, NULL), 0);
	assert_int_equal(count, MANY + 2);
	assert_int_equal(meta_remove(place->meta, name, NULL), 0);
	assert_int_equal(service_reconcile(place->service, NULL, &count, NULL), 0);
	assert_int_equal(count, 1);
}

/* A crash between tree and row leaves an owner without a snapshot. */
static void test_orphan(void **state)
{
	Place *place = *state;
	size_t count;
	assert_int_equal(prepare(place, "x", "", (Labels){ REF, ONE, BLOB }, NULL, NULL), -EEXIST);
	place->service->next_id = 100;
	place->fake.owners[place->fake.owner_count++] = 50;
	assert_int_equal(service_reconcile(place->service, NULL, &count, NULL), 0);
	assert_int_equal(place->fake.owner_count, 1);
	assert_int_equal(place->fake.owners[0], 1);
}

/* What a predecessor held has a number that was not written down: nothing keeps it, also when a snapshot of another kind has got the number. */
static void test_orphan_of_a_crash(void **state)
{
	Place *place = *state;
	size_t count;
	uint64_t id;
	assert_int_equal(prepare(place, "x", "", (Labels){ 0 }, NULL, NULL), 0);
	place->fake.owners[0] = 1; /* that snapshot's number */
	place->fake.owners[1] = 70;
	place->fake.owner_count = 2;
	assert_int_equal(service_reconcile(place->service, NULL, &count, NULL), 0);
	assert_int_equal(place->fake.owner_count, 0);
	/* It was let go of under this number, so nobody may have got it in between. */
	assert_int_equal(service_id_begin(place->service, &id, NULL), 0);
	assert_int_equal(id, 71);
	/* One that begins is spared. */
	place->fake.owners[0] = id;
	place->fake.owner_count = 1;
	assert_int_equal(service_reconcile(place->service, NULL, &count, NULL), 0);
	assert_int_equal(place->fake.owner_count, 1);
	service_id_end(place->service, id);
	assert_int_equal(service_reconcile(place->service, NULL, &count, NULL), 0);
	assert_int_equal(place->fake.owner_count, 0);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_two_layers),
		TEST(test_matrix),
		TEST(test_ordinary_parent),
		TEST(test_fallback),
		TEST(test_whole),
		TEST(test_unreachable),
		TEST(test_unreachable_below),
		TEST(test_daemon_hangs),
		TEST(test_shown),
		TEST(test_orphan),
		TEST(test_orphan_of_a_crash),
		TEST(test_separators),
		TEST(test_no_row),
		TEST(test_cancelled),
		TEST(test_many_layers),
		TEST(test_cleanup_cancelled),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
