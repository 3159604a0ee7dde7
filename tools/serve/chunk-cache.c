#include "tools/serve/chunk-cache.h"

#include <pthread.h>
#include <stdbool.h>
#include <string.h>

#include "fs/format/format.h"

typedef struct Slot {
	uint64_t stream; /* its id; 0: the slot is empty */
	uint64_t start;  /* in the tar */
	size_t size;     /* 0 while it is loading */
	unsigned pins;   /* who copies out of it, or loads it */
	uint64_t used;
	uint8_t *data; /* FORMAT_CHUNK_MAX bytes; stays with the slot */
} Slot;

struct ChunkCache {
	pthread_mutex_t lock;  /* guards all below, never held across I/O, decoding or copying */
	pthread_cond_t loaded; /* a slot that was loading is not any more */
	pthread_cond_t unused; /* a slot or a decoder has become free */
	unsigned slot_count;
	unsigned decoder_count; /* that may still be made */
	unsigned idle_count;
	uint64_t clock;
	TarScratch **idle; /* decoders that nobody uses */
	Slot *slots;
};

int chunk_cache_new(unsigned slots, unsigned decoders, ChunkCache **ret_cache)
{
	ChunkCache *cache = calloc(1, sizeof(*cache));
	if (!cache)
		return -ENOMEM;
	(void)pthread_mutex_init(&cache->lock, NULL);
	(void)pthread_cond_init(&cache->loaded, NULL);
	(void)pthread_cond_init(&cache->unused, NULL);
	cache->slot_count = slots;
	cache->decoder_count = decoders;
	cache->slots = calloc(slots, sizeof(*cache->slots));
	cache->idle = calloc(decoders, sizeof(TarScratch *));
	if (!cache->slots || !cache->idle) {
		(void)chunk_cache_free(cache);
		return -ENOMEM;
	}
	*ret_cache = cache;
	return 0;
}

ChunkCache *chunk_cache_free(ChunkCache *cache)
{
	if (!cache)
		return NULL;
	for (unsigned i = 0; i < cache->idle_count; i++)
		(void)tar_scratch_free(cache->idle[i]);
	for (unsigned i = 0; cache->slots && i < cache->slot_count; i++)
		free(cache->slots[i].data);
	free(cache->idle);
	free(cache->slots);
	(void)pthread_cond_destroy(&cache->loaded);
	(void)pthread_cond_destroy(&cache->unused);
	(void)pthread_mutex_destroy(&cache->lock);
	free(cache);
	return NULL;
}

/* The slot that holds the byte at `offset`, or is being loaded from `start`. */
static Slot *find(ChunkCache *cache, uint64_t stream, uint64_t offset, uint64_t start)
{
	for (unsigned i = 0; i < cache->slot_count; i++) {
		Slot *slot = &cache->slots[i];
		if (slot->stream != stream)
			continue;
		if (slot->size == 0 ? slot->start == start : offset >= slot->start && offset - slot->start < slot->size)
			return slot;
	}
	return NULL;
}

/* The slot used longest ago that nobody uses now. */
static Slot *pick_victim(ChunkCache *cache)
{
	Slot *victim = NULL;
	for (unsigned i = 0; i < cache->slot_count; i++) {
		Slot *slot = &cache->slots[i];
		if (slot->pins == 0 && (!victim || slot->used < victim->used))
			victim = slot;
	}
	return victim;
}

/*
 * Pins the slot that has the byte, or a slot to load it into; then `ret_scratch` is not NULL, or is to be made. Waits for those who load
 * or decode.
 */
static Slot *claim(ChunkCache *cache, uint64_t stream, uint64_t offset, uint64_t start, bool *ret_load,
		   TarScratch **ret_scratch)
{
	for (;;) {
		Slot *slot = find(cache, stream, offset, start);
		if (slot && slot->size > 0) {
			slot->pins++;
			slot->used = ++cache->clock;
			*ret_load = false;
			return slot;
		}
		if (slot) {
			(void)pthread_cond_wait(&cache->loaded, &cache->lock);
			continue;
		}
		slot = cache->idle_count + cache->decoder_count > 0 ? pick_victim(cache) : NULL;
		if (!slot) {
			(void)pthread_cond_wait(&cache->unused, &cache->lock);
			continue;
		}
		*slot = (Slot){
			.stream = stream, .start = start, .pins = 1, .used = ++cache->clock, .data = slot->data
		};
		*ret_scratch = cache->idle_count > 0 ? cache->idle[--cache->idle_count] : NULL;
		if (!*ret_scratch)
			cache->decoder_count--;
		*ret_load = true;
		return slot;
	}
}

/* Without the lock: the slot is pinned, and empty to everybody else. */
static ssize_t load(Slot *slot, TarStream *stream, TarScratch **scratch, Error *error)
{
	if (!slot->data)
		slot->data = malloc(FORMAT_CHUNK_MAX);
	if (!slot->data || (!*scratch && tar_scratch_new(scratch) < 0))
		return error_set(error, -ENOMEM, "no memory to decode a chunk in");
	return tar_stream_read(stream, *scratch, slot->start, slot->data, FORMAT_CHUNK_MAX, error);
}

/* Ends a load: the slot, still pinned, has bytes or is empty again. */
static void settle(ChunkCache *cache, Slot *slot, TarScratch *scratch, ssize_t size)
{
	if (size > 0)
		slot->size = (size_t)size;
	else
		slot->stream = 0;
	if (scratch)
		cache->idle[cache->idle_count++] = scratch;
	else
		cache->decoder_count++;
	(void)pthread_cond_broadcast(&cache->loaded);
	(void)pthread_cond_signal(&cache->unused);
}

static void unpin(ChunkCache *cache, Slot *slot)
{
	slot->pins--;
	if (slot->pins == 0)
		(void)pthread_cond_signal(&cache->unused);
}

ssize_t chunk_cache_read(ChunkCache *cache, TarStream *stream, uint64_t offset, void *buffer, size_t size, Error *error)
{
	uint64_t start = tar_stream_chunk_start(stream, offset);
	TarScratch *scratch = NULL;
	ssize_t count = 1;
	bool must_load;
	(void)pthread_mutex_lock(&cache->lock);
	Slot *slot = claim(cache, tar_stream_id(stream), offset, start, &must_load, &scratch);
	(void)pthread_mutex_unlock(&cache->lock);
	if (must_load) {
		count = load(slot, stream, &scratch, error);
		(void)pthread_mutex_lock(&cache->lock);
		settle(cache, slot, scratch, count);
		(void)pthread_mutex_unlock(&cache->lock);
	}
	if (count > 0) {
		size_t skip = (size_t)(offset - slot->start);
		count = (ssize_t)(slot->size - skip < size ? slot->size - skip : size);
		memcpy(buffer, slot->data + skip, (size_t)count);
	}
	(void)pthread_mutex_lock(&cache->lock);
	unpin(cache, slot);
	(void)pthread_mutex_unlock(&cache->lock);
	return count;
}
