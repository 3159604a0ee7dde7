#include "fs/fetch/fetch-fill.h"

#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "fs/base/deadline.h"
#include "fs/cache/cache-seal.h"
#include "fs/fetch/fetch-donors.h"
#include "fs/fetch/fetch-private.h"
#include "fs/format/frame.h"

#define PIECE_MAX   (1u << 20)  /* what is asked for at once; the Fetcher joins neighbours */
#define ASKED_MAX   (16u << 20) /* and in all */
#define PIECES      64u
#define SYNC_BYTES  (32u << 20) /* after which the disk is made to write, so that the last sync has little left */
#define RETRY       10000
#define REST        50    /* milliseconds between two looks whether somebody reads */
#define REST_MAX    60000 /* after which it goes on, a step at a time */
#define CHECK_TRIES 3u    /* for a chunk that the disk does not give back as it was given */
#define NICE        10
#define SPARE       10u /* of the disk: a copy leaves one part of so many free, since it is a convenience */

typedef struct Job {
	struct Job *next;
	FetchBlob *blob;
	Digest diff_id;
	int seal_fd;
	int copy_fd;   /* a place for a decoded copy; -1: none is wanted; set once, under the mutex */
	bool copy_due; /* the copy is still to be tried; under the mutex */
	FetchFillState state;
	_Atomic bool dropped; /* what it waits for is to end */
	FetchFillGone *gone;  /* of one that was removed under way: whom the thread tells once it is at its end */
	void *gone_arg;
} Job;

/* A run of chunks that is asked for. */
typedef struct Piece {
	FetchFill *fill;
	uint32_t first, count;
	uint64_t size;
	bool asked;
	_Atomic bool ended;
	int result; /* once it has ended */
} Piece;

struct FetchFill {
	FetchFillOptions options;
	_Atomic uint64_t rate;
	pthread_t thread;

	pthread_mutex_t mutex; /* of the next five, and of the states of jobs */
	pthread_cond_t changed;
	Job *jobs; /* in the order they came */
	Job *current;
	bool stopping;

	/* The thread's own. */
	sem_t ended;     /* a piece has */
	unsigned tokens; /* of it, taken for pieces that are not collected yet */
	Piece pieces[PIECES];
	uint64_t asked; /* bytes of the pieces */
	int64_t rate_at;
	bool pressed; /* it has rested long enough, and nobody has stopped reading */
	bool told_full;
	bool probing; /* the disk was full: one piece will show whether it still is */
	uint8_t *frame, *content;
	FrameDecoder *decoder;
};

static bool is_over(const Job *job)
{
	return atomic_load_explicit(&job->dropped, memory_order_relaxed);
}

static void tell(const FetchFill *fill, bool failed, const Error *error)
{
	if (fill->options.report)
		fill->options.report(fill->options.report_arg, failed, error->message);
}

/* Sleeps, but for no longer than the job lasts. */
static void pause_job(FetchFill *fill, const Job *job, int64_t milliseconds)
{
	struct timespec until = deadline_in(milliseconds);
	(void)pthread_mutex_lock(&fill->mutex);
	while (!is_over(job) && pthread_cond_timedwait(&fill->changed, &fill->mutex, &until) == 0)
		;
	(void)pthread_mutex_unlock(&fill->mutex);
}

/* Waits while anybody reads; but who never stops reading does not stop this for ever. */
static void rest(FetchFill *fill, const Job *job)
{
	int64_t since = fetch_now();
	while (!is_over(job) && !fetch_pace_is_quiet(fetch_now())) {
		if (fill->pressed || fetch_now() - since >= REST_MAX) {
			fill->pressed = true;
			pause_job(fill, job, REST);
			return;
		}
		pause_job(fill, job, REST);
	}
	fill->pressed = false;
}

static void on_end(void *arg, int result)
{
	Piece *piece = arg;
	FetchFill *fill = piece->fill;
	piece->result = result;
	atomic_store(&piece->ended, true);
	(void)sem_post(&fill->ended);
}

/* Did the cache keep what has come? */
static int judge_piece(const Job *job, const Piece *piece)
{
	for (uint32_t i = 0; piece->result == 0 && i < piece->count; i++)
		if (!cache_blob_has(job->blob->cache, piece->first + i))
			return -ENOSPC;
	return piece->result;
}

