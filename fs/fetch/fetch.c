#include "fs/fetch/fetch.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "fs/base/bytes.h"
#include "fs/fetch/fetch-private.h"

#define CONNECTIONS 16u /* fetch-pace.c says how many of them are used */

int64_t fetch_now(void)
{
	struct timespec now;
	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int fetcher_new(const FetcherOptions *options, Fetcher **ret_fetcher)
{
	Fetcher *fetcher = calloc(1, sizeof(*fetcher));
	if (!fetcher)
		return -ENOMEM;
	(void)pthread_mutex_init(&fetcher->mutex, NULL);
	(void)pthread_cond_init(&fetcher->left, NULL);
	fetch_recent_init(&fetcher->recent);
	fetch_decoded_init(&fetcher->decoded);
	fetcher->options = *options;
	fetcher->metrics = options->metrics ?: &fetcher->own_metrics;
	if (fetcher->options.connections == 0)
		fetcher->options.connections = CONNECTIONS;
	fetcher->ranges = calloc(fetcher->options.connections, sizeof(*fetcher->ranges));
	int r = fetcher->ranges ? net_loop_new(fetcher->options.connections, &fetcher->loop) : -ENOMEM;
	if (r == 0 && options->access)
		r = net_access_decode(options->access, &fetcher->access);
	if (r == 0) {
		fetcher->mirrors = calloc(fetcher->access.mirror_count + 1, sizeof(*fetcher->mirrors));
		r = fetcher->mirrors ? 0 : -ENOMEM;
	}
	if (r < 0) {
		(void)fetcher_free(fetcher);
		return r;
	}
	fetcher->options.access = NULL;
	net_loop_set_access(fetcher->loop, &fetcher->access);
	for (unsigned i = 0; i < fetcher->options.connections; i++)
		fetcher->ranges[i].fetcher = fetcher;
	*ret_fetcher = fetcher;
	return 0;
}

/* Opens the waits that have come in, in their order, and lets blobs go. Says whether the Fetcher is to end. */
static bool take_incoming(Fetcher *fetcher)
{
	(void)pthread_mutex_lock(&fetcher->mutex);
	FetchWait *newest = fetcher->incoming;
	fetcher->incoming = NULL;
	FetchBlob *leaving = TAKE_PTR(fetcher->leaving);
	bool stopping = fetcher->stopping;
	(void)pthread_mutex_unlock(&fetcher->mutex);

	FetchWait *oldest = NULL;
	while (newest) {
		FetchWait *wait = newest;
		newest = wait->next;
		wait->next = oldest;
		oldest = wait;
	}
	while (oldest) {
		FetchWait *wait = oldest;
		oldest = wait->next;
		FetchBlob *blob = wait->blob;
		uint32_t first = wait->first, count = wait->count;
		bool demand = wait->class == FETCH_DEMAND;
		fetch_wait_admit(wait); /* may be its end */
		if (demand)
			fetch_around(blob, first, count);
	}
	fetch_blobs_let_go(fetcher, leaving);
	return stopping;
}

static int64_t next_deadline(const Fetcher *fetcher)
{
	int64_t deadline = INT64_MAX;
	for (const FetchWait *wait = fetcher->waits; wait; wait = wait->next)
		if (wait->deadline < deadline)
			deadline = wait->deadline;
	return deadline;
}

static void *network_thread(void *arg)
{
	Fetcher *fetcher = arg;
	while (!take_incoming(fetcher)) {
		int64_t now = fetch_now();
		fetch_report_decoded(fetcher);
		fetch_wait_expire(fetcher, now);
		fetch_range_cut_unwanted(fetcher);
		int64_t until = fetch_range_start_all(fetcher, now), deadline = next_deadline(fetcher);
		if (deadline < until)
			until = deadline;
		if (net_loop_run(fetcher->loop, until - now) < 0) {
			/* Curl is out of memory: deadlines go on, but not in a busy loop. */
			struct timespec pause = { .tv_nsec = 20000000 };
			(void)nanosleep(&pause, NULL);
		}
	}
	return NULL;
}

int fetcher_start(Fetcher *fetcher)
{
	/* Whoever starts this is about to read. */
	fetch_pace_touch();
	sigset_t all, before;
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before);
	int r = pthread_create(&fetcher->thread, NULL, network_thread, fetcher);
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	fetcher->started = r == 0;
	return -r;
}

