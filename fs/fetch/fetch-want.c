#include <errno.h>

#include "fs/fetch/fetch-private.h"

bool fetch_at_hand(FetchBlob *blob, uint32_t chunk)
{
	return cache_blob_has(blob->cache, chunk) || fetch_recent_has(&blob->fetcher->recent, blob->id, chunk);
}

static FetchQueue *queue_of(FetchWant *want)
{
	return &want->blob->fetcher->queues[want->class];
}

static void queue_remove(FetchWant *want)
{
	FetchQueue *queue = queue_of(want);
	if (want->previous)
		want->previous->next = want->next;
	else
		queue->oldest = want->next;
	if (want->next)
		want->next->previous = want->previous;
	else
		queue->newest = want->previous;
	want->previous = want->next = NULL;
}

static void queue_append(FetchWant *want)
{
	FetchQueue *queue = queue_of(want);
	want->previous = queue->newest;
	if (want->previous)
		want->previous->next = want;
	else
		queue->oldest = want;
	queue->newest = want;
}

static void queue_prepend(FetchWant *want)
{
	FetchQueue *queue = queue_of(want);
	want->next = queue->oldest;
	if (want->next)
		want->next->previous = want;
	else
		queue->newest = want;
	queue->oldest = want;
}

/* Brings a want into the class of the most urgent wait for it; one that nobody waits for keeps its own. */
static void reclass(FetchWant *want)
{
	FetchClass class = want->links ? FETCH_BACKGROUND : want->class;
	for (const FetchLink *link = want->links; link; link = link->next)
		if (link->wait->class < class)
			class = link->wait->class;
	if (class == want->class)
		return;
	if (!want->range)
		queue_remove(want);
	/* What failed for others is forgotten, so that who reads it is not made to wait for it. */
	if (class == FETCH_DEMAND)
		want->back_off = (FetchBackOff){ 0 };
	want->class = class;
	if (!want->range)
		queue_append(want);
}

static void want_free(FetchWant *want)
{
	want->blob->wants[want->chunk] = NULL;
	free(want);
}

FetchWant *fetch_want_new(FetchBlob *blob, uint32_t chunk, FetchRange *range)
{
	FetchWant *want = calloc(1, sizeof(*want));
	if (!want)
		return NULL;
	want->blob = blob;
	want->chunk = chunk;
	want->range = range;
	want->class = range ? range->class : FETCH_BACKGROUND;
	blob->wants[chunk] = want;
	return want;
}

void fetch_want_take(FetchWant *want, FetchRange *range)
{
	queue_remove(want);
	want->range = range;
}

void fetch_want_return(FetchWant *want)
{
	want->range = NULL;
	if (want->links)
		queue_prepend(want);
	else
		want_free(want);
}

static void link_add(FetchLink *link, FetchWait *wait, FetchWant *want)
{
	link->wait = wait;
	link->want = want;
	link->next = want->links;
	if (link->next)
		link->next->previous = link;
	want->links = link;
	want->blob->demand_count += wait->class == FETCH_DEMAND;
	wait->missing++;
	reclass(want);
}

static void link_remove(FetchLink *link)
{
	FetchWant *want = link->want;
	if (link->next)
		link->next->previous = link->previous;
	if (link->previous)
		link->previous->next = link->next;
	else
		want->links = link->next;
	link->want = NULL;
	link->previous = link->next = NULL;
	link->wait->missing--;
	reclass(want);
	if (link->wait->class != FETCH_DEMAND)
		return;
	/* Once nobody waits, an old failure is forgotten, so that who comes next is not made to wait for it; a server's wish is not. */
	if (--want->blob->demand_count == 0 && !want->blob->back_off.asked)
		want->blob->back_off = (FetchBackOff){ 0 };
}

void fetch_want_arrived(FetchWant *want)
{
	want->blob->wants[want->chunk] = NULL;
	while (want->links) {
		FetchWait *wait = want->links->wait;
		link_remove(want->links);
		if (wait->missing == 0)
			fetch_wait_end(wait, 0);
	}
	free(want);
}

static void drop_links(FetchWait *wait)
{
	for (uint32_t i = 0; i < wait->count; i++) {
		FetchWant *want = wait->links[i].want;
		if (!want)
			continue;
		link_remove(&wait->links[i]);
		if (want->links)
			continue;
		if (want->range) {
			wait->blob->fetcher->loosened = true;
		} else {
			queue_remove(want);
			want_free(want);
		}
	}
}

void fetch_wait_end(FetchWait *wait, int result)
{
	drop_links(wait);
	if (wait->next)
		wait->next->previous = wait->previous;
	if (wait->previous)
		wait->previous->next = wait->next;
	else
		wait->blob->fetcher->waits = wait->next;
	if (wait->replay)
		(void)atomic_fetch_sub_explicit(&wait->blob->fetcher->replays, 1, memory_order_relaxed);
	if (wait->done)
		wait->done(wait->arg, result);
	free(wait);
}

/* Readers copy from donors by themselves, the fill does too; what is only expected to be read can wait for that. */
static bool is_at_donor(const FetchBlob *blob, uint32_t chunk)
{
	return blob->twins && atomic_load_explicit(&blob->twins[chunk], memory_order_relaxed) != 0;
}

/* What is in memory alone is here for readers, but not for the fill, which wants it in the cache. */
static bool is_here(const FetchWait *wait, uint32_t chunk)
{
	return wait->class == FETCH_BACKGROUND ? cache_blob_has(wait->blob->cache, chunk)
					       : fetch_at_hand(wait->blob, chunk);
}

/* Links the wait to the wants of what is missing. */
static int find_missing(FetchWait *wait)
{
	FetchBlob *blob = wait->blob;
	for (uint32_t i = 0; i < wait->count; i++) {
		uint32_t chunk = wait->first + i;
		FetchWant *want = blob->wants[chunk];
		if (!want) {
			if (is_here(wait, chunk) || (!wait->done && is_at_donor(blob, chunk)))
				continue;
			if (!blob->url)
				return -EIO;
			want = fetch_want_new(blob, chunk, NULL);
			if (!want)
				return -ENOMEM;
			queue_append(want);
		}
		link_add(&wait->links[i], wait, want);
	}
	return 0;
}

void fetch_wait_admit(FetchWait *wait)
{
	Fetcher *fetcher = wait->blob->fetcher;
	wait->previous = NULL;
	wait->next = fetcher->waits;
	if (wait->next)
		wait->next->previous = wait;
	fetcher->waits = wait;
	if (wait->replay)
		(void)atomic_fetch_add_explicit(&fetcher->replays, 1, memory_order_relaxed);
	int r = find_missing(wait);
	if (r < 0 || wait->missing == 0)
		fetch_wait_end(wait, r);
}

void fetch_wait_expire(Fetcher *fetcher, int64_t now)
{
	for (FetchWait *wait = fetcher->waits, *next; wait; wait = next) {
		next = wait->next;
		if (atomic_load(&wait->cancelled) || (wait->dropped && atomic_load(wait->dropped)))
			fetch_wait_end(wait, -EINTR);
		else if (wait->deadline <= now)
			fetch_wait_end(wait, -ETIMEDOUT);
	}
}
