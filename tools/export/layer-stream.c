#include "tools/export/layer-stream.h"

#include <fcntl.h>
#include <pthread.h>

#include "fs/base/fd.h"

#define SLOTS 16u /* frames between the two threads */

typedef struct Slot {
	Chunk chunk;
	int result; /* of reading and checking the frame */
	uint8_t frame[FORMAT_FRAME_MAX];
} Slot;

/*
 * A ring with one thread at each end. A slot belongs to the reading thread from the moment `taken` has passed it until it counts it in
 * `filled`, to the other one otherwise. The lock guards the counts and `stop` alone.
 */
typedef struct Ring {
	const LayerReader *reader;
	bool whole_blob;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	uint32_t filled; /* slots put in, ever */
	uint32_t taken;  /* slots given back, ever */
	bool stop;       /* nobody wants more */
	Slot *slots;

	/* The reading thread's, and anybody's once it was joined. */
	DigestState *state;
	Digest blob;
	int result; /* of all but chunks: of what follows them, and of memory */
} Ring;

/* Waits for a free slot; NULL when nobody wants more. */
static Slot *next_free(Ring *ring)
{
	(void)pthread_mutex_lock(&ring->lock);
	while (ring->filled - ring->taken == SLOTS && !ring->stop)
		(void)pthread_cond_wait(&ring->changed, &ring->lock);
	Slot *slot = ring->stop ? NULL : &ring->slots[ring->filled % SLOTS];
	(void)pthread_mutex_unlock(&ring->lock);
	return slot;
}

static void put(Ring *ring)
{
	(void)pthread_mutex_lock(&ring->lock);
	ring->filled++;
	(void)pthread_cond_signal(&ring->changed);
	(void)pthread_mutex_unlock(&ring->lock);
}

/* The next slot put in; all chunks come, whatever their result. */
static Slot *next_filled(Ring *ring)
{
	(void)pthread_mutex_lock(&ring->lock);
	while (ring->filled == ring->taken)
		(void)pthread_cond_wait(&ring->changed, &ring->lock);
	Slot *slot = &ring->slots[ring->taken % SLOTS];
	(void)pthread_mutex_unlock(&ring->lock);
	return slot;
}

static void give_back(Ring *ring)
{
	(void)pthread_mutex_lock(&ring->lock);
	ring->taken++;
	(void)pthread_cond_signal(&ring->changed);
	(void)pthread_mutex_unlock(&ring->lock);
}

static void stop(Ring *ring)
{
	(void)pthread_mutex_lock(&ring->lock);
	ring->stop = true;
	(void)pthread_cond_signal(&ring->changed);
	(void)pthread_mutex_unlock(&ring->lock);
}

static void fill(Ring *ring, Slot *slot, uint32_t number)
{
	chunk_table_get(&ring->reader->chunks, number, &slot->chunk);
	slot->result = fd_pread_all(ring->reader->fd, slot->frame, slot->chunk.blob_size, slot->chunk.blob_offset);
	if (slot->result < 0) {
		if (ring->result == 0)
			ring->result = slot->result;
		return;
	}
	if (ring->whole_blob) {
		int r = digest_state_add(ring->state, slot->frame, slot->chunk.blob_size);
		if (ring->result == 0)
			ring->result = r;
	}
	slot->result = layer_frame_check(&slot->chunk, slot->frame);
}

/* Index and footer, for the blob's digest. */
static int read_rest(Ring *ring)
{
	uint8_t *buffer = ring->slots[0].frame;
	uint64_t offset = ring->reader->layer.index_offset, end = ring->reader->layer.blob_size;
	while (offset < end) {
		size_t size = end - offset < FORMAT_CHUNK_MAX ? (size_t)(end - offset) : FORMAT_CHUNK_MAX;
		int r = fd_pread_all(ring->reader->fd, buffer, size, offset);
		if (r == 0)
			r = digest_state_add(ring->state, buffer, size);
		if (r < 0)
			return r;
		offset += size;
	}
	return digest_state_end(ring->state, &ring->blob);
}

static void *read_chunks(void *arg)
{
	Ring *ring = arg;
	for (uint32_t i = 0; i < ring->reader->chunks.count; i++) {
		Slot *slot = next_free(ring);
		if (!slot)
			return NULL;
		fill(ring, slot, i);
		put(ring);
	}
	return NULL;
}

/* The end that decodes. */
typedef struct Decoding {
	const LayerReader *reader;
	const LayerStreamHooks *hooks;
	FrameDecoder *decoder;
	DigestState *state;
	uint8_t *content;
	uint32_t faults;
} Decoding;

