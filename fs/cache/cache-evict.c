#include "fs/cache/cache-evict.h"

#include <errno.h>
#include <sys/stat.h>
#include <time.h>

#include "fs/base/digest-list.h"
#include "fs/cache/cache-contents.h"
#include "fs/cache/cache-evict-blob.h"
#include "fs/cache/cache-pins.h"
#include "fs/cache/cache-private.h"
#include "fs/cache/cache-seal.h"

#define HEADROOM 16u /* a part of the quota that is made free */
#define ROUNDS   3u  /* what chunks take on the disk is not exactly what they are long */

typedef struct Eviction {
	CacheStore *store;
	DigestList protected;
	CacheObject *blobs, *copies; /* copies: decoded; their numbers as victims follow those of the blobs */
	size_t blob_count, copy_count;
	CacheVictims victims;
	CacheEvicted result;
} Eviction;

static void eviction_done(Eviction *eviction)
{
	digest_list_done(&eviction->protected);
	free(eviction->blobs);
	free(eviction->copies);
	free(eviction->victims.victims);
}

/* What all of the cache takes on the disk. */
static int measure(CacheStore *store, uint64_t *ret_bytes)
{
	uint64_t bytes = 0;
	for (CacheKind kind = 0; kind < CACHE_KINDS; kind++) {
		_cleanup_free_ CacheObject *objects = NULL;
		size_t count = 0;
		int r = cache_contents_list(store, kind, &objects, &count);
		if (r < 0)
			return r;
		for (size_t i = 0; i < count; i++)
			bytes += objects[i].bytes;
	}
	*ret_bytes = bytes;
	return 0;
}

static int list_protected(Eviction *eviction, Error *error)
{
	CachePin *pins = NULL;
	size_t count = 0;
	int r = cache_pins_list(eviction->store, &pins, &count, error);
	for (size_t i = 0; r == 0 && i < count; i++)
		for (size_t j = 0; r == 0 && j < pins[i].keep.count; j++)
			r = digest_list_add(&eviction->protected, &pins[i].keep.digests[j]);
	cache_pins_free(pins, count);
	digest_list_sort(&eviction->protected);
	return r;
}

static int list_blob(Eviction *eviction, size_t number, uint32_t now)
{
	const CacheObject *object = &eviction->blobs[number];
	/* A server may have sealed it, and nobody who could pin the image has come by since (fetch-seal.h). */
	bool kept = digest_list_has(&eviction->protected, &object->digest) ||
		    cache_seal_is_written(eviction->store, &object->digest);
	CacheEvictBlob blob;
	int r = cache_evict_blob_open(eviction->store, &object->digest, &blob);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	if (kept)
		eviction->result.kept += object->bytes;
	r = cache_evict_blob_list(&blob, number, now, kept ? NULL : &eviction->victims);
	cache_evict_blob_close(&blob);
	return r;
}

/* A decoded copy goes whole. */
static int list_copy(Eviction *eviction, size_t number, uint32_t now)
{
	const CacheObject *copy = &eviction->copies[number];
	if (digest_list_has(&eviction->protected, &copy->digest)) {
		eviction->result.kept += copy->bytes;
		return 0;
	}
	if (copy->bytes == 0) /* a place where somebody is about to make one: nothing would be gained */
		return 0;
	CacheVictim victim = {
		.blob = eviction->blob_count + number,
		.chunk = CACHE_VICTIM_ALL,
		.size = copy->bytes,
	};
	int r = cache_evict_copy_used(eviction->store, &copy->digest, now, &victim.used);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	return cache_victims_add(&eviction->victims, &victim);
}

static int compare_age(const void *left, const void *right)
{
	const CacheVictim *a = left, *b = right;
	if (a->used != b->used)
		return a->used < b->used ? -1 : 1;
	if (a->blob != b->blob)
		return a->blob < b->blob ? -1 : 1;
	return (a->chunk > b->chunk) - (a->chunk < b->chunk);
}

static int compare_place(const void *left, const void *right)
{
	const CacheVictim *a = left, *b = right;
	if (a->blob != b->blob)
		return a->blob < b->blob ? -1 : 1;
	return (a->chunk > b->chunk) - (a->chunk < b->chunk);
}

/* The oldest that together are `need` bytes long, in the order of their places. Returns how many. */
static size_t choose(CacheVictims *victims, uint64_t need)
{
	size_t chosen = 0;
	qsort(victims->victims, victims->count, sizeof(*victims->victims), compare_age);
	for (uint64_t sum = 0; chosen < victims->count && sum < need; chosen++)
		sum += victims->victims[chosen].size;
	qsort(victims->victims, chosen, sizeof(*victims->victims), compare_place);
	return chosen;
}

