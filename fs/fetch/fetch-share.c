#include "fs/fetch/fetch-share.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <xxhash.h>

#include "fs/base/bytes.h"
#include "fs/cache/cache-blob.h"
#include "fs/cache/cache-contents.h"
#include "fs/cache/cache-seal.h"
#include "fs/fetch/fetch-config.h"
#include "fs/fetch/fetch-layer.h"
#include "fs/fetch/fetch-manifest.h"
#include "fs/fetch/fetch-profile.h"
#include "fs/fetch/fetch-share-index.h"
#include "fs/fetch/fetch.h"
#include "fs/format/blob.h"

#define OPEN_MAX_BLOBS 64u
#define OPEN_TIME      10000 /* milliseconds: what others have fetched meanwhile is seen when it is opened again */
#define PAGE_SIZE      4096u
#define LOOK_AGAIN     1000 /* and when something lacks, after this time */

/* A blob that was asked for. Immutable but for the first three and the sums. */
typedef struct Open {
	struct Open *next;   /* the one used last first; under the mutex */
	unsigned references; /* under the mutex; one of the list's */
	int64_t opened;
	ManifestLayer layer;
	FetchIndex index;
	CacheBlob *blob;                /* uses the index */
	int data_fd, present_fd;        /* of the same files, for the index and to see what is here */
	_Atomic(uint64_t *) index_sums; /* XXH3 of its pages, once it was found to be right; NULL before */
} Open;

struct FetchShare {
	CacheStore *cache;
	ShareIndex *index;
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
	close_p(&one->present_fd);
	free(atomic_load(&one->index_sums));
	free(one);
}

