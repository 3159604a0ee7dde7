#include "fs/fetch/fetch-pull.h"

#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <string.h>
#include <unistd.h>

#include "fs/base/deadline.h"
#include "fs/base/fd.h"
#include "fs/fetch/fetch-donors.h"
#include "fs/fetch/fetch-private.h"
#include "fs/fetch/fetch-twins.h"

#define WORKERS    8u
#define PIECE_MAX  (2u << 20) /* what a worker asks for at once; the fetcher joins neighbours */
#define VERIFY_MAX (1u << 20)

#define GIVEN_UP_MS 200 /* between two questions whether anybody still wants it */

typedef struct PullLayer {
	FdMap map;
	Image index;
	ChunkTable table;
	FetchBlob *blob;
} PullLayer;

typedef struct Pull {
	const FetchImage *image;
	const FetchPullOptions *options;
	Fetcher *fetcher;
	FetchDonors *donors;
	PullLayer *layers;

	void *(*work)(void *arg); /* of each thread */

	pthread_mutex_t mutex; /* of all below */
	pthread_cond_t ended;  /* one thread more has */
	unsigned running;      /* threads */
	size_t layer;          /* where the next piece begins */
	uint32_t chunk;
	uint64_t done;
	Error error; /* the first one */
} Pull;

static int open_index(const FetchImage *image, size_t number, PullLayer *layer, Error *error)
{
	int r = fd_load(image->layers[number].index_fd, &layer->map);
	if (r < 0)
		return error_set(error, r, "cannot read an index in the cache: %s", error_text(NULL, r));
	r = image_open(layer->map.data, layer->map.size, &layer->index, error);
	return r < 0 ? r : chunk_table_open(&layer->index, &layer->table, error);
}

static int open_blob(Pull *pull, size_t number)
{
	const FetchLayerFiles *files = &pull->image->layers[number];
	PullLayer *layer = &pull->layers[number];
	int data = fcntl(files->data_fd, F_DUPFD_CLOEXEC, 0);
	int present = files->present_fd < 0 ? -1 : fcntl(files->present_fd, F_DUPFD_CLOEXEC, 0);
	CacheBlob *cache;
	int r = cache_blob_new(&layer->table, data, present, &cache);
	if (r == 0)
		r = fetcher_add_blob(pull->fetcher, cache, files->url, &layer->blob);
	if (r == 0 && files->twins_fd >= 0)
		r = fetch_blob_set_twins(layer->blob, pull->donors, files->twins_fd);
	return r;
}

static int open_donors(Pull *pull)
{
	const FetchImage *image = pull->image;
	int fds[FETCH_DONORS_MAX];
	for (size_t i = 0; i < image->donor_count; i++)
		fds[i] = fcntl(image->donor_fds[i], F_DUPFD_CLOEXEC, 0);
	int r = fetch_donors_new(fds, image->donor_count, &pull->donors);
	for (size_t i = 0; r < 0 && i < image->donor_count; i++)
		close_p(&fds[i]);
	return r;
}

static int pull_open(Pull *pull, const FetchImage *image, const FetchPullOptions *options, Error *error)
{
	*pull = (Pull){ .image = image, .options = options };
	(void)pthread_mutex_init(&pull->mutex, NULL);
	deadline_cond_init(&pull->ended);
	FetcherOptions fetcher = { .access = image->access, .report = options->report, .report_arg = options->arg };
	pull->layers = calloc(image->layer_count + 1, sizeof(*pull->layers));
	int r = pull->layers ? fetcher_new(&fetcher, &pull->fetcher) : -ENOMEM;
	if (r == 0)
		r = open_donors(pull);
	if (r < 0)
		return error_set(error, r, "cannot prepare fetching: %s", error_text(NULL, r));
	for (size_t i = 0; i < image->layer_count; i++) {
		r = open_index(image, i, &pull->layers[i], error);
		if (r < 0)
			return r;
		r = open_blob(pull, i);
		if (r < 0)
			return error_set(error, r, "cannot use a blob of the cache: %s", error_text(NULL, r));
	}
	return 0;
}

static void pull_close(Pull *pull)
{
	(void)fetcher_free(pull->fetcher);
	(void)fetch_donors_unref(pull->donors);
	for (size_t i = 0; pull->layers && i < pull->image->layer_count; i++)
		fd_unmap(&pull->layers[i].map);
	free(pull->layers);
	(void)pthread_cond_destroy(&pull->ended);
	(void)pthread_mutex_destroy(&pull->mutex);
}

static bool has_twin(const FetchBlob *blob, uint32_t chunk)
{
	return blob->twins && atomic_load_explicit(&blob->twins[chunk], memory_order_relaxed) != 0;
}

