#include "fs/fetch/fetch-share.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>

#include "fs/base/bytes.h"
#include "fs/cache/cache-blob.h"
#include "fs/cache/cache-contents.h"
#include "fs/fetch/fetch-layer.h"
#include "fs/fetch/fetch-manifest.h"
#include "fs/fetch/fetch.h"

#define OPEN_MAX_BLOBS 64u
#define OPEN_TIME      10000 /* milliseconds: what others have fetched meanwhile is seen when it is opened again */
#define LOOK_AGAIN     1000  /* and when something lacks, after this time */

/* A blob that was asked for. Immutable but for the first three. */
typedef struct Open {
	struct Open *next;   /* the one used last first; under the mutex */
	unsigned references; /* under the mutex; one of the list's */
	int64_t opened;
	ManifestLayer layer;
	FetchIndex index;
	CacheBlob *blob; /* uses the index */
	int data_fd;     /* of the same file, for the index */
} Open;

struct FetchShare {
	CacheStore *cache;
	pthread_mutex_t mutex;
	Open *list;
};

static void open_unref(FetchShare *share, Open *one)
{
	(void)pthread_mutex_lock(&share->mutex);
	bool last = --one->references == 0;
	(void)pthread_mutex_unlock(&share->mutex);
	if (!last)
		return;
	(void)cache_blob_free(one->blob);
	fetch_index_close(&one->index);
	close_p(&one->data_fd);
	free(one);
}

int fetch_share_new(CacheStore *cache, FetchShare **ret_share)
{
	FetchShare *share = calloc(1, sizeof(*share));
	if (!share)
		return -ENOMEM;
	share->cache = cache;
	(void)pthread_mutex_init(&share->mutex, NULL);
	*ret_share = share;
	return 0;
}

FetchShare *fetch_share_free(FetchShare *share)
{
	if (!share)
		return NULL;
	while (share->list) {
		Open *one = share->list;
		share->list = one->next;
		open_unref(share, one);
	}
	(void)pthread_mutex_destroy(&share->mutex);
	free(share);
	return NULL;
}

int fetch_share_manifest(FetchShare *share, const Digest *digest, char **ret_json, size_t *ret_size)
{
	_cleanup_(fetch_manifest_done) FetchManifest manifest = { 0 };
	int r = fetch_manifest_cached(share->cache, digest, &manifest);
	if (r < 0)
		return r == -ENOMEM ? r : -ENOENT;
	*ret_json = TAKE_PTR(manifest.json);
	*ret_size = manifest.size;
	return 0;
}

int fetch_share_tag(FetchShare *share, const char *name, const char *tag, Digest *ret_manifest)
{
	CacheTag *tags = NULL;
	size_t count = 0;
	Digest found;
	bool has_found = false;
	int r = cache_contents_tags(share->cache, &tags, &count);
	for (size_t i = 0; r == 0 && i < count; i++) {
		Reference reference;
		if (reference_parse_remote(tags[i].reference, &reference, NULL) < 0 ||
		    strcmp(reference.name, name) != 0 || strcmp(reference.tag, tag) != 0)
			continue;
		if (has_found && !digest_equal(&found, &tags[i].manifest))
			r = -ENOTUNIQ;
		found = tags[i].manifest;
		has_found = true;
	}
	cache_contents_tags_free(tags, count);
	if (r == 0 && has_found)
		*ret_manifest = found;
	return r == 0 && !has_found ? -ENOENT : r;
}

/* The layer of a blob, from the manifests that are here. */
static int find_layer(FetchShare *share, const Digest *blob, ManifestLayer *ret_layer)
{
	_cleanup_free_ CacheObject *objects = NULL;
	size_t count = 0;
	int r = cache_contents_list(share->cache, CACHE_MANIFEST, &objects, &count);
	for (size_t i = 0; r == 0 && i < count; i++) {
		_cleanup_(fetch_manifest_done) FetchManifest manifest = { 0 };
		if (fetch_manifest_cached(share->cache, &objects[i].digest, &manifest) < 0)
			continue;
		for (size_t j = 0; j < manifest.manifest.layer_count; j++) {
			if (!digest_equal(&manifest.manifest.layers[j].blob, blob))
				continue;
			*ret_layer = manifest.manifest.layers[j];
			return 0;
		}
	}
	return r < 0 ? r : -ENOENT;
}

static int open_new(FetchShare *share, const Digest *digest, Open **ret_one)
{
	int present = -1;
	Open *one = calloc(1, sizeof(*one));
	if (!one)
		return -ENOMEM;
	*one = (Open){ .references = 1, .opened = fetch_now(), .index = { .fd = -1 }, .data_fd = -1 };
	int r = find_layer(share, digest, &one->layer);
	if (r == 0)
		r = fetch_index_open(share->cache, &one->layer, &one->index, NULL);
	if (r == 0)
		r = cache_store_blob_get(share->cache, digest, &one->data_fd, &present);
	if (r == 0) {
		int data = fcntl(one->data_fd, F_DUPFD_CLOEXEC, 3);
		r = data < 0 ? -errno : cache_blob_new(&one->index.table, data, TAKE_FD(present), &one->blob);
	}
	close_p(&present);
	if (r < 0) {
		open_unref(share, one);
		return r == -ENOMEM || r == -EMFILE ? r : -ENOENT;
	}
	*ret_one = one;
	return 0;
}

