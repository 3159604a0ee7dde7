#include "snapshotter/wire-pool.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <utlist.h>

#include "fs/base/deadline.h"

#define STACK_SIZE   (2u << 20) /* used only as far as trees are deep */
#define IDLE_SECONDS 10

struct WirePool {
	void (*run)(WireJob *job);
	pthread_mutex_t lock;
	pthread_cond_t changed; /* a job came, or a thread ended, or the end comes */
	WireJob *jobs;
	unsigned threads, threads_max, idle, queued;
	bool stopping;
};

/* With the lock held. False: nothing came for long, or the end came. */
static bool wait_for_job(WirePool *pool)
{
	struct timespec until = deadline_in((int64_t)IDLE_SECONDS * 1000);
	pool->idle++;
	while (!pool->jobs && !pool->stopping) {
		if (pool->threads == 1)
			(void)pthread_cond_wait(&pool->changed, &pool->lock);
		else if (pthread_cond_timedwait(&pool->changed, &pool->lock, &until) == ETIMEDOUT && pool->threads > 1)
			break;
	}
	pool->idle--;
	return pool->jobs;
}

static void *pool_thread(void *arg)
{
	WirePool *pool = arg;
	(void)pthread_mutex_lock(&pool->lock);
	while (wait_for_job(pool)) {
		WireJob *job = pool->jobs;
		DL_DELETE(pool->jobs, job);
		pool->queued--;
		(void)pthread_mutex_unlock(&pool->lock);
		pool->run(job);
		(void)pthread_mutex_lock(&pool->lock);
	}
	pool->threads--;
	(void)pthread_cond_broadcast(&pool->changed);
	(void)pthread_mutex_unlock(&pool->lock);
	return NULL;
}

/* Signals are for the main thread. The caller has counted the thread already. */
static int start_thread(WirePool *pool)
{
	pthread_attr_t attributes;
	pthread_t thread;
	sigset_t all, before;
	if (pthread_attr_init(&attributes) != 0)
		return -ENOMEM;
	(void)pthread_attr_setstacksize(&attributes, STACK_SIZE);
	(void)pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before);
	int r = -pthread_create(&thread, &attributes, pool_thread, pool);
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	(void)pthread_attr_destroy(&attributes);
	return r;
}

int wire_pool_new(unsigned threads_max, void (*run)(WireJob *job), WirePool **ret_pool)
{
	WirePool *pool = calloc(1, sizeof(*pool));
	if (!pool)
		return -ENOMEM;
	pool->run = run;
	pool->threads_max = threads_max;
	pool->threads = 1;
	(void)pthread_mutex_init(&pool->lock, NULL);
	deadline_cond_init(&pool->changed);
	int r = start_thread(pool);
	if (r < 0) {
		pool->threads = 0;
		(void)wire_pool_free(pool);
		return r;
	}
	*ret_pool = pool;
	return 0;
}

void wire_pool_add(WirePool *pool, WireJob *job)
{
	(void)pthread_mutex_lock(&pool->lock);
	DL_APPEND(pool->jobs, job);
	pool->queued++;
	bool start = pool->queued > pool->idle && pool->threads < pool->threads_max;
	if (start)
		pool->threads++;
	else
		(void)pthread_cond_signal(&pool->changed);
	(void)pthread_mutex_unlock(&pool->lock);
	if (!start || start_thread(pool) == 0)
		return;
	/* The job waits for one of the threads that there are. */
	(void)pthread_mutex_lock(&pool->lock);
	pool->threads--;
	(void)pthread_cond_signal(&pool->changed);
	(void)pthread_mutex_unlock(&pool->lock);
}

WirePool *wire_pool_free(WirePool *pool)
{
	if (!pool)
		return NULL;
	(void)pthread_mutex_lock(&pool->lock);
	pool->stopping = true;
	(void)pthread_cond_broadcast(&pool->changed);
	while (pool->threads > 0)
		(void)pthread_cond_wait(&pool->changed, &pool->lock);
	(void)pthread_mutex_unlock(&pool->lock);
	(void)pthread_cond_destroy(&pool->changed);
	(void)pthread_mutex_destroy(&pool->lock);
	free(pool);
	return NULL;
}
