#include "fs/cache/cache-blob.h"

#include <errno.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#include "fs/base/fd.h"
#include "fs/cache/cache-present.h"

#define USE_INTERVAL 10u /* seconds that a chunk's last use may be behind */

/* The state of a chunk; from TRUSTED on: trusted under the (even) generation state - TRUSTED. */
enum { ABSENT, PRESENT, TRUSTED };

struct CacheBlob {
	const ChunkTable *table;
	int data_fd;
	int present_fd; /* -1: a whole blob, not writable */
	_Atomic uint32_t *states;
	_Atomic uint32_t *used; /* when this process last told the file of a use, in seconds */
};

uint8_t *cache_bits_read(int present_fd, uint32_t count)
{
	size_t size = ((size_t)count + 7) / 8;
	uint8_t *bits = calloc(1, size + 1);
	_unused_ int r = bits ? fd_pread_all(present_fd, bits, size, 0) : -ENOMEM;
	return bits;
}

int64_t cache_bits_used(int present_fd, uint32_t count)
{
	size_t size = (size_t)count * PRESENT_MARK_SIZE;
	_cleanup_free_ uint8_t *marks = malloc(size + 1);
	int64_t latest = 0;
	if (!marks || fd_pread_all(present_fd, marks, size, present_bits_size(count)) < 0)
		return 0;
	for (uint32_t i = 0; i < count; i++) {
		uint32_t used = load_le32(marks + (size_t)i * PRESENT_MARK_SIZE + AT_USED);
		if (used > latest)
			latest = used;
	}
	return latest;
}

static int load_states(CacheBlob *blob)
{
	uint32_t count = blob->table->count;
	if (blob->present_fd < 0) {
		for (uint32_t i = 0; i < count; i++)
			atomic_init(&blob->states[i], PRESENT);
		return 0;
	}
	_cleanup_free_ uint8_t *bits = cache_bits_read(blob->present_fd, count);
	if (!bits)
		return -ENOMEM;
	for (uint32_t i = 0; i < count; i++)
		atomic_init(&blob->states[i], cache_bits_have(bits, i) ? PRESENT : ABSENT);
	return 0;
}

int cache_blob_new(const ChunkTable *table, int data_fd, int present_fd, CacheBlob **ret_blob)
{
	_cleanup_close_ int data = data_fd, present = present_fd;
	_cleanup_(cache_blob_free_p) CacheBlob *blob = calloc(1, sizeof(*blob));
	if (!blob)
		return -ENOMEM;
	blob->table = table;
	blob->data_fd = TAKE_FD(data);
	blob->present_fd = TAKE_FD(present);
	blob->states = calloc((size_t)table->count + 1, sizeof(*blob->states));
	blob->used = calloc((size_t)table->count + 1, sizeof(*blob->used));
	if (!blob->states || !blob->used)
		return -ENOMEM;
	int r = load_states(blob);
	if (r < 0)
		return r;
	*ret_blob = TAKE_PTR(blob);
	return 0;
}

CacheBlob *cache_blob_free(CacheBlob *blob)
{
	if (!blob)
		return NULL;
	close_p(&blob->data_fd);
	close_p(&blob->present_fd);
	free((void *)(uintptr_t)blob->states);
	free((void *)(uintptr_t)blob->used);
	free(blob);
	return NULL;
}

const ChunkTable *cache_blob_table(const CacheBlob *blob)
{
	return blob->table;
}

bool cache_blob_writable(const CacheBlob *blob)
{
	return blob->present_fd >= 0;
}

bool cache_blob_has(const CacheBlob *blob, uint32_t chunk)
{
	return atomic_load_explicit(&blob->states[chunk], memory_order_acquire) != ABSENT;
}

/*
 * Sets or clears a chunk's bit in the file. The byte comes from the file, not from this process's states, so that two writers of one
 * byte, threads or servers, keep each other's bits but for a race that costs a fetch after the next start; a seal needs cache_blob_settle().
 */