/* Ends every wait, those that never came in too. */
static void cancel_all(Fetcher *fetcher)
{
	(void)take_incoming(fetcher);
	while (fetcher->waits)
		fetch_wait_end(fetcher->waits, -ECANCELED);
}

void fetcher_stop(Fetcher *fetcher)
{
	(void)pthread_mutex_lock(&fetcher->mutex);
	fetcher->stopping = true;
	(void)pthread_mutex_unlock(&fetcher->mutex);
	if (fetcher->started) {
		net_loop_wake(fetcher->loop);
		(void)pthread_join(fetcher->thread, NULL);
	}
	cancel_all(fetcher);
	fetch_range_cut_unwanted(fetcher);
	/* Whoever has come since to take a blob away still waits for this; who comes later does it himself. */
	(void)pthread_mutex_lock(&fetcher->mutex);
	fetcher->started = false;
	FetchBlob *leaving = TAKE_PTR(fetcher->leaving);
	(void)pthread_mutex_unlock(&fetcher->mutex);
	fetch_blobs_let_go(fetcher, leaving);
}

Fetcher *fetcher_free(Fetcher *fetcher)
{
	if (!fetcher)
		return NULL;
	fetcher_stop(fetcher);
	fetcher->loop = net_loop_free(fetcher->loop);
	net_access_done(&fetcher->access);
	free(fetcher->mirrors);
	for (unsigned i = 0; fetcher->ranges && i < fetcher->options.connections; i++)
		free(fetcher->ranges[i].frame);
	free(fetcher->ranges);
	while (fetcher->blobs) {
		FetchBlob *blob = fetcher->blobs;
		fetcher->blobs = blob->next;
		(void)fetch_blob_free(blob);
	}
	fetch_recent_done(&fetcher->recent);
	fetch_decoded_done(&fetcher->decoded);
	(void)pthread_cond_destroy(&fetcher->left);
	(void)pthread_mutex_destroy(&fetcher->mutex);
	free(fetcher);
	return NULL;
}

/* NULL: out of memory. */
static FetchWait *wait_new(FetchBlob *blob, uint32_t first, uint32_t count, const FetchWait *what)
{
	FetchWait *wait = calloc(1, sizeof(*wait) + count * sizeof(wait->links[0]));
	if (!wait)
		return NULL;
	wait->blob = blob;
	wait->first = first;
	wait->count = count;
	wait->class = what->class;
	wait->deadline = what->deadline;
	wait->done = what->done;
	wait->arg = what->arg;
	wait->dropped = what->dropped;
	wait->replay = what->replay;
	return wait;
}

void fetch_admit(FetchBlob *blob, uint32_t first, uint32_t count, const FetchWait *what)
{
	FetchWait *wait = wait_new(blob, first, count, what);
	if (wait)
		fetch_wait_admit(wait);
}

static int submit(FetchBlob *blob, uint32_t first, uint32_t count, const FetchWait *what, FetchWait **ret_wait)
{
	Fetcher *fetcher = blob->fetcher;
	FetchWait *wait = wait_new(blob, first, count, what);
	if (!wait)
		return -ENOMEM;

	(void)pthread_mutex_lock(&fetcher->mutex);
	bool stopping = fetcher->stopping;
	if (!stopping) {
		/* Before the other thread can see the wait, and end it. */
		if (ret_wait)
			*ret_wait = wait;
		wait->next = fetcher->incoming;
		fetcher->incoming = wait;
	}
	(void)pthread_mutex_unlock(&fetcher->mutex);
	if (stopping) {
		free(wait);
		return -ECANCELED;
	}
	return 0;
}

