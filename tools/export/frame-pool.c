#include "tools/export/frame-pool.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <xxhash.h>

#include "fs/format/frame.h"

#define JOBS_MAX  256u
#define RING_SIZE 16u /* jobs at least: the owner writes and hashes while the threads have work for a while */

/* What a compressing thread, the owner included, needs for itself. */
typedef struct Compressor {
	FrameEncoder *encoder;
	FrameDecoder *decoder;
	uint8_t *decoded; /* FORMAT_CHUNK_MAX */
} Compressor;

typedef struct Slot {
	FrameJob *job;
	bool done; /* under the lock */
} Slot;

struct FramePool {
	const LayerOptions *options;
	pthread_mutex_t find_lock; /* held while a frame is looked for, which one thread at a time may do */
	Slot *slots;
	uint32_t slot_count;
	Compressor *compressors; /* [0] is the owner's */
	unsigned compressor_count;
	pthread_t *threads;
	unsigned thread_count;

	pthread_mutex_t lock; /* guards what follows; held for a few loads and stores only */
	pthread_cond_t work;  /* a job was handed in, or the end has come */
	pthread_cond_t done;  /* the oldest job is done */
	uint64_t submitted;   /* counters of jobs; number % slot_count is the slot */
	uint64_t taken;       /* by a compressor */
	uint64_t released;
	unsigned next_compressor; /* for the next thread that starts */
	bool ending;
};

static bool reused_is_good(const Compressor *self, const FrameJob *job)
{
	Digest digest;
	return job->frame_size <= FORMAT_FRAME_MAX && digest_of(job->frame, job->frame_size, &digest) == 0 &&
	       digest_equal(&digest, &job->frame_digest) &&
	       frame_decode(self->decoder, job->frame, job->frame_size, self->decoded, job->content_size) == 0 &&
	       memcmp(self->decoded, job->content, job->content_size) == 0;
}

/* Asks for a frame of this content; a failure to get one costs only its compression. */
static bool find_frame(FramePool *pool, FrameJob *job)
{
	const LayerOptions *options = pool->options;
	if (!options->find_frame)
		return false;
	pthread_mutex_lock(&pool->find_lock);
	int r = options->find_frame(options->find_frame_arg, job->content_hash, job->content_size, job->frame,
				    &job->frame_size, &job->frame_digest);
	pthread_mutex_unlock(&pool->find_lock);
	return r == 0;
}

static int compress(FramePool *pool, const Compressor *self, FrameJob *job)
{
	size_t size = 0;
	job->content_hash = XXH3_64bits(job->content, job->content_size);
	job->reused = find_frame(pool, job) && reused_is_good(self, job);
	if (job->reused)
		return 0;
	int r = frame_encode(self->encoder, job->content, job->content_size, job->frame, &size);
	if (r < 0)
		return r;
	job->frame_size = (uint32_t)size;
	return digest_of(job->frame, size, &job->frame_digest);
}

/* Does one job, if there is one. The lock is held on entry and on return, not in between. */
static bool compress_one(FramePool *pool, const Compressor *self)
{
	if (pool->taken == pool->submitted)
		return false;
	uint64_t number = pool->taken++;
	Slot *slot = &pool->slots[number % pool->slot_count];
	pthread_mutex_unlock(&pool->lock);
	slot->job->result = compress(pool, self, slot->job);
	pthread_mutex_lock(&pool->lock);
	slot->done = true;
	if (number == pool->released)
		pthread_cond_signal(&pool->done);
	return true;
}

static void *thread_main(void *arg)
{
	FramePool *pool = arg;
	pthread_mutex_lock(&pool->lock);
	const Compressor *self = &pool->compressors[pool->next_compressor++];
	while (!pool->ending) {
		if (!compress_one(pool, self))
			pthread_cond_wait(&pool->work, &pool->lock);
	}
	pthread_mutex_unlock(&pool->lock);
	return NULL;
}

static int make_compressors(FramePool *pool, int level, unsigned count)
{
	pool->compressors = calloc(count, sizeof(*pool->compressors));
	if (!pool->compressors)
		return -ENOMEM;
	for (; pool->compressor_count < count; pool->compressor_count++) {
		Compressor *compressor = &pool->compressors[pool->compressor_count];
		int r = frame_encoder_new(level, &compressor->encoder);
		if (r < 0)
			return r;
		r = frame_decoder_new(&compressor->decoder);
		compressor->decoded = r == 0 ? malloc(FORMAT_CHUNK_MAX) : NULL;
		if (!compressor->decoded) {
			frame_decoder_free(compressor->decoder);
			frame_encoder_free(compressor->encoder);
			return r < 0 ? r : -ENOMEM;
		}
	}
	return 0;
}

