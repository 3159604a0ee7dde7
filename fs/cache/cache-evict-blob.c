#include "fs/cache/cache-evict-blob.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/cache/cache-blob.h"
#include "fs/cache/cache-present.h"
#include "fs/cache/cache-private.h"
#include "fs/cache/cache-seal.h"

#define GRACE 2u /* seconds: somebody may be waiting for what was fetched just now, and has not read it yet */

/* Of a file of that size; UINT32_MAX: no number of chunks makes one. */
static uint32_t count_of(uint64_t size)
{
	uint64_t count = size / PRESENT_MARK_SIZE;
	while (count > 0 && present_size((uint32_t)count) > size)
		count--;
	return count < UINT32_MAX && present_size((uint32_t)count) == size ? (uint32_t)count : UINT32_MAX;
}

static int open_file(CacheStore *store, const Digest *digest, const char *name, int *ret_fd, struct stat *ret_status)
{
	char hex[DIGEST_HEX_SIZE], path[sizeof("blobs//present") + DIGEST_HEX_SIZE];
	(void)snprintf(path, sizeof(path), "blobs/%s/%s", digest_hex(digest, hex), name);
	_cleanup_close_ int fd = openat(store->dirfd, path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 || fstat(fd, ret_status) < 0)
		return -errno;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int cache_evict_blob_open(CacheStore *store, const Digest *digest, CacheEvictBlob *ret_blob)
{
	_cleanup_close_ int data = -1, present = -1;
	struct stat data_status, present_status;
	int r = open_file(store, digest, "data", &data, &data_status);
	if (r == 0)
		r = open_file(store, digest, "present", &present, &present_status);
	if (r < 0)
		return r;
	*ret_blob = (CacheEvictBlob){
		.store = store,
		.digest = *digest,
		.count = count_of((uint64_t)present_status.st_size),
		.size = (uint64_t)data_status.st_size,
		.bytes = (uint64_t)(data_status.st_blocks + present_status.st_blocks) * 512,
	};
	ret_blob->data_fd = TAKE_FD(data);
	ret_blob->present_fd = TAKE_FD(present);
	return 0;
}

void cache_evict_blob_close(CacheEvictBlob *blob)
{
	close_p(&blob->data_fd);
	close_p(&blob->present_fd);
	*blob = (CacheEvictBlob){ .data_fd = -1, .present_fd = -1 };
}

int cache_victims_add(CacheVictims *victims, const CacheVictim *victim)
{
	if (victims->count == victims->room) {
		size_t room = 2 * victims->room + 1024;
		CacheVictim *larger = reallocarray(victims->victims, room, sizeof(*larger));
		if (!larger)
			return -ENOMEM;
		victims->victims = larger;
		victims->room = room;
	}
	victims->victims[victims->count++] = *victim;
	return 0;
}

static int punch(int fd, uint64_t offset, uint64_t size)
{
	if (size == 0)
		return 0;
	return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)size) < 0 ? -errno : 0;
}

/* Makes the generations of a run odd, and its chunks unused: who writes one meanwhile, or later, says when that was. */
static int begin(const CacheEvictBlob *blob, uint32_t first, uint32_t last)
{
	int r = 0;
	for (uint32_t chunk = first; r == 0 && chunk <= last; chunk++) {
		uint8_t mark[AT_PLACE] = { 0 };
		store_le32(mark, present_generation(blob->present_fd, blob->count, chunk) | 1);
		r = fd_pwrite_all(blob->present_fd, mark, sizeof(mark), present_mark(blob->count, chunk));
	}
	return r;
}

static int end(const CacheEvictBlob *blob, uint32_t first, uint32_t last)
{
	int r = 0;
	for (uint32_t chunk = first; r == 0 && chunk <= last; chunk++) {
		uint8_t generation[4];
		store_le32(generation, (present_generation(blob->present_fd, blob->count, chunk) | 1) + 1);
		r = fd_pwrite_all(blob->present_fd, generation, sizeof(generation), present_mark(blob->count, chunk));
	}
	return r;
}

/* What is said of a run of chunks before it is evicted: the bytes of the bitmap that have its bits, and its marks. */
typedef struct Before {
	uint8_t *bits, *marks;
} Before;

static void before_done(Before *before)
{
	free(before->bits);
	free(before->marks);
}

static uint32_t bits_size(uint32_t first, uint32_t last)
{
	return last / 8 - first / 8 + 1;
}