/* Takes it out of the list, if it is there; the list's reference becomes the caller's. */
static Open *take(FetchShare *share, const Digest *digest)
{
	for (Open **link = &share->list; *link; link = &(*link)->next) {
		Open *one = *link;
		if (!digest_equal(&one->layer.blob, digest))
			continue;
		*link = one->next;
		return one;
	}
	return NULL;
}

/* Puts it first, with a reference of the list's own, and returns one to be let go that is too many. */
static Open *put(FetchShare *share, Open *one)
{
	unsigned count = 1;
	one->references++;
	one->next = share->list;
	share->list = one;
	Open **link = &one->next;
	while (*link && ++count <= OPEN_MAX_BLOBS)
		link = &(*link)->next;
	Open *last = *link;
	*link = NULL;
	return last;
}

/* `age`: one that was opened longer ago is opened again. */
static int get(FetchShare *share, const Digest *digest, int64_t age, Open **ret_one)
{
	(void)pthread_mutex_lock(&share->mutex);
	Open *one = take(share, digest), *last = NULL;
	bool fresh = one && fetch_now() - one->opened < age;
	if (fresh)
		last = put(share, one);
	(void)pthread_mutex_unlock(&share->mutex);
	if (last)
		open_unref(share, last);
	if (fresh) {
		*ret_one = one;
		return 0;
	}
	if (one)
		open_unref(share, one);
	int r = open_new(share, digest, &one);
	if (r < 0)
		return r;
	(void)pthread_mutex_lock(&share->mutex);
	Open *other = take(share, digest);
	last = put(share, one);
	(void)pthread_mutex_unlock(&share->mutex);
	if (other)
		open_unref(share, other);
	if (last)
		open_unref(share, last);
	*ret_one = one;
	return 0;
}

int fetch_share_size(FetchShare *share, const Digest *blob, uint64_t *ret_size)
{
	Open *one;
	int r = get(share, blob, OPEN_TIME, &one);
	if (r < 0)
		return r;
	*ret_size = one->layer.blob_size;
	open_unref(share, one);
	return 0;
}

static int read_chunks(Open *one, uint64_t offset, size_t size, uint8_t *buffer)
{
	_cleanup_free_ uint8_t *frame = malloc(FORMAT_FRAME_MAX);
	if (!frame)
		return -ENOMEM;
	while (size > 0) {
		uint32_t number = chunk_table_find_blob(&one->index.table, offset), length;
		Chunk chunk;
		chunk_table_get(&one->index.table, number, &chunk);
		if (!cache_blob_has(one->blob, number) || cache_blob_read(one->blob, number, frame, &length) < 0)
			return -ENODATA;
		size_t skip = (size_t)(offset - chunk.blob_offset), part = length - skip;
		if (part > size)
			part = size;
		memcpy(buffer, frame + skip, part);
		buffer += part;
		offset += part;
		size -= part;
	}
	return 0;
}

/* It is beside the chunks where a mount or pull has fetched it (fetch-image.c). */
static int read_index(Open *one, uint64_t offset, size_t size, uint8_t *buffer)
{
	const ManifestLayer *layer = &one->layer;
	_cleanup_free_ uint8_t *index = malloc(layer->index_size + 1);
	Digest digest;
	if (!index)
		return -ENOMEM;
	if (!range_within(offset - layer->index_offset, size, layer->index_size) ||
	    fd_pread_all(one->data_fd, index, layer->index_size, layer->index_offset) < 0 ||
	    digest_of(index, layer->index_size, &digest) < 0 || !digest_equal(&digest, &layer->index))
		return -ENODATA;
	memcpy(buffer, index + (offset - layer->index_offset), size);
	return 0;
}

static int read_open(Open *one, uint64_t offset, size_t size, uint8_t *buffer)
{
	uint64_t chunks = one->layer.index_offset;
	if (!range_within(offset, size, one->layer.blob_size))
		return -ENODATA;
	size_t before = offset >= chunks ? 0 : (chunks - offset < size ? (size_t)(chunks - offset) : size);
	int r = before > 0 ? read_chunks(one, offset, before, buffer) : 0;
	return r == 0 && before < size ? read_index(one, offset + before, size - before, buffer + before) : r;
}

int fetch_share_read(FetchShare *share, const Digest *blob, uint64_t offset, size_t size, uint8_t *buffer)
{
	int r = -ENODATA;
	for (int64_t age = OPEN_TIME; r == -ENODATA && age >= LOOK_AGAIN; age /= OPEN_TIME / LOOK_AGAIN) {
		Open *one;
		int opened = get(share, blob, age, &one);
		if (opened < 0)
			return opened;
		r = read_open(one, offset, size, buffer);
		open_unref(share, one);
	}
	return r;
}