int fetch_share_new(CacheStore *cache, FetchShare **ret_share)
{
	FetchShare *share = calloc(1, sizeof(*share));
	if (!share)
		return -ENOMEM;
	share->cache = cache;
	if (share_index_new(cache, &share->index) < 0) {
		free(share);
		return -ENOMEM;
	}
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
	(void)share_index_free(share->index);
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

int fetch_share_config(FetchShare *share, const Digest *digest, char **ret_json, size_t *ret_size)
{
	return fetch_config_cached(share->cache, digest, ret_json, ret_size);
}

int fetch_share_profile(FetchShare *share, const Digest *manifest, uint8_t **ret_data, size_t *ret_size)
{
	return fetch_profile_read(share->cache, manifest, ret_data, ret_size);
}

int fetch_share_tag(FetchShare *share, const char *name, const char *tag, Digest *ret_manifest)
{
	return cache_contents_tag_find(share->cache, name, tag, ret_manifest);
}

static int open_layer(FetchShare *share, const ManifestLayer *layer, Open **ret_one)
{
	int present = -1;
	Open *one = calloc(1, sizeof(*one));
	if (!one)
		return -ENOMEM;
	*one = (Open){ .references = 1,
		       .opened = fetch_now(),
		       .layer = *layer,
		       .index = { .fd = -1 },
		       .data_fd = -1,
		       .present_fd = -1 };
	int r = fetch_index_open(share->cache, layer, &one->index, NULL);
	if (r == 0)
		r = cache_store_blob_get(share->cache, &layer->blob, &one->data_fd, &one->present_fd);
	if (r == 0) {
		int data = fcntl(one->data_fd, F_DUPFD_CLOEXEC, 3);
		r = data < 0 ? -errno : 0;
		if (r == 0)
			present = fcntl(one->present_fd, F_DUPFD_CLOEXEC, 3);
		if (r == 0)
			r = cache_blob_new(&one->index.table, data, present, &one->blob);
	}
	if (r < 0) {
		open_unref(share, one);
		return r == -ENOMEM || r == -EMFILE ? r : -ENOENT;
	}
	*ret_one = one;
	return 0;
}

/* The first of those who name the blob whose index is here: a manifest can say of a blob what it likes. */
static int open_new(FetchShare *share, const Digest *digest, Open **ret_one)
{
	_cleanup_free_ ManifestLayer *layers = NULL;
	size_t count = 0;
	int r = share_index_find(share->index, SHARE_BLOB, digest, &layers, &count);
	int opened = -ENOENT;
	for (size_t i = 0; r == 0 && opened == -ENOENT && i < count; i++)
		opened = open_layer(share, &layers[i], ret_one);
	return r < 0 ? r : opened;
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

/* All of the index, checked, as it stands beside the chunks, where a mount or pull that has fetched it leaves it (fetch-image.c). */
static int load_index(const Open *one, uint8_t **ret_index)
{
	const ManifestLayer *layer = &one->layer;
	_cleanup_free_ uint8_t *index = malloc(layer->index_size + 1);
	Digest digest;
	if (!index)
		return -ENOMEM;
	if (fd_pread_all(one->data_fd, index, layer->index_size, layer->index_offset) < 0 ||
	    digest_of(index, layer->index_size, &digest) < 0 || !digest_equal(&digest, &layer->index))
		return -ENODATA;
	*ret_index = TAKE_PTR(index);
	return 0;
}

/* How long the page of an index is; the last one is short. */
static size_t page_length(uint64_t size, uint64_t number)
{
	uint64_t left = size - number * PAGE_SIZE;
	return left < PAGE_SIZE ? (size_t)left : PAGE_SIZE;
}

/* The sums of its pages: what is read a second time is held against them, and not read as a whole for each part. */
static int sum_index(Open *one, uint64_t **ret_sums)
{
	uint64_t *known = atomic_load(&one->index_sums), size = one->layer.index_size;
	_cleanup_free_ uint8_t *index = NULL;
	int r = known ? 0 : load_index(one, &index);
	if (known || r < 0) {
		*ret_sums = known;
		return r;
	}
	uint64_t *sums = calloc(size / PAGE_SIZE + 1, sizeof(*sums));
	if (!sums)
		return -ENOMEM;
	for (uint64_t i = 0; i * PAGE_SIZE < size; i++)
		sums[i] = XXH3_64bits(index + i * PAGE_SIZE, page_length(size, i));
	if (!atomic_compare_exchange_strong(&one->index_sums, &known, sums)) {
		free(sums);
		sums = known;
	}
	*ret_sums = sums;
	return 0;
}

static int read_index(Open *one, uint64_t offset, size_t size, uint8_t *buffer)
{
	uint64_t from = offset - one->layer.index_offset, *sums = NULL;
	if (!range_within(from, size, one->layer.index_size))
		return -ENODATA;
	int r = sum_index(one, &sums);
	uint8_t page[PAGE_SIZE];
	while (r == 0 && size > 0) {
		uint64_t number = from / PAGE_SIZE, start = number * PAGE_SIZE;
		size_t length = page_length(one->layer.index_size, number);
		if (fd_pread_all(one->data_fd, page, length, one->layer.index_offset + start) < 0 ||
		    XXH3_64bits(page, length) != sums[number])
			return -ENODATA;
		size_t skip = (size_t)(from - start), part = length - skip < size ? length - skip : size;
		memcpy(buffer, page + skip, part);
		buffer += part;
		from += part;
		size -= part;
	}
	return r;
}

static int read_footer(const Open *one, uint64_t offset, size_t size, uint8_t *buffer)
{
	const ManifestLayer *layer = &one->layer;
	uint8_t bytes[FORMAT_FOOTER_SIZE];
	const BlobFooter footer = {
		.tar_size = one->index.table.tar_size,
		.index_offset = layer->index_offset,
		.index_size = layer->index_size,
		.image_size = one->index.map.size,
		.index_digest = layer->index,
		.diff_id = layer->diff_id,
		.chunk_count = one->index.table.count,
	};
	uint64_t start = layer->blob_size - FORMAT_FOOTER_SIZE;
	if (layer->index_offset + layer->index_size != start || !range_within(offset - start, size, sizeof(bytes)))
		return -ENODATA;
	blob_footer_encode(&footer, bytes);
	memcpy(buffer, bytes + (offset - start), size);
	return 0;
}

/* As much of [offset, offset + size) as lies before `end`. */
static size_t part_before(uint64_t end, uint64_t offset, size_t size)
{
	if (offset >= end)
		return 0;
	return end - offset < size ? (size_t)(end - offset) : size;
}

static int read_open(Open *one, uint64_t offset, size_t size, uint8_t *buffer)
{
	const ManifestLayer *layer = &one->layer;
	if (!range_within(offset, size, layer->blob_size))
		return -ENODATA;
	size_t part = part_before(layer->index_offset, offset, size);
	int r = part > 0 ? read_chunks(one, offset, part, buffer) : 0;
	offset += part;
	buffer += part;
	size -= part;
	part = part_before(layer->index_offset + layer->index_size, offset, size);
	if (r == 0 && part > 0)
		r = read_index(one, offset, part, buffer);
	return r == 0 && size > part ? read_footer(one, offset + part, size - part, buffer + part) : r;
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

/* Sealed, with all chunks and the index here? */
static bool is_whole(FetchShare *share, Open *one)
{
	_cleanup_close_ int seal = -1;
	uint64_t *sums;
	for (uint32_t i = 0; i < one->index.table.count; i++)
		if (!cache_blob_has(one->blob, i)) /* found to be rotten, though it may have been got again since */
			return false;
	return cache_seal_get(share->cache, &one->layer.blob, &seal) == 0 &&
	       fetch_layer_is_sealed(one->present_fd, seal, &one->layer.diff_id, one->index.table.count) &&
	       sum_index(one, &sums) == 0;
}

/* What is whole stays open, however long ago it was opened: transfers that take long would else have a set of descriptors each. */
static int get_whole(FetchShare *share, const Digest *digest, Open **ret_one)
{
	static const int64_t ages[] = { INT64_MAX, LOOK_AGAIN };
	for (size_t i = 0; i < ELEMENTS(ages); i++) {
		Open *one;
		int opened = get(share, digest, ages[i], &one);
		if (opened < 0)
			return opened;
		if (is_whole(share, one)) {
			*ret_one = one;
			return 0;
		}
		open_unref(share, one);
	}
	return -ENOENT;
}

struct FetchShareBlob {
	FetchShare *share;
	Open *open;
};

int fetch_share_blob_open(FetchShare *share, const Digest *digest, FetchShareBlob **ret_blob)
{
	FetchShareBlob *blob = malloc(sizeof(*blob));
	if (!blob)
		return -ENOMEM;
	blob->share = share;
	int r = get_whole(share, digest, &blob->open);
	if (r < 0) {
		free(blob);
		return r;
	}
	*ret_blob = blob;
	return 0;
}

FetchShareBlob *fetch_share_blob_close(FetchShareBlob *blob)
{
	if (blob) {
		open_unref(blob->share, blob->open);
		free(blob);
	}
	return NULL;
}

uint64_t fetch_share_blob_size(const FetchShareBlob *blob)
{
	return blob->open->layer.blob_size;
}

int fetch_share_blob_read(FetchShareBlob *blob, uint64_t offset, size_t size, void *buffer)
{
	return read_open(blob->open, offset, size, buffer);
}

int fetch_share_layer(FetchShare *share, const Digest *diff_id, ManifestLayer *ret_layer)
{
	_cleanup_free_ ManifestLayer *layers = NULL;
	size_t count = 0;
	int r = share_index_find(share->index, SHARE_DIFF_ID, diff_id, &layers, &count);
	for (size_t i = 0; r == 0 && i < count; i++) {
		Open *one;
		int opened = get_whole(share, &layers[i].blob, &one);
		if (opened == -ENOMEM)
			return opened;
		if (opened < 0)
			continue;
		bool right = digest_equal(&one->layer.diff_id, diff_id);
		if (right) {
			*ret_layer = one->layer;
			ret_layer->tar_size = one->index.table.tar_size;
		}
		open_unref(share, one);
		if (right)
			return 0;
	}
	return r < 0 ? r : -ENOENT;
}

int fetch_share_file(FetchShare *share, const Digest *blob, int *ret_fd)
{
	_cleanup_close_ int present = -1;
	return cache_store_blob_get(share->cache, blob, ret_fd, &present) < 0 ? -ENOENT : 0;
}
