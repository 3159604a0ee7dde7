#include <errno.h>
#include <string.h>

#include "fs/fetch/fetch-private.h"

FetchBlob *fetch_blob_free(FetchBlob *blob)
{
	if (blob) {
		(void)cache_blob_free(blob->cache);
		(void)pthread_mutex_destroy(&blob->ahead_mutex);
		(void)cache_decoded_free(atomic_load(&blob->decoded));
		(void)fetch_donors_unref(blob->donors);
		free(blob->url);
		free((void *)(uintptr_t)blob->rotten);
		free(blob->wants);
		free(blob->shunned);
		free((void *)(uintptr_t)blob->twins);
		free(blob->packed);
		free(blob);
	}
	return NULL;
}
DEFINE_CLEANUP(FetchBlob, fetch_blob_free);

int fetcher_add_blob(Fetcher *fetcher, CacheBlob *cache, const char *url, FetchBlob **ret_blob)
{
	static _Atomic uint64_t last_id;
	size_t count = cache_blob_table(cache)->count;
	_cleanup_(cache_blob_free_p) CacheBlob *owned = cache;
	_cleanup_(fetch_blob_free_p) FetchBlob *blob = calloc(1, sizeof(*blob));
	if (!blob)
		return -ENOMEM;
	blob->fetcher = fetcher;
	(void)pthread_mutex_init(&blob->ahead_mutex, NULL);
	blob->id = atomic_fetch_add(&last_id, 1) + 1;
	blob->cache = TAKE_PTR(owned);
	blob->url = url ? strdup(url) : NULL;
	blob->rotten = calloc(count / 8 + 1, sizeof(*blob->rotten));
	blob->wants = calloc(count + 1, sizeof(FetchWant *));
	blob->shunned = calloc(fetcher->access.mirror_count + 1, sizeof(*blob->shunned));
	if ((url && !blob->url) || !blob->rotten || !blob->wants || !blob->shunned)
		return -ENOMEM;
	(void)pthread_mutex_lock(&fetcher->mutex);
	blob->next = fetcher->blobs;
	fetcher->blobs = blob;
	(void)pthread_mutex_unlock(&fetcher->mutex);
	*ret_blob = TAKE_PTR(blob);
	return 0;
}

void fetch_blob_set_decoded(FetchBlob *blob, CacheDecoded *copy)
{
	CacheDecoded *none = NULL;
	if (!atomic_compare_exchange_strong(&blob->decoded, &none, copy))
		(void)cache_decoded_free(copy);
}

/* Ends its waits and its transfers, and with them its last wants: what is queued is always waited for. */
static void let_go(Fetcher *fetcher, FetchBlob *blob)
{
	for (FetchWait *wait = fetcher->waits, *next; wait; wait = next) {
		next = wait->next;
		if (wait->blob == blob)
			fetch_wait_end(wait, -ECANCELED);
	}
	fetch_range_cut_blob(fetcher, blob);
}

void fetch_blobs_let_go(Fetcher *fetcher, FetchBlob *leaving)
{
	for (FetchBlob *blob = leaving, *next; blob; blob = next) {
		next = blob->next;
		let_go(fetcher, blob);
		(void)pthread_mutex_lock(&fetcher->mutex);
		blob->gone = true;
		(void)pthread_cond_broadcast(&fetcher->left);
		(void)pthread_mutex_unlock(&fetcher->mutex);
	}
}

/* Takes what was asked for of a blob before there was a thread out of the list of what has come in. With the mutex. */
static FetchWait *take_back(Fetcher *fetcher, const FetchBlob *blob)
{
	FetchWait *taken = NULL;
	for (FetchWait **link = &fetcher->incoming; *link;) {
		FetchWait *wait = *link;
		if (wait->blob != blob) {
			link = &wait->next;
			continue;
		}
		*link = wait->next;
		wait->next = taken;
		taken = wait;
	}
	return taken;
}

/* Has the network thread let it go. With the mutex. */
static void leave(Fetcher *fetcher, FetchBlob *blob)
{
	blob->next = fetcher->leaving;
	fetcher->leaving = blob;
	net_loop_wake(fetcher->loop);
	while (!blob->gone)
		(void)pthread_cond_wait(&fetcher->left, &fetcher->mutex);
}

void fetcher_remove_blob(FetchBlob *blob)
{
	Fetcher *fetcher = blob->fetcher;
	FetchWait *taken = NULL;
	(void)pthread_mutex_lock(&fetcher->mutex);
	FetchBlob **link = &fetcher->blobs;
	while (*link != blob)
		link = &(*link)->next;
	*link = blob->next;
	blob->next = NULL;
	if (fetcher->started)
		leave(fetcher, blob);
	else
		taken = take_back(fetcher, blob);
	/* Before the thread's start no wait is open, and after its end none is left, so that nobody is called back under the lock. */
	if (!blob->gone)
		let_go(fetcher, blob);
	(void)pthread_mutex_unlock(&fetcher->mutex);
	while (taken) {
		FetchWait *wait = taken;
		taken = wait->next;
		if (wait->done)
			wait->done(wait->arg, -ECANCELED);
		free(wait);
	}
	(void)fetch_blob_free(blob);
}
