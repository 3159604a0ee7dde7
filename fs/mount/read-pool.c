#include "fs/mount/read-pool.h"

#include <inttypes.h>
#include <pthread.h>
#include <signal.h>

#include "fs/base/deadline.h"
#include "fs/base/log.h"
#include "fs/mount/process.h"
#include "fs/mount/recent-failures.h"
#include "fs/mount/reply-errno.h"
#include "fs/mount/worker.h"

#define POOL_THREADS     2
#define CHECK_INTERVAL   250 /* milliseconds between looks at interrupted readers */
#define CHECK_BATCH      64
#define FAILURE_INTERVAL 1000 /* milliseconds between records of failed reads */

/* Either among those waiting for the fetcher (wait is set) or in the queue of those to be read again. */
typedef struct Read {
	struct Read *next, *previous;
	ReadPool *pool;
	ReadRequest what;
	unsigned slot;
	pid_t thread; /* who reads, as the kernel told */
	int64_t deadline;
	FetchWait *wait;
	int result;
	FetchTally tally; /* of all its tries; what was absent at the first */
} Read;

typedef struct ReadList {
	Read *first, *last;
} ReadList;

struct ReadPool {
	ServerMetrics *metrics;
	pthread_t threads[POOL_THREADS];
	Worker workers[POOL_THREADS];
	unsigned thread_count;
	pthread_mutex_t lock; /* guards what follows, and every Read that a thread of the pool is not at */
	pthread_cond_t changed;
	ReadList waiting;
	ReadList arrived;
	bool watching;            /* a waiting read was interrupted */
	struct timespec check_at; /* when the next look at those is due, then */
	bool stopping;
	RecentFailures timeouts;
	int64_t failure_logged;
	unsigned failures_unlogged;
};

void read_request_answered(ReadPool *pool, ReadRequest *request, const FetchTally *tally, int error)
{
	int64_t took = shared_memory_clock() - request->began;
	Histogram *histogram = tally->absent > 0 ? &pool->metrics->waited : &pool->metrics->at_once;
	histogram_add(histogram, took > 0 ? (uint64_t)took : 0);
	StartAnswer answer = {
		.inode = request->inode,
		.offset = request->offset,
		.size = request->size,
		.began = request->began,
		.tally = tally,
		.error = error,
	};
	start_recorder_end(request->image->recorder, &answer, &request->trace);
}

/* With the lock. What comes meanwhile must not put the look off, or who is being killed waits as long as others read. */
static void watch(ReadPool *pool)
{
	if (!pool->watching)
		pool->check_at = deadline_in(CHECK_INTERVAL);
	pool->watching = true;
	(void)pthread_cond_signal(&pool->changed);
}

static void list_append(ReadList *list, Read *read)
{
	read->next = NULL;
	read->previous = list->last;
	*(list->last ? &list->last->next : &list->first) = read;
	list->last = read;
}

static void list_remove(ReadList *list, Read *read)
{
	*(read->previous ? &read->previous->next : &list->first) = read->next;
	*(read->next ? &read->next->previous : &list->last) = read->previous;
}

static void on_arrival(void *arg, int result)
{
	Read *read = arg;
	ReadPool *pool = read->pool;
	(void)pthread_mutex_lock(&pool->lock);
	list_remove(&pool->waiting, read);
	read->wait = NULL;
	read->result = result;
	list_append(&pool->arrived, read);
	(void)pthread_cond_signal(&pool->changed);
	(void)pthread_mutex_unlock(&pool->lock);
}

/* The lock makes on_arrival(), which may come at once, wait until the read is among those waiting. */
static int wait_for(Read *read, const MountMissing *missing)
{
	ReadPool *pool = read->pool;
	(void)pthread_mutex_lock(&pool->lock);
	int r = fetch_wait(missing->blob, missing->tar_offset, missing->size, read->deadline, on_arrival, read,
			   &read->wait);
	if (r == 0) {
		journal_set_waiting(read->what.journal, read->slot, true);
		list_append(&pool->waiting, read);
		if (journal_interrupted(read->what.journal, read->slot))
			watch(pool);
	}
	(void)pthread_mutex_unlock(&pool->lock);
	return r;
}