static void take_token(FetchFill *fill)
{
	while (sem_wait(&fill->ended) < 0)
		;
	fill->tokens++;
}

/*
 * Takes back pieces that have ended, each with its token: until that is there the other thread is still in on_end(), and the fill must not be freed. 0, or the
 * first failure.
 */
static int collect(FetchFill *fill, const Job *job)
{
	int failure = 0;
	for (size_t i = 0; i < PIECES; i++) {
		Piece *piece = &fill->pieces[i];
		if (!piece->asked || !atomic_load(&piece->ended))
			continue;
		if (fill->tokens == 0)
			take_token(fill);
		fill->tokens--;
		int r = judge_piece(job, piece);
		if (r < 0 && failure == 0)
			failure = r;
		piece->asked = false;
		fill->asked -= piece->size;
	}
	return failure;
}

/* Waits until at most `bytes` are asked for. */
static int await(FetchFill *fill, const Job *job, uint64_t bytes)
{
	int failure = collect(fill, job);
	while (fill->asked > bytes) {
		take_token(fill);
		int r = collect(fill, job);
		if (failure == 0)
			failure = r;
	}
	return failure;
}

static Piece *free_piece(FetchFill *fill)
{
	for (size_t i = 0; i < PIECES; i++)
		if (!fill->pieces[i].asked)
			return &fill->pieces[i];
	return NULL;
}

/* Holds the rate: what is asked for now is paid for before the next. */
static void keep_rate(FetchFill *fill, const Job *job, uint64_t size)
{
	uint64_t rate = atomic_load(&fill->rate);
	if (rate == 0)
		return;
	int64_t now = fetch_now();
	if (fill->rate_at > now)
		pause_job(fill, job, fill->rate_at - now);
	else
		fill->rate_at = now;
	fill->rate_at += (int64_t)(size * 1000 / rate);
}

static int ask(FetchFill *fill, const Job *job, const Piece *what)
{
	keep_rate(fill, job, what->size);
	/* With a rate no more than one, so that nothing is saved up while others have the link. */
	int r = await(fill, job, atomic_load(&fill->rate) > 0 ? 0 : ASKED_MAX);
	Piece *piece;
	while (r == 0 && !(piece = free_piece(fill)))
		r = await(fill, job, fill->asked - 1);
	if (r < 0)
		return r;
	if (is_over(job))
		return -ECANCELED;
	*piece = *what;
	piece->fill = fill;
	FetchWait wait = {
		.class = FETCH_BACKGROUND,
		.deadline = INT64_MAX,
		.done = on_end,
		.arg = piece,
		.dropped = &job->dropped,
	};
	piece->asked = true;
	fill->asked += piece->size;
	r = fetch_submit(job->blob, piece->first, piece->count, &wait);
	if (r < 0) {
		piece->asked = false;
		fill->asked -= piece->size;
	} else if (fill->probing) {
		r = await(fill, job, 0);
		fill->probing = r < 0;
	}
	return r;
}

static uint64_t piece_max(const FetchFill *fill)
{
	uint64_t rate = atomic_load(&fill->rate);
	return rate > 0 && rate < PIECE_MAX ? rate : PIECE_MAX;
}

/* Asks for all that is neither here nor to be copied from donors. 0: all has come. */
static int fetch_all(FetchFill *fill, const Job *job)
{
	const ChunkTable *table = cache_blob_table(job->blob->cache);
	Piece piece = { 0 };
	uint64_t filled = 0;
	int r = 0;
	for (uint32_t i = 0; r == 0 && i <= table->count; i++) {
		bool absent = i < table->count && !cache_blob_has(job->blob->cache, i);
		if (absent && job->blob->twins) {
			rest(fill, job);
			absent = !fetch_donor_copy(job->blob, i, fill->frame) || !cache_blob_has(job->blob->cache, i);
		}
		Chunk chunk = { 0 };
		if (absent)
			chunk_table_get(table, i, &chunk);
		if (piece.count > 0 && (!absent || piece.size + chunk.blob_size > piece_max(fill))) {
			r = ask(fill, job, &piece);
			filled += piece.size;
			piece = (Piece){ 0 };
		}
		if (absent && piece.count++ == 0)
			piece.first = i;
		piece.size += chunk.blob_size;
		if (filled >= SYNC_BYTES) {
			cache_blob_sync(job->blob->cache);
			filled = 0;
		}
		if (r == 0 && is_over(job))
			r = -ECANCELED;
	}
	int last = await(fill, job, 0);
	return r < 0 ? r : last;
}