static int hand_out(Decoding *decoding, const Chunk *chunk, Error *error)
{
	const LayerStreamHooks *hooks = decoding->hooks;
	int r = digest_state_add(decoding->state, decoding->content, chunk->tar_size);
	if (r < 0)
		return error_set(error, r, "out of memory for a digest");
	return hooks->content ? hooks->content(hooks->arg, decoding->content, chunk->tar_size, error) : 0;
}

static int use_slot(Decoding *decoding, const Slot *slot, uint32_t number, Error *error)
{
	const LayerStreamHooks *hooks = decoding->hooks;
	const Chunk *chunk = &slot->chunk;
	const char *what = "the SHA-256 of its frame is another";
	int r = slot->result;
	if (r < 0 && r != -EBADMSG)
		what = error_text(NULL, r);
	if (r == 0) {
		what = "its frame cannot be decoded";
		r = frame_decode(decoding->decoder, slot->frame, chunk->blob_size, decoding->content, chunk->tar_size);
	}
	if (r == 0)
		return hand_out(decoding, chunk, error);
	if (r == -ENOMEM || !hooks->fault)
		return layer_chunk_error(decoding->reader, number, r, what, error);
	decoding->faults++;
	hooks->fault(hooks->arg, number, chunk, what);
	return 0;
}

static int use_chunks(Decoding *decoding, Ring *ring, Error *error)
{
	const LayerStreamHooks *hooks = decoding->hooks;
	int r = 0;
	for (uint32_t i = 0; i < ring->reader->chunks.count && r == 0; i++) {
		const Slot *slot = next_filled(ring);
		uint64_t size = slot->chunk.blob_size;
		r = use_slot(decoding, slot, i, error);
		give_back(ring);
		if (hooks->progress)
			hooks->progress(hooks->arg, size);
	}
	return r;
}

static int run(Ring *ring, Decoding *decoding, Error *error)
{
	pthread_t thread;
	int r = -pthread_create(&thread, NULL, read_chunks, ring);
	if (r < 0)
		return error_set(error, r, "no thread to read a layer with: %s", error_text(NULL, r));
	r = use_chunks(decoding, ring, error);
	stop(ring);
	(void)pthread_join(thread, NULL);
	if (r == 0 && ring->whole_blob && ring->result == 0)
		ring->result = read_rest(ring);
	if (r == 0 && ring->result < 0 && decoding->faults == 0)
		return error_set(error, ring->result, "its end cannot be read: %s", error_text(NULL, ring->result));
	return r;
}

int layer_stream(const LayerReader *reader, const LayerStreamHooks *hooks, bool whole_blob,
		 LayerStreamResult *ret_result, Error *error)
{
	Ring ring = { .reader = reader,
		      .whole_blob = whole_blob,
		      .lock = PTHREAD_MUTEX_INITIALIZER,
		      .changed = PTHREAD_COND_INITIALIZER };
	_cleanup_free_ Slot *slots = malloc(SLOTS * sizeof(*slots));
	_cleanup_free_ uint8_t *content = malloc(FORMAT_CHUNK_MAX);
	_cleanup_(digest_state_free_p) DigestState *blob_state = NULL;
	_cleanup_(digest_state_free_p) DigestState *tar_state = NULL;
	LayerStreamResult result = { 0 };
	if (!slots || !content || digest_state_new(&blob_state) < 0 || digest_state_new(&tar_state) < 0)
		return error_set(error, -ENOMEM, "out of memory to read a layer");
	ring.slots = slots;
	ring.state = blob_state;
	Decoding decoding = {
		.reader = reader, .hooks = hooks, .decoder = reader->decoder, .state = tar_state, .content = content
	};
	(void)posix_fadvise(reader->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
	int r = run(&ring, &decoding, error);
	if (r == 0)
		r = digest_state_end(tar_state, &result.tar);
	if (r < 0)
		return r;
	result.blob = ring.blob;
	result.faults = decoding.faults;
	*ret_result = result;
	return 0;
}

int layer_stream_exact(const LayerReader *reader, const LayerStreamHooks *hooks, Error *error)
{
	char text[DIGEST_TEXT_SIZE];
	LayerStreamResult result;
	int r = layer_stream(reader, hooks, false, &result, error);
	if (r == 0 && !digest_equal(&result.tar, &reader->layer.diff_id))
		return error_set(error, -EKEYREJECTED,
				 "blob %s does not hold the layer it should: the tar's SHA-256 is another; export the "
				 "image again with --verify",
				 digest_text(&reader->layer.blob, text));
	return r;
}