static void note_failure(ReadPool *pool, const ReadRequest *what, int error)
{
	(void)pthread_mutex_lock(&pool->lock);
	int64_t now = fetch_now();
	if (error == -ETIMEDOUT)
		recent_failures_note(&pool->timeouts, mount_image_node(what->image, what->inode), what->offset,
				     what->size, now);
	bool due = pool->failure_logged == 0 || now - pool->failure_logged >= FAILURE_INTERVAL;
	unsigned unlogged = pool->failures_unlogged;
	if (due) {
		pool->failure_logged = now;
		pool->failures_unlogged = 0;
	} else {
		pool->failures_unlogged++;
	}
	(void)pthread_mutex_unlock(&pool->lock);
	if (due)
		log_warning("read failed slot=%" PRIu32 " inode=%" PRIu32 " off=%" PRIu64 " size=%" PRIu32
			    " reason=\"%s\" unlogged=%u",
			    what->image->slot, what->inode, what->offset, what->size, error_text(NULL, error),
			    unlogged);
}

void read_pool_fail(ReadPool *pool, const ReadRequest *request, int error)
{
	if (error != -EINTR)
		note_failure(pool, request, error);
	(void)fuse_reply_err(request->request, reply_errno_data(error));
}

static void read_free(Read *read)
{
	(void)mount_image_unref(read->what.image);
	free(read);
}

static void finish(Read *read, const Worker *worker, int result)
{
	ReadPool *pool = read->pool;
	if (result == -ECANCELED) {
		/* The server ends; its successor finds the request in the journal. */
		read_free(read);
		return;
	}
	if (result == 0)
		(void)fuse_reply_buf(read->what.request, (const char *)worker->buffer, read->what.size);
	else
		read_pool_fail(pool, &read->what, result);
	journal_end(read->what.journal, read->slot);
	read_request_answered(pool, &read->what, &read->tally, result);
	read_free(read);
}

/* Bytes that arrived may be gone again (found rotten, evicted); then it waits anew, up to the deadline. */
static void read_again(Read *read, Worker *worker)
{
	const MountImage *image = read->what.image;
	int r = read->result;
	journal_set_waiting(read->what.journal, read->slot, false);
	if (r == 0) {
		TreeInode inode;
		MountMissing missing;
		tree_inode(&image->tree, read->what.inode, &inode);
		*fetch_reader_tally(worker->reader) = (FetchTally){ 0 };
		r = mount_image_read(image, worker->reader, &inode, read->what.offset, read->what.size,
				     worker_buffer(worker, read->what.size), &missing);
		for (size_t i = 0; i < FETCH_TIERS; i++)
			read->tally.chunks[i] = fetch_reader_tally(worker->reader)->chunks[i];
		if (r == -EAGAIN) {
			r = fetch_now() < read->deadline ? wait_for(read, &missing) : -ETIMEDOUT;
			if (r == 0)
				return;
		}
	}
	finish(read, worker, r);
}

typedef struct Suspect {
	Read *read;
	uint64_t unique; /* a Read may end, and its memory become another, while nobody holds the lock */
	pid_t thread;
} Suspect;

static uint64_t unique_of(const Read *read)
{
	const struct fuse_in_header *header = journal_slot(read->what.journal, read->slot);
	return header->unique;
}

static size_t collect_suspects(ReadPool *pool, Suspect *suspects)
{
	size_t count = 0;
	for (Read *read = pool->waiting.first; read && count < CHECK_BATCH; read = read->next) {
		if (journal_interrupted(read->what.journal, read->slot))
			suspects[count++] = (Suspect){ read, unique_of(read), read->thread };
	}
	return count;
}

static void cancel_suspect(ReadPool *pool, const Suspect *suspect)
{
	for (Read *read = pool->waiting.first; read; read = read->next) {
		if (read == suspect->read && unique_of(read) == suspect->unique) {
			fetch_cancel(mount_source_fetcher(read->what.image->source), read->wait);
			return;
		}
	}
}

/* Called, and returns, with the lock held; releases it while it reads /proc. */
static void check_interrupted(ReadPool *pool)
{
	Suspect suspects[CHECK_BATCH];
	size_t count = collect_suspects(pool, suspects);
	pool->watching = count > 0;
	pool->check_at = deadline_in(CHECK_INTERVAL);
	for (size_t i = 0; i < count; i++) {
		(void)pthread_mutex_unlock(&pool->lock);
		bool dying = process_is_dying(suspects[i].thread);
		(void)pthread_mutex_lock(&pool->lock);
		if (dying)
			cancel_suspect(pool, &suspects[i]);
	}
}

static void wait_for_change(ReadPool *pool)
{
	if (pool->watching)
		(void)pthread_cond_timedwait(&pool->changed, &pool->lock, &pool->check_at);
	else
		(void)pthread_cond_wait(&pool->changed, &pool->lock);
}