static void count_layer(const PullLayer *layer, FetchPlan *plan)
{
	for (uint32_t i = 0; i < layer->table.count; i++) {
		Chunk chunk;
		chunk_table_get(&layer->table, i, &chunk);
		plan->total += chunk.blob_size;
		if (cache_blob_has(layer->blob->cache, i))
			plan->present += chunk.blob_size;
		else if (has_twin(layer->blob, i))
			plan->copied += chunk.blob_size;
		else
			plan->missing += chunk.blob_size;
	}
}

int fetch_pull_plan(const FetchImage *image, FetchPlan *ret_plan, Error *error)
{
	Pull pull;
	FetchPlan plan = { 0 };
	int r = pull_open(&pull, image, &(FetchPullOptions){ 0 }, error);
	for (size_t i = 0; r == 0 && i < image->layer_count; i++)
		count_layer(&pull.layers[i], &plan);
	pull_close(&pull);
	if (r == 0)
		*ret_plan = plan;
	return r;
}

/* A run of chunks of one layer. */
typedef struct Piece {
	PullLayer *layer;
	uint32_t first, last;
	uint64_t tar_offset, tar_size, blob_size;
} Piece;

/* Takes the next piece. False: there is none, or something has failed. */
static bool take_piece(Pull *pull, Piece *piece)
{
	*piece = (Piece){ 0 };
	(void)pthread_mutex_lock(&pull->mutex);
	while (pull->layer < pull->image->layer_count && pull->chunk == pull->layers[pull->layer].table.count) {
		pull->layer++;
		pull->chunk = 0;
	}
	if (pull->error.code == 0 && pull->layer < pull->image->layer_count) {
		piece->layer = &pull->layers[pull->layer];
		piece->first = pull->chunk;
		while (pull->chunk < piece->layer->table.count && piece->blob_size < PIECE_MAX) {
			Chunk chunk;
			chunk_table_get(&piece->layer->table, pull->chunk, &chunk);
			if (piece->tar_size == 0)
				piece->tar_offset = chunk.tar_offset;
			piece->tar_size += chunk.tar_size;
			piece->blob_size += chunk.blob_size;
			piece->last = pull->chunk++;
		}
	}
	(void)pthread_mutex_unlock(&pull->mutex);
	return piece->layer != NULL;
}

static void note_failure(Pull *pull, const Error *error)
{
	(void)pthread_mutex_lock(&pull->mutex);
	if (pull->error.code == 0)
		pull->error = *error;
	(void)pthread_mutex_unlock(&pull->mutex);
}

/* Returns 0, or what makes going on useless. */
static int note_progress(Pull *pull, uint64_t bytes)
{
	(void)pthread_mutex_lock(&pull->mutex);
	pull->done += bytes;
	if (pull->options->progress)
		pull->options->progress(pull->options->arg, pull->done);
	int r = pull->error.code;
	(void)pthread_mutex_unlock(&pull->mutex);
	return r;
}

typedef struct Waiting {
	sem_t ended;
	int result;
} Waiting;

static void on_done(void *arg, int result)
{
	Waiting *waiting = arg;
	waiting->result = result;
	(void)sem_post(&waiting->ended);
}

/* Does something come, and is it right? The link may be slow, and others wait for it too; but a source may be corrupt as well. */
static bool goes_on(Pull *pull, const FetchCounters *before)
{
	FetchCounters now;
	fetcher_counters(pull->fetcher, &now);
	return now.chunks != before->chunks ||
	       (now.bytes != before->bytes && now.verify_failures == before->verify_failures);
}

/* Waits for a part of a layer's tar, for as long as anything comes. */
static int await(Pull *pull, FetchBlob *blob, uint64_t tar_offset, uint64_t size, Error *error)
{
	FetchCounters before;
	Waiting waiting = { 0 };
	(void)sem_init(&waiting.ended, 0, 0);
	int r;
	do {
		FetchWait *wait;
		fetcher_counters(pull->fetcher, &before);
		r = fetch_wait(blob, tar_offset, size, fetch_now() + pull->options->timeout, on_done, &waiting, &wait);
		if (r == 0) {
			while (sem_wait(&waiting.ended) < 0 && errno == EINTR)
				;
			r = waiting.result;
		}
	} while (r == -ETIMEDOUT && goes_on(pull, &before));
	(void)sem_destroy(&waiting.ended);
	if (r == -ETIMEDOUT)
		return error_set(error, r, "%s gave nothing of use within %lld s; what has come is kept, try again",
				 blob->url, (long long)pull->options->timeout / 1000);
	return r < 0 ? error_set(error, r, "%s: %s", blob->url ?: "the store", error_text(NULL, r)) : 0;
}