/* Evicts the victims of one blob, or a copy. What has gone meanwhile is no fault, nor what was sealed meanwhile. */
static int punch_blob(Eviction *eviction, const CacheVictim *victims, size_t count, size_t *ret_evicted)
{
	size_t number = victims[0].blob;
	*ret_evicted = count;
	if (number >= eviction->blob_count)
		return cache_evict_copy(eviction->store, &eviction->copies[number - eviction->blob_count].digest);
	CacheEvictBlob blob;
	*ret_evicted = 0;
	int r = cache_seal_is_written(eviction->store, &eviction->blobs[number].digest)
			? -ENOENT
			: cache_evict_blob_open(eviction->store, &eviction->blobs[number].digest, &blob);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	r = cache_evict_blob_punch(&blob, victims, count, ret_evicted);
	cache_evict_blob_close(&blob);
	return r;
}

static int punch_chosen(Eviction *eviction, size_t chosen)
{
	const CacheVictim *victims = eviction->victims.victims;
	int r = 0;
	for (size_t i = 0, next, evicted; r == 0 && i < chosen; i = next) {
		for (next = i + 1; next < chosen && victims[next].blob == victims[i].blob;)
			next++;
		r = punch_blob(eviction, victims + i, next - i, &evicted);
		eviction->result.chunks += evicted;
	}
	return r;
}

/* One round: looks at everything, and frees `need` bytes. `ret_chosen`: how many chunks went. */
static int evict_round(Eviction *eviction, uint64_t need, size_t *ret_chosen)
{
	uint32_t now = (uint32_t)time(NULL);
	free(eviction->blobs);
	free(eviction->copies);
	eviction->blobs = eviction->copies = NULL;
	eviction->victims.count = 0;
	eviction->result.kept = 0;
	int r = cache_contents_list(eviction->store, CACHE_BLOB, &eviction->blobs, &eviction->blob_count);
	if (r == 0)
		r = cache_contents_list(eviction->store, CACHE_DECODED, &eviction->copies, &eviction->copy_count);
	for (size_t i = 0; r == 0 && i < eviction->blob_count; i++)
		r = list_blob(eviction, i, now);
	for (size_t i = 0; r == 0 && i < eviction->copy_count; i++)
		r = list_copy(eviction, i, now);
	*ret_chosen = r == 0 && need > 0 && eviction->victims.count > 0 ? choose(&eviction->victims, need) : 0;
	return r == 0 ? punch_chosen(eviction, *ret_chosen) : r;
}

/* The size that is wanted of a cache of `bytes`. */
static uint64_t target(const CacheEvict *options, uint64_t bytes)
{
	uint64_t wanted = bytes > options->free ? bytes - options->free : 0;
	uint64_t within = options->quota - options->quota / HEADROOM;
	return options->quota != 0 && bytes > options->quota && within < wanted ? within : wanted;
}

static int evict(Eviction *eviction, const CacheEvict *options)
{
	CacheEvicted *result = &eviction->result;
	int r = measure(eviction->store, &result->before);
	uint64_t wanted = r == 0 ? target(options, result->before) : 0;
	size_t chosen = 1;
	result->after = result->before;
	/* The first round also ends what others had begun. */
	for (unsigned round = 0; r == 0 && chosen > 0 && round < ROUNDS && (round == 0 || result->after > wanted);
	     round++) {
		r = evict_round(eviction, result->after - wanted, &chosen);
		if (r == 0 && chosen > 0)
			r = measure(eviction->store, &result->after);
	}
	result->enough = result->after <= wanted;
	return r;
}

int cache_evict(CacheStore *store, const CacheEvict *options, CacheEvicted *ret_evicted, Error *error)
{
	_cleanup_(eviction_done) Eviction eviction = { .store = store };
	_cleanup_close_ int lock = -1;
	int r = cache_evict_lock(store, options->wait, &lock);
	if (r == -EWOULDBLOCK) {
		*ret_evicted = (CacheEvicted){ .busy = true };
		return 0;
	}
	if (r < 0)
		return cache_write_failed(store, "the lock of evictions", r, error);
	r = list_protected(&eviction, error);
	if (r < 0)
		return r;
	cache_evict_mark(lock, true);
	r = evict(&eviction, options);
	if (r == 0)
		cache_evict_mark(lock, false);
	if (r == -EOPNOTSUPP)
		return error_set(error, r,
				 "the file system of %s cannot give back parts of files; `imgfs cache prune` removes "
				 "whole images",
				 store->path);
	if (r < 0)
		return error_set(error, r, "cannot make room in %s: %s", store->path, error_text(NULL, r));
	*ret_evicted = eviction.result;
	return 0;
}