static int note_before(const CacheEvictBlob *blob, uint32_t first, uint32_t last, Before *before)
{
	size_t size = (size_t)(last - first + 1) * PRESENT_MARK_SIZE;
	before->bits = malloc(bits_size(first, last));
	before->marks = malloc(size);
	if (!before->bits || !before->marks)
		return -ENOMEM;
	int r = fd_pread_all(blob->present_fd, before->bits, bits_size(first, last), first / 8);
	return r < 0 ? r : fd_pread_all(blob->present_fd, before->marks, size, present_mark(blob->count, first));
}

static int clear_bits(const CacheEvictBlob *blob, uint32_t first, uint32_t last, const Before *before)
{
	uint32_t from = first / 8, size = bits_size(first, last);
	_cleanup_free_ uint8_t *bits = malloc(size);
	if (!bits)
		return -ENOMEM;
	memcpy(bits, before->bits, size);
	for (uint32_t chunk = first; chunk <= last; chunk++)
		bits[chunk / 8 - from] &= (uint8_t) ~(1u << (chunk % 8));
	return fd_pwrite_all(blob->present_fd, bits, size, from);
}

/* No hole was made: the chunks are there and as old as they were. Who trusted them checks them once more. */
static int take_back(const CacheEvictBlob *blob, uint32_t first, uint32_t last, const Before *before)
{
	int r = end(blob, first, last);
	for (uint32_t chunk = first; r == 0 && chunk <= last; chunk++) {
		const uint8_t *mark = before->marks + (size_t)(chunk - first) * PRESENT_MARK_SIZE;
		r = fd_pwrite_all(blob->present_fd, mark + AT_USED, AT_PLACE - AT_USED,
				  present_mark(blob->count, chunk) + AT_USED);
	}
	return r < 0 ? r : fd_pwrite_all(blob->present_fd, before->bits, bits_size(first, last), first / 8);
}

/*
 * The order is what cache-present.h promises. A run that was begun and not ended is never trusted, nor written to. Who seals a blob looks at the bits once the
 * seal is written, this looks for a seal once the bits are cleared: so one of the two finds the other, and no hole comes into what is sealed. 1: it is
 * sealed, and stays; but what had been `begun` has gone already, in whole or in part.
 */
static int punch_run(const CacheEvictBlob *blob, uint32_t first, uint32_t last, uint64_t offset, uint64_t size,
		     bool begun)
{
	_cleanup_(before_done) Before before = { 0 };
	int r = note_before(blob, first, last, &before);
	if (r == 0)
		r = begin(blob, first, last);
	if (r == 0)
		r = clear_bits(blob, first, last, &before);
	if (r == 0 && !begun && cache_seal_is_written(blob->store, &blob->digest))
		return take_back(blob, first, last, &before) ?: 1;
	if (r == 0)
		r = punch(blob->data_fd, offset, size);
	return r == 0 || r == -EOPNOTSUPP ? (end(blob, first, last) ?: r) : r;
}

int cache_evict_blob_punch(CacheEvictBlob *blob, const CacheVictim *victims, size_t count, size_t *ret_evicted)
{
	int r = 0;
	*ret_evicted = 0;
	for (size_t i = 0, next; r == 0 && i < count; i = next) {
		uint32_t first = victims[i].chunk, last;
		uint64_t offset = victims[i].offset, size = victims[i].size;
		next = i + 1;
		while (next < count && victims[next].chunk == victims[next - 1].chunk + 1 &&
		       victims[next].offset == offset + size)
			size += victims[next++].size;
		last = victims[next - 1].chunk;
		if (first == CACHE_VICTIM_ALL) {
			if (blob->count == 0)
				return 0;
			first = 0;
			last = blob->count - 1;
			offset = 0;
			size = blob->size;
			next = count;
		}
		r = punch_run(blob, first, last, offset, size, false);
		if (r == 0)
			*ret_evicted += next - i;
	}
	return r < 0 ? r : 0;
}

/* The mark of a chunk, and whether its place can be: within the file, and behind the chunk before. */
typedef struct Mark {
	uint32_t used, generation;
	uint64_t offset, size;
	bool placed;
} Mark;

