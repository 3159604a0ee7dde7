#include "fs/fetch/fetch-share-index.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "fs/cache/cache-contents.h"
#include "fs/fetch/fetch-manifest.h"
#include "fs/fetch/fetch.h"

#define LOOK_AGAIN 1000 /* milliseconds between two looks at what has changed */
#define SETTLED \
	2 /* seconds after which a change of a directory has shown in its time, also on file systems with coarse times */

/* What was read: the same twice, in two orders. */
typedef struct Layers {
	ManifestLayer *by_blob, *by_diff_id;
	size_t count, room;
} Layers;

struct ShareIndex {
	CacheStore *cache;
	atomic_ulong reads;
	pthread_mutex_t mutex; /* of all below, not held while reading */
	pthread_cond_t done;
	bool looking; /* a thread looks whether something has changed, and reads it */
	int64_t looked;
	struct timespec changed; /* the directory's time before it was read */
	bool settled;            /* which was long ago then */
	Layers *layers;          /* NULL: nothing was read yet */
};

static void layers_free(Layers *layers)
{
	if (!layers)
		return;
	free(layers->by_blob);
	free(layers->by_diff_id);
	free(layers);
}

int share_index_new(CacheStore *cache, ShareIndex **ret_index)
{
	ShareIndex *index = calloc(1, sizeof(*index));
	if (!index)
		return -ENOMEM;
	index->cache = cache;
	index->looked = INT64_MIN;
	(void)pthread_mutex_init(&index->mutex, NULL);
	(void)pthread_cond_init(&index->done, NULL);
	*ret_index = index;
	return 0;
}

ShareIndex *share_index_free(ShareIndex *index)
{
	if (index) {
		layers_free(index->layers);
		(void)pthread_mutex_destroy(&index->mutex);
		(void)pthread_cond_destroy(&index->done);
		free(index);
	}
	return NULL;
}

unsigned long share_index_reads(const ShareIndex *index)
{
	return atomic_load(&index->reads);
}

static int add_manifest(CacheStore *cache, const Digest *digest, Layers *layers)
{
	_cleanup_(fetch_manifest_done) FetchManifest manifest = { 0 };
	int r = fetch_manifest_cached(cache, digest, &manifest);
	if (r < 0)
		return r == -ENOMEM ? r : 0; /* gone meanwhile, rotten, or of no image of imgfs */
	size_t count = layers->count + manifest.manifest.layer_count;
	if (count > layers->room) {
		ManifestLayer *larger = reallocarray(layers->by_blob, 2 * count, sizeof(*larger));
		if (!larger)
			return -ENOMEM;
		layers->by_blob = larger;
		layers->room = 2 * count;
	}
	for (size_t i = 0; i < manifest.manifest.layer_count; i++)
		layers->by_blob[layers->count++] = manifest.manifest.layers[i];
	return 0;
}

static int compare(const Digest *left, const Digest *right, const ManifestLayer *a, const ManifestLayer *b)
{
	int order = digest_compare(left, right);
	if (order == 0)
		order = digest_compare(&a->blob, &b->blob);
	return order ? order : digest_compare(&a->index, &b->index);
}

static int compare_blobs(const void *left, const void *right)
{
	const ManifestLayer *a = left, *b = right;
	return compare(&a->blob, &b->blob, a, b);
}

static int compare_diff_ids(const void *left, const void *right)
{
	const ManifestLayer *a = left, *b = right;
	return compare(&a->diff_id, &b->diff_id, a, b);
}

/* Many images share a layer. */
static bool same(const ManifestLayer *a, const ManifestLayer *b)
{
	return compare_blobs(a, b) == 0 && digest_equal(&a->diff_id, &b->diff_id) && a->blob_size == b->blob_size &&
	       a->tar_size == b->tar_size && a->index_offset == b->index_offset && a->index_size == b->index_size;
}

static int sort(Layers *layers)
{
	size_t kept = 0;
	if (layers->count == 0)
		return 0;
	qsort(layers->by_blob, layers->count, sizeof(*layers->by_blob), compare_blobs);
	for (size_t i = 0; i < layers->count; i++)
		if (kept == 0 || !same(&layers->by_blob[kept - 1], &layers->by_blob[i]))
			layers->by_blob[kept++] = layers->by_blob[i];
	layers->count = kept;
	layers->by_diff_id = calloc(kept, sizeof(*layers->by_diff_id));
	if (!layers->by_diff_id)
		return -ENOMEM;
	memcpy(layers->by_diff_id, layers->by_blob, kept * sizeof(*layers->by_diff_id));
	qsort(layers->by_diff_id, kept, sizeof(*layers->by_diff_id), compare_diff_ids);
	return 0;
}