static void store_bit(const CacheBlob *blob, uint32_t chunk, bool present)
{
	uint8_t byte = 0, mask = (uint8_t)(1u << (chunk % 8));
	if (fd_pread_all(blob->present_fd, &byte, 1, chunk / 8) < 0)
		byte = 0;
	uint8_t changed = present ? (uint8_t)(byte | mask) : (uint8_t)(byte & ~mask);
	/* A hint that cannot be written is not missed: a bit too few costs a fetch, one too many a failed check. */
	if (changed != byte && fd_pwrite_all(blob->present_fd, &changed, 1, chunk / 8) < 0)
		return;
}

void cache_blob_forget(CacheBlob *blob, uint32_t chunk)
{
	if (!cache_blob_writable(blob)) {
		atomic_store_explicit(&blob->states[chunk], PRESENT, memory_order_release);
		return;
	}
	atomic_store_explicit(&blob->states[chunk], ABSENT, memory_order_release);
	store_bit(blob, chunk, false);
}

/* For whoever evicts: the chunk is in use, and this is where it is. */
static int mark_used(CacheBlob *blob, uint32_t chunk, const Chunk *entry, bool anyhow)
{
	struct timespec now;
	uint8_t mark[PRESENT_MARK_SIZE - AT_USED];
	(void)clock_gettime(CLOCK_REALTIME_COARSE, &now);
	uint32_t seconds = (uint32_t)now.tv_sec,
		 before = atomic_load_explicit(&blob->used[chunk], memory_order_relaxed);
	if (!anyhow && seconds - before < USE_INTERVAL)
		return 0;
	atomic_store_explicit(&blob->used[chunk], seconds, memory_order_relaxed);
	store_le32(mark, seconds);
	store_le64(mark + AT_PLACE - AT_USED, present_place(entry->blob_offset, entry->blob_size));
	return fd_pwrite_all(blob->present_fd, mark, sizeof(mark), present_mark(blob->table->count, chunk) + AT_USED);
}

static uint32_t generation_of(const CacheBlob *blob, uint32_t chunk)
{
	return cache_blob_writable(blob) ? present_generation(blob->present_fd, blob->table->count, chunk) : 0;
}

/* Copies the frame. What cannot be read is not there. */
static int read_frame(CacheBlob *blob, uint32_t chunk, const Chunk *entry, uint8_t *frame)
{
	if (fd_pread_all(blob->data_fd, frame, entry->blob_size, entry->blob_offset) == 0)
		return 0;
	cache_blob_forget(blob, chunk);
	return -ENODATA;
}

/* Reads a chunk that nobody has checked, and trusts it from now on unless a hole was being made meanwhile. */
static int read_untrusted(CacheBlob *blob, uint32_t chunk, const Chunk *entry, uint8_t *frame)
{
	uint32_t generation = generation_of(blob, chunk), state = PRESENT;
	Digest digest;
	if (read_frame(blob, chunk, entry, frame) < 0 || digest_of(frame, entry->blob_size, &digest) < 0)
		return -ENODATA;
	if (!digest_equal(&digest, &entry->digest)) {
		cache_blob_forget(blob, chunk);
		return -ENODATA;
	}
	/* Fails if the chunk was forgotten or written meanwhile; then its new state stands. */
	if (!present_is_odd(generation) && generation_of(blob, chunk) == generation)
		(void)atomic_compare_exchange_strong(&blob->states[chunk], &state, TRUSTED + generation);
	return 0;
}