static int fill_piece(Pull *pull, const Piece *piece, uint8_t *frame, Error *error)
{
	FetchBlob *blob = piece->layer->blob;
	bool complete = true;
	for (uint32_t i = piece->first; i <= piece->last; i++)
		complete &= fetch_at_hand(blob, i) || fetch_donor_copy(blob, i, frame);
	int r = complete ? 0 : await(pull, blob, piece->tar_offset, piece->tar_size, error);
	for (uint32_t i = piece->first; r == 0 && i <= piece->last; i++)
		if (!cache_blob_has(blob->cache, i))
			r = error_set(error, -EIO, "the cache does not keep what it is given; is its disk full?");
	return r;
}

static void *worker(void *arg)
{
	Pull *pull = arg;
	Piece piece;
	Error error = { 0 };
	uint8_t *frame = malloc(FORMAT_FRAME_MAX);
	if (!frame) {
		(void)error_set(&error, -ENOMEM, "out of memory");
		note_failure(pull, &error);
	}
	while (frame && take_piece(pull, &piece)) {
		if (fill_piece(pull, &piece, frame, &error) < 0)
			note_failure(pull, &error);
		else
			(void)note_progress(pull, piece.blob_size);
	}
	free(frame);
	return NULL;
}

static void *thread(void *arg)
{
	Pull *pull = arg;
	(void)pull->work(pull);
	(void)pthread_mutex_lock(&pull->mutex);
	pull->running--;
	(void)pthread_cond_signal(&pull->ended);
	(void)pthread_mutex_unlock(&pull->mutex);
	return NULL;
}

/* Waits a moment, or until a thread has ended. Returns whether any runs. */
static bool some_run(Pull *pull)
{
	struct timespec until = deadline_in(GIVEN_UP_MS);
	(void)pthread_mutex_lock(&pull->mutex);
	if (pull->running > 0)
		(void)pthread_cond_timedwait(&pull->ended, &pull->mutex, &until);
	bool some = pull->running > 0;
	(void)pthread_mutex_unlock(&pull->mutex);
	return some;
}

/* Until nothing is left to do, or nobody wants it any more: then those that wait for the source are woken, and nothing new is begun. */
static void watch(Pull *pull)
{
	const FetchPullOptions *options = pull->options;
	while (options->given_up && some_run(pull)) {
		Error error = { 0 };
		if (!options->given_up(options->arg))
			continue;
		(void)error_set(&error, -ECANCELED, "given up: nobody waits for it any more; what has come is kept");
		note_failure(pull, &error);
		fetcher_stop(pull->fetcher);
		return;
	}
}

/* Runs `work` in some threads to its end. */
static int run_threads(Pull *pull, unsigned count)
{
	pthread_t threads[WORKERS];
	unsigned started = 0;
	int r = 0;
	while (r == 0 && started < count) {
		(void)pthread_mutex_lock(&pull->mutex);
		pull->running++;
		(void)pthread_mutex_unlock(&pull->mutex);
		r = -pthread_create(&threads[started], NULL, thread, pull);
		started += r == 0;
	}
	(void)pthread_mutex_lock(&pull->mutex);
	pull->running -= r < 0;
	(void)pthread_mutex_unlock(&pull->mutex);
	watch(pull);
	/* Those that did start can do it all. */
	for (unsigned i = 0; i < started; i++)
		(void)pthread_join(threads[i], NULL);
	return started > 0 ? 0 : r;
}

static int run(const FetchImage *image, const FetchPullOptions *options, unsigned count, void *(*work)(void *),
	       Error *error)
{
	Pull pull;
	int r = pull_open(&pull, image, options, error);
	if (r == 0) {
		pull.work = work;
		r = fetcher_start(pull.fetcher);
		if (r == 0)
			r = run_threads(&pull, count);
		if (r < 0)
			(void)error_set(error, r, "cannot start threads: %s", error_text(NULL, r));
	}
	if (r == 0 && pull.error.code < 0) {
		r = pull.error.code;
		if (error)
			*error = pull.error;
	}
	pull_close(&pull);
	return r;
}

int fetch_pull(const FetchImage *image, const FetchPullOptions *options, Error *error)
{
	return run(image, options, WORKERS, worker, error);
}

/* The next layer to verify, or NULL. */
static PullLayer *take_layer(Pull *pull, size_t *ret_number)
{
	(void)pthread_mutex_lock(&pull->mutex);
	PullLayer *layer = NULL;
	if (pull->error.code == 0 && pull->layer < pull->image->layer_count) {
		*ret_number = pull->layer;
		layer = &pull->layers[pull->layer++];
	}
	(void)pthread_mutex_unlock(&pull->mutex);
	return layer;
}

