#include "fs/fetch/fetch-decoded.h"

#include <stdlib.h>

#include "fs/format/format.h"

void fetch_decoded_init(FetchDecoded *decoded)
{
	*decoded = (FetchDecoded){ .mutex = PTHREAD_MUTEX_INITIALIZER };
}

void fetch_decoded_done(FetchDecoded *decoded)
{
	for (unsigned i = 0; i < FETCH_DECODED_SLOTS; i++)
		free(decoded->slots[i].content);
	(void)pthread_mutex_destroy(&decoded->mutex);
}

FetchSlot *fetch_decoded_find(FetchDecoded *decoded, uint64_t blob, uint32_t chunk)
{
	FetchSlot *found = NULL;
	(void)pthread_mutex_lock(&decoded->mutex);
	for (unsigned i = 0; i < FETCH_DECODED_SLOTS && !found; i++) {
		FetchSlot *slot = &decoded->slots[i];
		if (slot->blob == blob && slot->chunk == chunk)
			found = slot;
	}
	if (found) {
		found->pins++;
		found->used = ++decoded->clock;
	}
	(void)pthread_mutex_unlock(&decoded->mutex);
	return found;
}

/* Slots never used come first, since their time is 0. */
static FetchSlot *take_oldest(FetchDecoded *decoded)
{
	FetchSlot *oldest = NULL;
	for (unsigned i = 0; i < FETCH_DECODED_SLOTS; i++) {
		FetchSlot *slot = &decoded->slots[i];
		if (slot->pins == 0 && (!oldest || slot->used < oldest->used))
			oldest = slot;
	}
	if (oldest) {
		oldest->blob = 0;
		oldest->pins = 1;
		oldest->used = ++decoded->clock;
	}
	return oldest;
}

FetchSlot *fetch_decoded_claim(FetchDecoded *decoded)
{
	(void)pthread_mutex_lock(&decoded->mutex);
	FetchSlot *slot = take_oldest(decoded);
	(void)pthread_mutex_unlock(&decoded->mutex);
	if (slot && !slot->content)
		slot->content = malloc(FORMAT_CHUNK_MAX);
	if (slot && !slot->content) {
		fetch_decoded_unpin(decoded, slot);
		return NULL;
	}
	return slot;
}

void fetch_decoded_publish(FetchDecoded *decoded, FetchSlot *slot, uint64_t blob, uint32_t chunk)
{
	(void)pthread_mutex_lock(&decoded->mutex);
	slot->blob = blob;
	slot->chunk = chunk;
	(void)pthread_mutex_unlock(&decoded->mutex);
}

void fetch_decoded_unpin(FetchDecoded *decoded, FetchSlot *slot)
{
	(void)pthread_mutex_lock(&decoded->mutex);
	slot->pins--;
	(void)pthread_mutex_unlock(&decoded->mutex);
}
