#include "fs/fetch/fetch-recent.h"

#include <errno.h>
#include <string.h>

struct FetchFrame {
	FetchFrame *next; /* newer */
	uint64_t blob;
	uint32_t chunk;
	uint32_t size;
	uint8_t bytes[];
};

void fetch_recent_init(FetchRecent *recent)
{
	*recent = (FetchRecent){ .mutex = PTHREAD_MUTEX_INITIALIZER };
}

static void drop_oldest(FetchRecent *recent)
{
	FetchFrame *frame = recent->oldest;
	recent->oldest = frame->next;
	if (!recent->oldest)
		recent->newest = NULL;
	recent->bytes -= frame->size;
	free(frame);
}

void fetch_recent_done(FetchRecent *recent)
{
	while (recent->oldest)
		drop_oldest(recent);
	(void)pthread_mutex_destroy(&recent->mutex);
}

static const FetchFrame *find(const FetchRecent *recent, uint64_t blob, uint32_t chunk)
{
	const FetchFrame *frame = recent->oldest;
	while (frame && (frame->blob != blob || frame->chunk != chunk))
		frame = frame->next;
	return frame;
}

void fetch_recent_put(FetchRecent *recent, uint64_t blob, uint32_t chunk, const uint8_t *frame, uint32_t size)
{
	FetchFrame *copy = malloc(sizeof(*copy) + size);
	if (!copy)
		return;
	copy->next = NULL;
	copy->blob = blob;
	copy->chunk = chunk;
	copy->size = size;
	memcpy(copy->bytes, frame, size);

	(void)pthread_mutex_lock(&recent->mutex);
	if (recent->newest)
		recent->newest->next = copy;
	else
		recent->oldest = copy;
	recent->newest = copy;
	recent->bytes += size;
	while (recent->bytes > FETCH_RECENT_BYTES)
		drop_oldest(recent);
	(void)pthread_mutex_unlock(&recent->mutex);
}

bool fetch_recent_has(FetchRecent *recent, uint64_t blob, uint32_t chunk)
{
	(void)pthread_mutex_lock(&recent->mutex);
	bool found = find(recent, blob, chunk) != NULL;
	(void)pthread_mutex_unlock(&recent->mutex);
	return found;
}

int fetch_recent_get(FetchRecent *recent, uint64_t blob, uint32_t chunk, uint8_t *frame, uint32_t *ret_size)
{
	int r = -ENODATA;
	(void)pthread_mutex_lock(&recent->mutex);
	const FetchFrame *found = find(recent, blob, chunk);
	if (found) {
		memcpy(frame, found->bytes, found->size);
		*ret_size = found->size;
		r = 0;
	}
	(void)pthread_mutex_unlock(&recent->mutex);
	return r;
}