/* -ENODATA: the frame has changed on the disk since it was checked; -EBADMSG: it is what was published. */
static int decode_chunk(FetchFill *fill, const Job *job, uint32_t number, const Chunk *chunk)
{
	Digest digest;
	int r = frame_decode(fill->decoder, fill->frame, chunk->blob_size, fill->content, chunk->tar_size);
	if (r != -EBADMSG)
		return r;
	r = digest_of(fill->frame, chunk->blob_size, &digest);
	if (r < 0 || digest_equal(&digest, &chunk->digest))
		return r < 0 ? r : -EBADMSG;
	cache_blob_forget(job->blob->cache, number);
	return -ENODATA;
}

/* A chunk from the cache; one that was found rotten is fetched again. */
static int read_chunk(FetchFill *fill, const Job *job, uint32_t number, const Chunk *chunk)
{
	uint32_t size;
	int r = -ENODATA;
	for (unsigned i = 0; r == -ENODATA && i < CHECK_TRIES; i++) {
		r = cache_blob_read(job->blob->cache, number, fill->frame, &size);
		if (r == 0)
			r = decode_chunk(fill, job, number, chunk);
		if (r != -ENODATA)
			return r;
		Piece piece = { .first = number, .count = 1, .size = chunk->blob_size };
		int asked = ask(fill, job, &piece);
		if (asked == 0)
			asked = await(fill, job, 0);
		if (asked < 0)
			return asked;
	}
	return r == -ENODATA ? -ENOSPC : r;
}

/* A copy that cannot be written is done without. */
static void add_to_copy(const FetchFill *fill, CacheDecodedWriter **copy, uint32_t size)
{
	Error error = { 0 };
	if (*copy && cache_decoded_writer_add(*copy, fill->content, size, &error) < 0) {
		*copy = cache_decoded_writer_free(*copy);
		tell(fill, true, &error);
	}
}

/*
 * `copy`, where there is a writer, is given all that is read. Errors: -EBADMSG (another diffID, or what does not decode), -ENOSPC (the cache does not
 * keep it), -ECANCELED, -ENOMEM.
 */
static int check(FetchFill *fill, const Job *job, CacheDecodedWriter **copy)
{
	const ChunkTable *table = cache_blob_table(job->blob->cache);
	_cleanup_(digest_state_free_p) DigestState *state = NULL;
	int r = digest_state_new(&state);
	for (uint32_t i = 0; r == 0 && i < table->count; i++) {
		Chunk chunk;
		chunk_table_get(table, i, &chunk);
		rest(fill, job);
		r = is_over(job) ? -ECANCELED : read_chunk(fill, job, i, &chunk);
		if (r == 0)
			add_to_copy(fill, copy, chunk.tar_size);
		if (r == 0)
			r = digest_state_add(state, fill->content, chunk.tar_size);
	}
	Digest digest;
	if (r == 0)
		r = digest_state_end(state, &digest);
	return r == 0 && !digest_equal(&digest, &job->diff_id) ? -EBADMSG : r;
}

static bool is_complete(const FetchBlob *blob)
{
	uint32_t count = cache_blob_table(blob->cache)->count;
	for (uint32_t i = 0; i < count; i++)
		if (!cache_blob_has(blob->cache, i))
			return false;
	return true;
}

/* A copy that came to be wanted while the job was at work is its next step. */
static void set_state(FetchFill *fill, Job *job, FetchFillState state)
{
	(void)pthread_mutex_lock(&fill->mutex);
	job->state = state == FETCH_FILL_SEALED && job->copy_due ? FETCH_FILL_QUEUED : state;
	(void)pthread_mutex_unlock(&fill->mutex);
}

/*
 * Seals what check() has found right. Who evicts tells nobody: with a quota that the layer does not fit in, what was read first may be gone by now.
 * Errors: -ESTALE (it is), cache_seal_write()'s.
 */