int fetch_submit(FetchBlob *blob, uint32_t first, uint32_t count, const FetchWait *what)
{
	int r = submit(blob, first, count, what, NULL);
	if (r == 0)
		net_loop_wake(blob->fetcher->loop);
	return r;
}

/* The chunks that hold a part of the tar. False: it is not inside. */
static bool find_chunks(const FetchBlob *blob, uint64_t tar_offset, uint64_t size, uint32_t *ret_first,
			uint32_t *ret_count)
{
	const ChunkTable *table = cache_blob_table(blob->cache);
	if (!range_within(tar_offset, size, table->tar_size))
		return false;
	*ret_first = size > 0 ? chunk_table_find(table, tar_offset) : 0;
	*ret_count = size > 0 ? chunk_table_find(table, tar_offset + size - 1) - *ret_first + 1 : 0;
	return true;
}

int fetch_wait(FetchBlob *blob, uint64_t tar_offset, uint64_t size, int64_t deadline, FetchDone *done, void *arg,
	       FetchWait **ret_wait)
{
	uint32_t first, count;
	if (!find_chunks(blob, tar_offset, size, &first, &count))
		return -EINVAL;
	FetchWait what = { .class = FETCH_DEMAND, .deadline = deadline, .done = done, .arg = arg };
	int r = submit(blob, first, count, &what, ret_wait);
	if (r == 0)
		net_loop_wake(blob->fetcher->loop);
	return r;
}

/* Until when somebody is patient who begins now. */
static int64_t deadline_after(int64_t patience)
{
	int64_t now = fetch_now();
	return patience < INT64_MAX - now ? now + patience : INT64_MAX;
}

int fetch_prefetch(FetchBlob *blob, FetchClass class, const uint32_t *chunks, size_t count, int64_t patience)
{
	uint32_t limit = cache_blob_table(blob->cache)->count;
	FetchWait what = { .class = class, .deadline = deadline_after(patience), .replay = class == FETCH_PROFILE };
	int r = class == FETCH_PROFILE || class == FETCH_BACKGROUND ? 0 : -EINVAL;
	for (size_t i = 0; r == 0 && i < count;) {
		size_t end = i + 1;
		while (end < count && chunks[end] == chunks[end - 1] + 1)
			end++;
		if (chunks[end - 1] >= limit || chunks[i] >= limit)
			r = -EINVAL;
		else
			r = submit(blob, chunks[i], (uint32_t)(end - i), &what, NULL);
		i = end;
	}
	net_loop_wake(blob->fetcher->loop);
	return r;
}

int fetch_prefetch_range(FetchBlob *blob, FetchClass class, uint64_t tar_offset, uint64_t size, int64_t patience)
{
	uint32_t first, count;
	if ((class != FETCH_PROFILE && class != FETCH_BACKGROUND) ||
	    !find_chunks(blob, tar_offset, size, &first, &count))
		return -EINVAL;
	FetchWait what = { .class = class, .deadline = deadline_after(patience) };
	return fetch_submit(blob, first, count, &what);
}

void fetch_cancel(Fetcher *fetcher, FetchWait *wait)
{
	atomic_store(&wait->cancelled, true);
	net_loop_wake(fetcher->loop);
}

void fetcher_counters(Fetcher *fetcher, FetchCounters *ret_counters)
{
	*ret_counters = (FetchCounters){
		.bytes = atomic_load_explicit(&fetcher->metrics->bytes, memory_order_relaxed),
		.chunks = atomic_load_explicit(&fetcher->metrics->chunks, memory_order_relaxed),
		.copies = atomic_load_explicit(&fetcher->metrics->copies, memory_order_relaxed),
		.retries = atomic_load_explicit(&fetcher->metrics->retries, memory_order_relaxed),
		.verify_failures = atomic_load_explicit(&fetcher->metrics->verify_failures, memory_order_relaxed),
		.decoded_failures = atomic_load_explicit(&fetcher->metrics->decoded_failures, memory_order_relaxed),
	};
	for (unsigned i = 0; i < FETCH_CLASSES; i++)
		ret_counters->requests += atomic_load_explicit(&fetcher->metrics->requests[i], memory_order_relaxed);
}