static void pool_loop(ReadPool *pool, Worker *worker)
{
	worker_set_current(worker);
	(void)pthread_mutex_lock(&pool->lock);
	while (!pool->stopping || pool->arrived.first) {
		if (pool->watching && deadline_is_over(&pool->check_at))
			check_interrupted(pool);
		Read *read = pool->arrived.first;
		if (!read) {
			wait_for_change(pool);
			continue;
		}
		list_remove(&pool->arrived, read);
		(void)pthread_mutex_unlock(&pool->lock);
		worker->at = read->slot;
		worker->journal = read->what.journal;
		read_again(read, worker);
		worker->journal = NULL;
		(void)pthread_mutex_lock(&pool->lock);
	}
	(void)pthread_mutex_unlock(&pool->lock);
}

typedef struct PoolStart {
	ReadPool *pool;
	Worker *worker;
} PoolStart;

static void *pool_thread(void *arg)
{
	_cleanup_free_ PoolStart *start = arg;
	pool_loop(start->pool, start->worker);
	return NULL;
}

static int start_thread(ReadPool *pool, Worker *worker, pthread_t *ret_thread)
{
	int r = worker_init(worker);
	if (r < 0)
		return r;
	PoolStart *start = malloc(sizeof(*start));
	if (!start)
		return -ENOMEM;
	*start = (PoolStart){ pool, worker };
	sigset_t all, before;
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before);
	r = -pthread_create(ret_thread, NULL, pool_thread, start);
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r < 0)
		free(start);
	return r;
}

int read_pool_new(ServerMetrics *metrics, ReadPool **ret_pool)
{
	_cleanup_(read_pool_free_p) ReadPool *pool = calloc(1, sizeof(*pool));
	if (!pool)
		return -ENOMEM;
	pool->metrics = metrics;
	(void)pthread_mutex_init(&pool->lock, NULL);
	deadline_cond_init(&pool->changed);
	for (unsigned i = 0; i < POOL_THREADS; i++) {
		int r = start_thread(pool, &pool->workers[i], &pool->threads[i]);
		if (r < 0)
			return r;
		pool->thread_count++;
	}
	*ret_pool = TAKE_PTR(pool);
	return 0;
}

ReadPool *read_pool_free(ReadPool *pool)
{
	if (!pool)
		return NULL;
	(void)pthread_mutex_lock(&pool->lock);
	pool->stopping = true;
	(void)pthread_cond_broadcast(&pool->changed);
	(void)pthread_mutex_unlock(&pool->lock);
	for (unsigned i = 0; i < pool->thread_count; i++)
		(void)pthread_join(pool->threads[i], NULL);
	for (unsigned i = 0; i < POOL_THREADS; i++)
		worker_done(&pool->workers[i]);
	(void)pthread_cond_destroy(&pool->changed);
	(void)pthread_mutex_destroy(&pool->lock);
	free(pool);
	return NULL;
}

static bool failed_just_now(ReadPool *pool, const ReadRequest *request)
{
	(void)pthread_mutex_lock(&pool->lock);
	bool failed = recent_failures_take(&pool->timeouts, mount_image_node(request->image, request->inode),
					   request->offset, fetch_now());
	(void)pthread_mutex_unlock(&pool->lock);
	return failed;
}

void read_pool_add(ReadPool *pool, ReadRequest *request, const MountMissing *missing)
{
	Worker *worker = worker_current();
	Read *read = NULL;
	int r = failed_just_now(pool, request) ? -ETIMEDOUT : 0;
	if (r == 0 && !(read = malloc(sizeof(*read))))
		r = -ENOMEM;
	if (r == 0) {
		*read = (Read){
			.pool = pool,
			.what = *request,
			.thread = fuse_req_ctx(request->request)->pid,
			.tally = *fetch_reader_tally(worker->reader),
		};
		r = journal_park(request->journal, worker->slot, fetch_now() + request->image->deadline, &read->slot);
	}
	if (r < 0) {
		free(read);
		/* Once more would keep the window open for ever. */
		(void)fuse_reply_err(request->request, reply_errno_data(r));
		read_request_answered(pool, request, fetch_reader_tally(worker->reader), r);
		return;
	}
	worker->slot = WORKER_NO_SLOT;
	mount_image_ref(read->what.image);
	/* One taken over from a server that died has the deadline it had there. */
	read->deadline = journal_deadline(request->journal, read->slot);
	start_recorder_wait(request->image->recorder, request->inode, (uint32_t)read->thread, &read->what.trace);
	r = wait_for(read, missing);
	if (r < 0)
		finish(read, worker, r);
}

void read_pool_interrupt(ReadPool *pool)
{
	(void)pthread_mutex_lock(&pool->lock);
	watch(pool);
	(void)pthread_mutex_unlock(&pool->lock);
}