static int read_layers(ShareIndex *index, Layers **ret_layers)
{
	_cleanup_free_ CacheObject *objects = NULL;
	size_t count = 0;
	Layers *layers = calloc(1, sizeof(*layers));
	if (!layers)
		return -ENOMEM;
	int r = cache_contents_list(index->cache, CACHE_MANIFEST, &objects, &count);
	for (size_t i = 0; r == 0 && i < count; i++) {
		(void)atomic_fetch_add(&index->reads, 1);
		r = add_manifest(index->cache, &objects[i].digest, layers);
	}
	if (r == 0)
		r = sort(layers);
	if (r < 0) {
		layers_free(layers);
		return r;
	}
	*ret_layers = layers;
	return 0;
}

/* Looks at the directory, and reads what is in it unless that is known. The mutex is held, but not meanwhile. */
static int look(ShareIndex *index)
{
	struct stat status = { 0 };
	Layers *layers = NULL;
	struct timespec before = index->changed;
	bool known = index->layers && index->settled;
	index->looking = true;
	(void)pthread_mutex_unlock(&index->mutex);
	int r = fstatat(cache_store_fd(index->cache), "manifests", &status, 0) < 0 ? -errno : 0;
	time_t now = time(NULL);
	known = known && status.st_mtim.tv_sec == before.tv_sec && status.st_mtim.tv_nsec == before.tv_nsec;
	if (r == 0 && !known)
		r = read_layers(index, &layers);
	(void)pthread_mutex_lock(&index->mutex);
	index->looking = false;
	index->looked = fetch_now();
	if (layers) {
		layers_free(index->layers);
		index->layers = layers;
		index->changed = status.st_mtim;
		index->settled = now - status.st_mtim.tv_sec > SETTLED;
	}
	(void)pthread_cond_broadcast(&index->done);
	return r;
}

/* The first layer that is not below the digest. */
static size_t lower_bound(const Layers *layers, ShareKey key, const Digest *digest)
{
	size_t low = 0, high = layers->count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		const Digest *here =
			key == SHARE_BLOB ? &layers->by_blob[middle].blob : &layers->by_diff_id[middle].diff_id;
		if (digest_compare(here, digest) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static int find(const Layers *layers, ShareKey key, const Digest *digest, ManifestLayer **ret_layers, size_t *ret_count)
{
	size_t first = lower_bound(layers, key, digest), count = 0;
	const ManifestLayer *from = key == SHARE_BLOB ? layers->by_blob : layers->by_diff_id;
	while (first + count < layers->count &&
	       digest_equal(key == SHARE_BLOB ? &from[first + count].blob : &from[first + count].diff_id, digest))
		count++;
	if (count == 0)
		return -ENOENT;
	ManifestLayer *copy = calloc(count, sizeof(*copy));
	if (!copy)
		return -ENOMEM;
	memcpy(copy, from + first, count * sizeof(*copy));
	*ret_layers = copy;
	*ret_count = count;
	return 0;
}

/* Makes sure that what is known is no older than LOOK_AGAIN. The mutex is held, but not while it reads. */
static int refresh(ShareIndex *index)
{
	while (index->looking)
		(void)pthread_cond_wait(&index->done, &index->mutex);
	if (index->looked != INT64_MIN && fetch_now() - index->looked < LOOK_AGAIN)
		return index->layers ? 0 : -ENOENT;
	return look(index);
}

int share_index_find(ShareIndex *index, ShareKey key, const Digest *digest, ManifestLayer **ret_layers,
		     size_t *ret_count)
{
	(void)pthread_mutex_lock(&index->mutex);
	/* What is known of a digest stays true, so that only a digest which is not known has anybody look. */
	int r = index->layers ? find(index->layers, key, digest, ret_layers, ret_count) : -ENOENT;
	if (r == -ENOENT) {
		r = refresh(index);
		if (r == 0)
			r = find(index->layers, key, digest, ret_layers, ret_count);
	}
	(void)pthread_mutex_unlock(&index->mutex);
	return r;
}