static void read_mark(const CacheEvictBlob *blob, const uint8_t *bytes, uint64_t from, uint32_t now, Mark *ret_mark)
{
	uint64_t place = load_le64(bytes + AT_PLACE);
	*ret_mark = (Mark){
		.used = load_le32(bytes + AT_USED),
		.generation = load_le32(bytes + AT_GENERATION),
		.offset = present_place_offset(place),
		.size = present_place_size(place),
	};
	if (ret_mark->used > now) /* the clock was put back */
		ret_mark->used = 1;
	ret_mark->placed = ret_mark->size > 0 && ret_mark->size <= FORMAT_FRAME_MAX && ret_mark->offset >= from &&
			   range_within(ret_mark->offset, ret_mark->size, blob->size);
}

static bool is_old(uint32_t used, uint32_t now)
{
	return now - used > GRACE;
}

static int list_chunk(const CacheEvictBlob *blob, const Mark *mark, const CacheVictim *victim, uint32_t now,
		      CacheVictims *victims)
{
	if (present_is_odd(mark->generation))
		return punch_run(blob, victim->chunk, victim->chunk, mark->offset, mark->size, true);
	return victims && mark->used != 0 && is_old(mark->used, now) ? cache_victims_add(victims, victim) : 0;
}

int cache_evict_blob_list(CacheEvictBlob *blob, size_t number, uint32_t now, CacheVictims *victims)
{
	if (blob->count == UINT32_MAX) /* it is made anew at the next mount */
		return 0;
	size_t size = (size_t)present_size(blob->count);
	_cleanup_free_ uint8_t *file = malloc(size + 1);
	int r = file ? fd_pread_all(blob->present_fd, file, size, 0) : -ENOMEM;
	CacheVictim all = { .blob = number, .chunk = CACHE_VICTIM_ALL, .size = blob->bytes };
	bool unplaced = false;
	uint64_t from = 0;
	for (uint32_t chunk = 0; r == 0 && chunk < blob->count; chunk++) {
		Mark mark;
		read_mark(blob, file + present_mark(blob->count, chunk), from, now, &mark);
		if (mark.used > all.used)
			all.used = mark.used;
		if (!mark.placed) {
			/* Nobody has said where it is: with the blob it may go. */
			unplaced |= mark.used != 0 || present_is_odd(mark.generation) || cache_bits_have(file, chunk);
			if (present_is_odd(mark.generation)) /* no hole to end, but it may be written to again */
				r = punch_run(blob, chunk, chunk, 0, 0, true);
			continue;
		}
		from = mark.offset + mark.size;
		CacheVictim victim = {
			.blob = number, .chunk = chunk, .used = mark.used, .offset = mark.offset, .size = mark.size
		};
		r = list_chunk(blob, &mark, &victim, now, victims);
	}
	if (r == 0 && victims && unplaced && is_old(all.used, now))
		r = cache_victims_add(victims, &all);
	return r;
}

/*
 * Servers have a copy for reading alone, so that the kernel's time of the last access says it. Many file systems note an access only if it is the first since
 * the inode was changed (relatime): so it is changed once an access was seen. Where none is noted, a copy is as old as it was made.
 */
int cache_evict_copy_used(CacheStore *store, const Digest *diff_id, uint32_t now, uint32_t *ret_used)
{
	char hex[DIGEST_HEX_SIZE], path[sizeof("decoded/") + DIGEST_HEX_SIZE];
	struct stat status;
	(void)snprintf(path, sizeof(path), "decoded/%s", digest_hex(diff_id, hex));
	if (fstatat(store->dirfd, path, &status, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	int64_t used = status.st_atime > status.st_mtime ? status.st_atime : status.st_mtime;
	const struct timespec same[2] = { status.st_atim, { .tv_nsec = UTIME_OMIT } };
	if (status.st_atime >= status.st_ctime)
		(void)!utimensat(store->dirfd, path, same, AT_SYMLINK_NOFOLLOW);
	*ret_used = used > now || used < 1 ? 1 : (uint32_t)used; /* the clock was put back */
	return 0;
}

int cache_evict_copy(CacheStore *store, const Digest *diff_id)
{
	char hex[DIGEST_HEX_SIZE], path[sizeof("decoded/") + DIGEST_HEX_SIZE];
	struct stat status;
	(void)snprintf(path, sizeof(path), "decoded/%s", digest_hex(diff_id, hex));
	_cleanup_close_ int fd = openat(store->dirfd, path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 || fstat(fd, &status) < 0 || unlinkat(store->dirfd, path, 0) < 0)
		return errno == ENOENT ? 0 : -errno;
	return punch(fd, 0, (uint64_t)status.st_size);
}