static int make_slots(FramePool *pool, unsigned jobs)
{
	uint32_t count = jobs > RING_SIZE / 2 ? 2 * jobs : RING_SIZE;
	pool->slots = calloc(count, sizeof(*pool->slots));
	if (!pool->slots)
		return -ENOMEM;
	for (; pool->slot_count < count; pool->slot_count++) {
		FrameJob *job = malloc(sizeof(*job));
		if (!job)
			return -ENOMEM;
		pool->slots[pool->slot_count].job = job;
	}
	return 0;
}

static int start_threads(FramePool *pool, unsigned count)
{
	pool->next_compressor = 1;
	pool->threads = calloc(count + 1, sizeof(*pool->threads));
	if (!pool->threads)
		return -ENOMEM;
	for (; pool->thread_count < count; pool->thread_count++) {
		int r = pthread_create(&pool->threads[pool->thread_count], NULL, thread_main, pool);
		if (r != 0)
			return -r;
	}
	return 0;
}

int frame_pool_new(const LayerOptions *options, unsigned jobs, FramePool **ret_pool)
{
	if (jobs == 0 || jobs > JOBS_MAX)
		return -EINVAL;
	_cleanup_(frame_pool_free_p) FramePool *pool = calloc(1, sizeof(*pool));
	if (!pool)
		return -ENOMEM;
	pool->options = options;
	/* None of these can fail with default attributes. */
	(void)pthread_mutex_init(&pool->find_lock, NULL);
	(void)pthread_mutex_init(&pool->lock, NULL);
	(void)pthread_cond_init(&pool->work, NULL);
	(void)pthread_cond_init(&pool->done, NULL);
	int r = make_compressors(pool, options->level, jobs);
	if (r == 0)
		r = make_slots(pool, jobs);
	if (r == 0)
		r = start_threads(pool, jobs - 1);
	if (r < 0)
		return r;
	*ret_pool = TAKE_PTR(pool);
	return 0;
}

static void end_threads(FramePool *pool)
{
	pthread_mutex_lock(&pool->lock);
	pool->ending = true;
	pthread_cond_broadcast(&pool->work);
	pthread_mutex_unlock(&pool->lock);
	for (unsigned i = 0; i < pool->thread_count; i++)
		(void)pthread_join(pool->threads[i], NULL);
}

FramePool *frame_pool_free(FramePool *pool)
{
	if (!pool)
		return NULL;
	end_threads(pool);
	for (unsigned i = 0; i < pool->compressor_count; i++) {
		frame_encoder_free(pool->compressors[i].encoder);
		frame_decoder_free(pool->compressors[i].decoder);
		free(pool->compressors[i].decoded);
	}
	for (uint32_t i = 0; i < pool->slot_count; i++)
		free(pool->slots[i].job);
	free(pool->slots);
	free(pool->compressors);
	free(pool->threads);
	(void)pthread_cond_destroy(&pool->work);
	(void)pthread_cond_destroy(&pool->done);
	(void)pthread_mutex_destroy(&pool->lock);
	(void)pthread_mutex_destroy(&pool->find_lock);
	free(pool);
	return NULL;
}

/* `submitted` and `released` change in the owner's calls only, so it may read them without the lock. */
FrameJob *frame_pool_reserve(FramePool *pool)
{
	if (pool->submitted - pool->released == pool->slot_count)
		return NULL;
	return pool->slots[pool->submitted % pool->slot_count].job;
}

void frame_pool_submit(FramePool *pool)
{
	pthread_mutex_lock(&pool->lock);
	pool->slots[pool->submitted % pool->slot_count].done = false;
	pool->submitted++;
	pthread_cond_signal(&pool->work);
	pthread_mutex_unlock(&pool->lock);
}

FrameJob *frame_pool_next(FramePool *pool)
{
	if (pool->submitted == pool->released)
		return NULL;
	Slot *slot = &pool->slots[pool->released % pool->slot_count];
	pthread_mutex_lock(&pool->lock);
	while (!slot->done) {
		if (!compress_one(pool, &pool->compressors[0]))
			pthread_cond_wait(&pool->done, &pool->lock);
	}
	pthread_mutex_unlock(&pool->lock);
	return slot->job;
}

void frame_pool_release(FramePool *pool)
{
	pthread_mutex_lock(&pool->lock);
	pool->released++;
	pthread_mutex_unlock(&pool->lock);
}