static int seal(const Job *job)
{
	int r = cache_blob_settle(job->blob->cache);
	if (r == 0)
		r = cache_seal_write(job->seal_fd, &job->diff_id);
	/* Writing it can take long. From now on the seal keeps the rest from going. */
	if (r == 0) {
		r = cache_blob_settle(job->blob->cache);
		if (r < 0 && cache_seal_clear(job->seal_fd) < 0)
			return -ESTALE;
	}
	return r == -ENODATA ? -ESTALE : r;
}

/* Where a copy is to be tried; -1: nowhere. */
static int copy_place(FetchFill *fill, const Job *job)
{
	(void)pthread_mutex_lock(&fill->mutex);
	int fd = job->copy_due ? job->copy_fd : -1;
	(void)pthread_mutex_unlock(&fill->mutex);
	return fd;
}

static void note_copy_tried(FetchFill *fill, Job *job)
{
	(void)pthread_mutex_lock(&fill->mutex);
	job->copy_due = false;
	(void)pthread_mutex_unlock(&fill->mutex);
}

/* The blob reads the copy from now on. */
static int use_copy(const Job *job, int fd)
{
	CacheDecoded *copy;
	int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	int r = own < 0 ? -errno
			: cache_decoded_open(own, &job->diff_id, cache_blob_table(job->blob->cache)->tar_size, &copy);
	if (r == 0)
		fetch_blob_set_decoded(job->blob, copy);
	return r;
}

/* A writer for the copy, or NULL: it cannot be made now, or somebody else has made it, or is at it. */
static CacheDecodedWriter *begin_copy(const FetchFill *fill, const Job *job, int fd)
{
	struct statvfs disk;
	CacheDecodedWriter *copy = NULL;
	Error error = { 0 };
	uint64_t spare = fstatvfs(fd, &disk) == 0 ? disk.f_blocks / SPARE * disk.f_frsize : 0;
	int r = cache_decoded_writer_in(fd, &job->diff_id, cache_blob_table(job->blob->cache)->tar_size, spare, &copy,
					&error);
	if (r == -EEXIST)
		(void)use_copy(job, fd);
	else if (r < 0 && r != -EBUSY && r != -ESTALE)
		tell(fill, true, &error);
	return copy;
}

static void end_copy(const FetchFill *fill, const Job *job, int fd, CacheDecodedWriter *copy)
{
	char text[DIGEST_TEXT_SIZE];
	Error error = { 0 };
	int r = cache_decoded_writer_finish(copy, &error);
	if (r == 0 && use_copy(job, fd) == 0) {
		(void)error_set(&error, 0, "decoded copy made layer=%s", digest_text(&job->diff_id, text));
		tell(fill, false, &error);
	} else if (r < 0 && r != -ESTALE) {
		tell(fill, true, &error);
	}
}

static int fetch_what_lacks(FetchFill *fill, Job *job)
{
	int r = cache_seal_clear(job->seal_fd);
	if (r < 0)
		return r;
	set_state(fill, job, FETCH_FILL_FETCHING);
	rest(fill, job);
	return fetch_all(fill, job);
}

/* One try. 1: it was sealed already. Errors: as check()'s. */
static int try(FetchFill *fill, Job *job)
{
	_cleanup_(cache_decoded_writer_free_p) CacheDecodedWriter *copy = NULL;
	int copy_fd = copy_place(fill, job);
	/* Another server may have filled and sealed it meanwhile: its seal is not to be taken back, nor all fetched a second time. */
	cache_blob_look(job->blob->cache);
	bool sealed = is_complete(job->blob) && cache_seal_is_valid(job->seal_fd, &job->diff_id);
	int r = sealed ? 0 : fetch_what_lacks(fill, job);
	if (r == 0 && copy_fd >= 0)
		copy = begin_copy(fill, job, copy_fd);
	if (r == 0 && (!sealed || copy)) {
		set_state(fill, job, FETCH_FILL_CHECKING);
		r = check(fill, job, &copy);
	}
	if (r == 0 && !sealed)
		r = seal(job);
	if (r == 0 && copy)
		end_copy(fill, job, copy_fd, copy);
	if (r == 0 && copy_fd >= 0)
		note_copy_tried(fill, job);
	return r == 0 && sealed ? 1 : r;
}