int cache_blob_read(CacheBlob *blob, uint32_t chunk, uint8_t *frame, uint32_t *ret_size)
{
	Chunk entry;
	chunk_table_get(blob->table, chunk, &entry);
	uint32_t state = atomic_load_explicit(&blob->states[chunk], memory_order_acquire);
	if (state == ABSENT || entry.blob_size > FORMAT_FRAME_MAX)
		return -ENODATA;
	int r = state == PRESENT ? 0 : read_frame(blob, chunk, &entry, frame);
	/* Under another generation than that of its trust it has been evicted; perhaps another process has fetched it again. */
	if (r == 0 && state != PRESENT && generation_of(blob, chunk) != state - TRUSTED) {
		(void)atomic_compare_exchange_strong(&blob->states[chunk], &state, PRESENT);
		state = PRESENT;
	}
	if (r == 0 && state == PRESENT)
		r = read_untrusted(blob, chunk, &entry, frame);
	if (r < 0)
		return r;
	/* A use that cannot be told of makes the chunk go too early at worst. */
	if (cache_blob_writable(blob) && mark_used(blob, chunk, &entry, false) < 0)
		atomic_store_explicit(&blob->used[chunk], 0, memory_order_relaxed);
	*ret_size = entry.blob_size;
	return 0;
}

int cache_blob_check(CacheBlob *blob, uint32_t chunk, uint8_t *frame)
{
	Chunk entry;
	chunk_table_get(blob->table, chunk, &entry);
	if (!cache_blob_has(blob, chunk) || entry.blob_size > FORMAT_FRAME_MAX)
		return -ENODATA;
	return read_untrusted(blob, chunk, &entry, frame);
}

int cache_blob_write(CacheBlob *blob, uint32_t chunk, const uint8_t *frame, uint32_t size)
{
	if (!cache_blob_writable(blob))
		return -EROFS;
	Chunk entry;
	chunk_table_get(blob->table, chunk, &entry);
	if (size != entry.blob_size)
		return -EINVAL;
	uint32_t generation = generation_of(blob, chunk);
	if (present_is_odd(generation))
		return -EBUSY;
	/* The mark first: what no mark tells of is not found when room has to be made. */
	int r = mark_used(blob, chunk, &entry, true);
	if (r == 0)
		r = fd_pwrite_all(blob->data_fd, frame, size, entry.blob_offset);
	if (r < 0)
		return r == -EBADF ? -EROFS : r; /* it could only be opened for reading */
	if (generation_of(blob, chunk) != generation)
		return mark_used(blob, chunk, &entry, true) ?: -EBUSY; /* the first one may have been taken back */
	atomic_store_explicit(&blob->states[chunk], TRUSTED + generation, memory_order_release);
	store_bit(blob, chunk, true);
	return 0;
}

void cache_blob_sync(const CacheBlob *blob)
{
	_unused_ int r = fdatasync(blob->data_fd);
}

void cache_blob_look(CacheBlob *blob)
{
	uint32_t count = blob->table->count;
	_cleanup_free_ uint8_t *bits = cache_blob_writable(blob) ? cache_bits_read(blob->present_fd, count) : NULL;
	for (uint32_t i = 0; bits && i < count; i++) {
		uint32_t absent = ABSENT;
		if (cache_bits_have(bits, i))
			(void)atomic_compare_exchange_strong(&blob->states[i], &absent, PRESENT);
	}
}

/* Is the chunk trusted, and was no hole begun in it since? */
static bool is_held(const CacheBlob *blob, uint32_t chunk)
{
	uint32_t state = atomic_load_explicit(&blob->states[chunk], memory_order_acquire);
	return state >= TRUSTED && generation_of(blob, chunk) == state - TRUSTED;
}

int cache_blob_settle(CacheBlob *blob)
{
	uint32_t count = blob->table->count;
	if (!cache_blob_writable(blob))
		return 0;
	_cleanup_free_ uint8_t *before = cache_bits_read(blob->present_fd, count);
	if (!before)
		return -ENOMEM;
	for (uint32_t i = 0; i < count; i++) {
		if (!is_held(blob, i))
			return -ENODATA;
		if (!cache_bits_have(before, i))
			store_bit(blob, i, true);
	}
	/* The disk may not have taken them, and who evicts may have come meanwhile. */
	_cleanup_free_ uint8_t *after = cache_bits_read(blob->present_fd, count);
	if (!after)
		return -ENOMEM;
	for (uint32_t i = 0; i < count; i++)
		if (!cache_bits_have(after, i))
			return -ENODATA;
	return 0;
}
