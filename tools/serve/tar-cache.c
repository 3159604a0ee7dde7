#include "tools/serve/tar-cache.h"

#include <pthread.h>
#include <stdbool.h>
#include <utlist.h>

typedef struct Entry {
	Digest diff_id;
	Digest blob;       /* part of the key: an image exported anew may have another one */
	TarStream *stream; /* NULL while the thread that made the entry opens it */
	struct Entry *prev, *next;
} Entry;

struct TarCache {
	TarCacheOpen *open_blob;
	void *arg;
	unsigned streams_max;
	size_t memory_max;

	pthread_mutex_t lock; /* guards all below, never held across I/O */
	pthread_cond_t opened;
	Entry *entries; /* most recently used first */
	unsigned streams;
	size_t memory;
};

int tar_cache_new(TarCacheOpen *open_blob, void *arg, unsigned streams, size_t memory, TarCache **ret_cache)
{
	TarCache *cache = calloc(1, sizeof(*cache));
	if (!cache)
		return -ENOMEM;
	cache->open_blob = open_blob;
	cache->arg = arg;
	cache->streams_max = streams;
	cache->memory_max = memory;
	(void)pthread_mutex_init(&cache->lock, NULL);
	(void)pthread_cond_init(&cache->opened, NULL);
	*ret_cache = cache;
	return 0;
}

/* Takes an entry out and closes its stream, unless somebody still reads from it. The lock is held, or nobody else is left. */
static void drop(TarCache *cache, Entry *entry)
{
	DL_DELETE(cache->entries, entry);
	if (entry->stream) {
		cache->streams--;
		cache->memory -= tar_stream_memory(entry->stream);
		(void)tar_stream_unref(entry->stream);
	}
	free(entry);
}

TarCache *tar_cache_free(TarCache *cache)
{
	if (!cache)
		return NULL;
	while (cache->entries)
		drop(cache, cache->entries);
	(void)pthread_cond_destroy(&cache->opened);
	(void)pthread_mutex_destroy(&cache->lock);
	free(cache);
	return NULL;
}

static Entry *find(TarCache *cache, const ManifestLayer *layer)
{
	Entry *entry;
	DL_FOREACH(cache->entries, entry)
	{
		if (digest_equal(&entry->diff_id, &layer->diff_id) && digest_equal(&entry->blob, &layer->blob))
			return entry;
	}
	return NULL;
}

static void touch(TarCache *cache, Entry *entry)
{
	DL_DELETE(cache->entries, entry);
	DL_PREPEND(cache->entries, entry);
}

/* Closes the least recently used streams until the limits hold; the newest one stays whatever its size. */
static void shrink(TarCache *cache)
{
	while (cache->streams > 1 && (cache->streams > cache->streams_max || cache->memory > cache->memory_max)) {
		Entry *last = cache->entries->prev;
		while (!last->stream)
			last = last->prev;
		drop(cache, last);
	}
}

static int open_layer(const TarCache *cache, const ManifestLayer *layer, TarStream **ret_stream, Error *error)
{
	char text[DIGEST_TEXT_SIZE];
	_cleanup_close_ int fd = -1;
	int r = cache->open_blob(cache->arg, &layer->blob, &fd);
	if (r < 0)
		return error_set(error, r, "blob %s cannot be opened: %s", digest_text(&layer->blob, text),
				 error_text(NULL, r));
	r = tar_stream_open(fd, layer, ret_stream, error);
	if (r == 0)
		(void)TAKE_FD(fd);
	return r;
}

/* An open stream of the layer, or NULL after an entry for it was made, which the caller then has to fill. The lock is held. */
static int claim(TarCache *cache, const ManifestLayer *layer, Entry **ret_entry, TarStream **ret_stream)
{
	Entry *entry;
	while ((entry = find(cache, layer))) {
		if (entry->stream) {
			touch(cache, entry);
			*ret_stream = tar_stream_ref(entry->stream);
			return 0;
		}
		(void)pthread_cond_wait(&cache->opened, &cache->lock);
	}
	entry = calloc(1, sizeof(*entry));
	if (!entry)
		return -ENOMEM;
	entry->diff_id = layer->diff_id;
	entry->blob = layer->blob;
	DL_PREPEND(cache->entries, entry);
	*ret_entry = entry;
	return 0;
}

static void settle(TarCache *cache, Entry *entry, TarStream *stream)
{
	(void)pthread_mutex_lock(&cache->lock);
	if (stream) {
		entry->stream = tar_stream_ref(stream);
		cache->streams++;
		cache->memory += tar_stream_memory(stream);
		touch(cache, entry);
		shrink(cache);
	} else {
		drop(cache, entry);
	}
	(void)pthread_cond_broadcast(&cache->opened);
	(void)pthread_mutex_unlock(&cache->lock);
}

int tar_cache_get(TarCache *cache, const ManifestLayer *layer, TarStream **ret_stream, Error *error)
{
	Entry *entry = NULL;
	TarStream *stream = NULL;
	(void)pthread_mutex_lock(&cache->lock);
	int r = claim(cache, layer, &entry, &stream);
	(void)pthread_mutex_unlock(&cache->lock);
	if (r < 0)
		return error_set(error, r, "no memory to open a layer");
	if (entry) {
		r = open_layer(cache, layer, &stream, error);
		settle(cache, entry, stream);
		if (r < 0)
			return r;
	}
	*ret_stream = stream;
	return 0;
}

void tar_cache_forget(TarCache *cache, const TarStream *stream)
{
	(void)pthread_mutex_lock(&cache->lock);
	Entry *entry;
	DL_SEARCH_SCALAR(cache->entries, entry, stream, stream);
	if (entry)
		drop(cache, entry);
	(void)pthread_mutex_unlock(&cache->lock);
}