/* Says what has become of a job, and how it goes on. */
static void settle(FetchFill *fill, Job *job, int r)
{
	char text[DIGEST_TEXT_SIZE];
	Error error = { 0 };
	(void)digest_text(&job->diff_id, text);
	if (r >= 0) {
		set_state(fill, job, FETCH_FILL_SEALED);
		fill->told_full = fill->probing = false;
		(void)error_set(&error, 0, "sealed layer=%s", text);
		if (r == 0)
			tell(fill, false, &error);
	} else if (is_over(job) || r == -EROFS || r == -EIO ||
		   r == -ECANCELED) { /* nothing can be kept, or come, or it is to end */
		set_state(fill, job, FETCH_FILL_NONE);
	} else if (r == -ESTALE) {
		/* Trying again at once would only fetch it again and again. */
		set_state(fill, job, FETCH_FILL_NONE);
		(void)error_set(
			&error, r,
			"layer %s is not sealed: parts of it were evicted while it was filled; give the cache a larger "
			"quota, or pin what is to stay",
			text);
		tell(fill, true, &error);
	} else if (r == -EBADMSG) {
		set_state(fill, job, FETCH_FILL_WRONG);
		(void)error_set(&error, r,
				"layer %s is all here but not what its manifest says: the image was published wrong",
				text);
		tell(fill, true, &error);
	} else {
		set_state(fill, job, FETCH_FILL_FULL);
		if (!fill->told_full) {
			(void)error_set(
				&error, r,
				"the fill waits: the cache does not take more: %s; it goes on when there is room",
				error_text(NULL, r));
			tell(fill, true, &error);
		}
		fill->told_full = fill->probing = true;
		pause_job(fill, job, fill->options.retry);
	}
}

/* The next job in its order, or NULL: there is nothing to do. */
static Job *next_job(const FetchFill *fill)
{
	Job *job = fill->jobs;
	while (job && job->state != FETCH_FILL_QUEUED && job->state != FETCH_FILL_FULL)
		job = job->next;
	return job;
}

static void job_free(Job *job)
{
	close_p(&job->copy_fd);
	close_p(&job->seal_fd);
	free(job);
}

/* It was removed meanwhile. */
static void part_with(Job *job)
{
	FetchFillGone *gone = job->gone;
	void *arg = job->gone_arg;
	job_free(job);
	gone(arg);
}

static void *fill_thread(void *arg)
{
	FetchFill *fill = arg;
	(void)setpriority(PRIO_PROCESS, (id_t)gettid(), NICE);
	(void)pthread_mutex_lock(&fill->mutex);
	while (!fill->stopping) {
		Job *job = next_job(fill);
		if (!job) {
			(void)pthread_cond_wait(&fill->changed, &fill->mutex);
			continue;
		}
		fill->current = job;
		(void)pthread_mutex_unlock(&fill->mutex);
		settle(fill, job, try(fill, job));
		(void)pthread_mutex_lock(&fill->mutex);
		fill->current = NULL;
		if (!job->gone)
			continue;
		(void)pthread_mutex_unlock(&fill->mutex);
		part_with(job);
		(void)pthread_mutex_lock(&fill->mutex);
	}
	(void)pthread_mutex_unlock(&fill->mutex);
	return NULL;
}

static void fill_dispose(FetchFill *fill)
{
	free(fill->frame);
	free(fill->content);
	(void)frame_decoder_free(fill->decoder);
	(void)sem_destroy(&fill->ended);
	(void)pthread_cond_destroy(&fill->changed);
	(void)pthread_mutex_destroy(&fill->mutex);
	free(fill);
}

static int start_thread(FetchFill *fill)
{
	sigset_t all, before;
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before);
	int r = pthread_create(&fill->thread, NULL, fill_thread, fill);
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	return -r;
}

int fetch_fill_new(const FetchFillOptions *options, FetchFill **ret_fill)
{
	FetchFill *fill = calloc(1, sizeof(*fill));
	if (!fill)
		return -ENOMEM;
	deadline_cond_init(&fill->changed);
	(void)pthread_mutex_init(&fill->mutex, NULL);
	(void)sem_init(&fill->ended, 0, 0);
	fill->options = *options;
	atomic_init(&fill->rate, options->rate);
	if (fill->options.retry == 0)
		fill->options.retry = RETRY;
	fill->frame = malloc(FORMAT_FRAME_MAX);
	fill->content = malloc(FORMAT_CHUNK_MAX);
	int r = fill->frame && fill->content ? frame_decoder_new(&fill->decoder) : -ENOMEM;
	if (r == 0)
		r = start_thread(fill);
	if (r < 0) {
		fill_dispose(fill);
		return r;
	}
	*ret_fill = fill;
	return 0;
}