/* Reads a part of the tar. A frame that is rotten is found by a read of its own, and fetched again, once. */
static int read_part(Pull *pull, PullLayer *layer, FetchReader *reader, uint64_t offset, uint64_t size, uint8_t *to,
		     Error *error)
{
	uint32_t chunks =
		chunk_table_find(&layer->table, offset + size - 1) - chunk_table_find(&layer->table, offset) + 1;
	for (uint32_t turn = 0;; turn++) {
		int r = fetch_read(layer->blob, reader, offset, size, to);
		if (r != -EAGAIN || turn == chunks + 1)
			return r < 0 ? error_set(error, r == -EAGAIN ? -EIO : r,
						 "the cache gives other bytes than it was given")
				     : 0;
		r = await(pull, layer->blob, offset, size, error);
		if (r < 0)
			return r;
	}
}

/* `writer` (or NULL) is given all that is read. */
static int digest_layer(Pull *pull, PullLayer *layer, FetchReader *reader, uint8_t *part, CacheDecodedWriter *writer,
			Digest *ret_digest, Error *error)
{
	_cleanup_(digest_state_free_p) DigestState *state = NULL;
	int r = digest_state_new(&state);
	for (uint64_t at = 0; r == 0 && at < layer->table.tar_size; at += VERIFY_MAX) {
		uint64_t size = layer->table.tar_size - at < VERIFY_MAX ? layer->table.tar_size - at : VERIFY_MAX;
		r = read_part(pull, layer, reader, at, size, part, error);
		if (r == 0 && writer)
			r = cache_decoded_writer_add(writer, part, size, error);
		int over = r < 0 ? r : note_progress(pull, size);
		if (over < 0)
			return over;
		r = digest_state_add(state, part, size);
	}
	if (r == 0)
		r = digest_state_end(state, ret_digest);
	return r < 0 ? error_set(error, r, "out of memory") : 0;
}

/* Is there a decoded copy already, of which every page is right? */
static bool has_copy(const FetchLayerFiles *files)
{
	_cleanup_(cache_decoded_free_p) CacheDecoded *copy = NULL;
	int fd = files->decoded_fd < 0 ? -1 : fcntl(files->decoded_fd, F_DUPFD_CLOEXEC, 0);
	return fd >= 0 && cache_decoded_open(fd, &files->layer.diff_id, files->layer.tar_size, &copy) == 0 &&
	       cache_decoded_check(copy) == 0;
}

static int verify_layer(Pull *pull, PullLayer *layer, size_t number, FetchReader *reader, uint8_t *part, Error *error)
{
	const ManifestLayer *named = &pull->image->layers[number].layer;
	char text[DIGEST_TEXT_SIZE], got[DIGEST_TEXT_SIZE];
	Digest digest;
	_cleanup_(cache_decoded_writer_free_p) CacheDecodedWriter *writer = NULL;
	CacheStore *store = pull->options->decoded;
	int r = 0;
	if (store && !has_copy(&pull->image->layers[number]))
		r = cache_decoded_writer_new(store, &named->diff_id, named->tar_size, &writer, error);
	if (r < 0)
		return r;
	r = digest_layer(pull, layer, reader, part, writer, &digest, error);
	if (r < 0)
		return error_prefix(error, r, "layer %s", digest_text(&named->diff_id, text));
	if (!digest_equal(&digest, &named->diff_id))
		return error_set(error, -EBADMSG, "layer %s has the digest %s: the image was published wrong",
				 digest_text(&named->diff_id, text), digest_text(&digest, got));
	/* Evicted meanwhile, or not kept by a full disk: what was read then came from memory. */
	r = cache_blob_settle(layer->blob->cache);
	if (r < 0)
		return error_set(
			error, r == -ENODATA ? -EIO : r,
			"layer %s is right, but the cache has not kept all of it; make room, or `imgfs cache pin` the "
			"image first",
			digest_text(&named->diff_id, text));
	return writer ? cache_decoded_writer_finish(writer, error) : 0;
}

static void *verifier(void *arg)
{
	Pull *pull = arg;
	Error error = { 0 };
	FetchReader *reader = NULL;
	uint8_t *part = malloc(VERIFY_MAX);
	size_t number = 0;
	if (!part || fetch_reader_new(&reader) < 0) {
		(void)error_set(&error, -ENOMEM, "out of memory");
		note_failure(pull, &error);
	} else {
		for (PullLayer *layer; (layer = take_layer(pull, &number));)
			if (verify_layer(pull, layer, number, reader, part, &error) < 0)
				note_failure(pull, &error);
	}
	free(part);
	(void)fetch_reader_free(reader);
	return NULL;
}

int fetch_pull_verify(const FetchImage *image, const FetchPullOptions *options, Error *error)
{
	long processors = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned count = processors < 1 ? 1 : processors > (long)WORKERS ? WORKERS : (unsigned)processors;
	int r = run(image, options, count, verifier, error);
	/* Manifest, indexes, view and tag as well, which are written without fsync. */
	if (r == 0 && syncfs(image->layers[0].index_fd) < 0)
		r = error_set(error, -errno, "the cache cannot be written to the disk: %s", strerror(errno));
	return r;
}