/* Has what a job waits for end. The mutex is held. */
static void drop(FetchFill *fill, Job *job)
{
	atomic_store(&job->dropped, true);
	net_loop_wake(job->blob->fetcher->loop);
	(void)pthread_cond_broadcast(&fill->changed);
}

FetchFill *fetch_fill_free(FetchFill *fill)
{
	if (!fill)
		return NULL;
	(void)pthread_mutex_lock(&fill->mutex);
	fill->stopping = true;
	for (Job *job = fill->jobs; job; job = job->next)
		drop(fill, job);
	(void)pthread_cond_broadcast(&fill->changed);
	(void)pthread_mutex_unlock(&fill->mutex);
	(void)pthread_join(fill->thread, NULL);
	while (fill->jobs) {
		Job *job = fill->jobs;
		fill->jobs = job->next;
		job_free(job);
	}
	fill_dispose(fill);
	return NULL;
}

void fetch_fill_set_rate(FetchFill *fill, uint64_t rate)
{
	atomic_store(&fill->rate, rate);
}

/* The mutex is held. */
static void want_copy(Job *job, int *copy_fd)
{
	if (job->copy_fd >= 0 || *copy_fd < 0)
		return;
	job->copy_fd = TAKE_FD(*copy_fd);
	job->copy_due = true;
	if (job->state == FETCH_FILL_SEALED)
		job->state = FETCH_FILL_QUEUED;
}

int fetch_fill_add(FetchFill *fill, FetchBlob *blob, const Digest *diff_id, int seal_fd, int copy_fd)
{
	_cleanup_close_ int seal = seal_fd, place = copy_fd;
	if (seal < 0)
		return -EBADF;
	Job *job = calloc(1, sizeof(*job));
	if (!job)
		return -ENOMEM;
	job->blob = blob;
	job->diff_id = *diff_id;
	job->seal_fd = TAKE_FD(seal);
	job->copy_fd = TAKE_FD(place);
	job->copy_due = job->copy_fd >= 0;
	job->state = blob->url && cache_blob_writable(blob->cache) ? FETCH_FILL_QUEUED : FETCH_FILL_NONE;
	(void)pthread_mutex_lock(&fill->mutex);
	Job **link = &fill->jobs;
	while (*link && (*link)->blob != blob)
		link = &(*link)->next;
	if (*link)
		want_copy(*link, &job->copy_fd);
	else
		*link = TAKE_PTR(job);
	(void)pthread_cond_broadcast(&fill->changed);
	(void)pthread_mutex_unlock(&fill->mutex);
	if (job)
		job_free(job);
	return 0;
}

void fetch_fill_remove(FetchFill *fill, const FetchBlob *blob, FetchFillGone *gone, void *arg)
{
	(void)pthread_mutex_lock(&fill->mutex);
	Job **link = &fill->jobs;
	while (*link && (*link)->blob != blob)
		link = &(*link)->next;
	Job *job = *link;
	if (job) {
		*link = job->next;
		drop(fill, job);
	}
	bool under_way = job && fill->current == job;
	if (under_way) {
		job->gone = gone;
		job->gone_arg = arg;
	}
	(void)pthread_mutex_unlock(&fill->mutex);
	if (under_way)
		return;
	if (job)
		job_free(job);
	gone(arg);
}

FetchFillState fetch_fill_state(FetchFill *fill, const FetchBlob *blob)
{
	FetchFillState state = FETCH_FILL_NONE;
	(void)pthread_mutex_lock(&fill->mutex);
	for (const Job *job = fill->jobs; job; job = job->next)
		if (job->blob == blob)
			state = job->state;
	(void)pthread_mutex_unlock(&fill->mutex);
	return state;
}

void fetch_blob_present(const FetchBlob *blob, uint64_t *ret_present, uint64_t *ret_total)
{
	const ChunkTable *table = cache_blob_table(blob->cache);
	*ret_present = *ret_total = 0;
	for (uint32_t i = 0; i < table->count; i++) {
		Chunk chunk;
		chunk_table_get(table, i, &chunk);
		*ret_total += chunk.blob_size;
		if (cache_blob_has(blob->cache, i))
			*ret_present += chunk.blob_size;
	}
}
