#include "fs/fetch/fetch-donors.h"

#include <errno.h>
#include <sys/stat.h>

#include "fs/base/bytes.h"
#include "fs/base/fd.h"
#include "fs/fetch/fetch-packed.h"
#include "fs/fetch/fetch-twins.h"

#define OFFSET_MASK ((UINT64_C(1) << FETCH_TWIN_OFFSET_BITS) - 1)

/* What follows the twins in the table: small files. A rest of another length is of a version to come, and passed over. */
static int read_packed(FetchBlob *blob, int fd, size_t offset)
{
	struct stat status;
	if (fstat(fd, &status) < 0)
		return -errno;
	size_t rest = (size_t)status.st_size - offset;
	if (rest == 0 || rest % FETCH_PACKED_SIZE != 0)
		return 0;
	_cleanup_free_ uint8_t *table = malloc(rest);
	int r = table ? fd_pread_all(fd, table, rest, offset) : -ENOMEM;
	if (r == 0)
		r = fetch_packed_check(table, rest / FETCH_PACKED_SIZE);
	if (r < 0)
		return r == -EBADMSG ? 0 : r;
	blob->packed = TAKE_PTR(table);
	blob->packed_count = rest / FETCH_PACKED_SIZE;
	return 0;
}

int fetch_blob_set_twins(FetchBlob *blob, FetchDonors *donors, int twins_fd)
{
	uint32_t count = cache_blob_table(blob->cache)->count;
	size_t size = (size_t)count * FETCH_TWIN_SIZE;
	_cleanup_free_ uint8_t *bytes = malloc(size + 1);
	_Atomic uint64_t *twins = calloc((size_t)count + 1, sizeof(*twins));
	int r = bytes && twins ? fd_pread_all(twins_fd, bytes, size, 0) : -ENOMEM;
	if (r < 0) {
		free((void *)(uintptr_t)twins);
		return r;
	}
	for (uint32_t i = 0; i < count; i++)
		atomic_init(&twins[i], load_le64(bytes + (size_t)i * FETCH_TWIN_SIZE));
	blob->twins = twins;
	(void)atomic_fetch_add(&donors->references, 1);
	blob->donors = donors;
	return read_packed(blob, twins_fd, size);
}

int fetch_donors_new(const int *fds, size_t count, FetchDonors **ret_donors)
{
	static _Atomic uint32_t last_id;
	FetchDonors *donors = calloc(1, sizeof(*donors) + count * sizeof(donors->fds[0]));
	if (!donors)
		return -ENOMEM;
	atomic_init(&donors->references, 1);
	donors->id = atomic_fetch_add(&last_id, 1) + 1;
	donors->count = count;
	for (size_t i = 0; i < count; i++)
		donors->fds[i] = fds[i];
	*ret_donors = donors;
	return 0;
}

FetchDonors *fetch_donors_unref(FetchDonors *donors)
{
	if (donors && atomic_fetch_sub(&donors->references, 1) == 1) {
		for (size_t i = 0; i < donors->count; i++)
			close_p(&donors->fds[i]);
		free(donors);
	}
	return NULL;
}

static bool read_twin(const FetchBlob *blob, uint64_t twin, const Chunk *chunk, uint8_t *frame)
{
	const FetchDonors *donors = blob->donors;
	size_t donor = (size_t)(twin >> FETCH_TWIN_OFFSET_BITS);
	Digest digest;
	return donor >= 1 && donor <= donors->count && chunk->blob_size <= FORMAT_FRAME_MAX &&
	       fd_pread_all(donors->fds[donor - 1], frame, chunk->blob_size, twin & OFFSET_MASK) == 0 &&
	       digest_of(frame, chunk->blob_size, &digest) == 0 && digest_equal(&digest, &chunk->digest);
}

bool fetch_donor_copy(FetchBlob *blob, uint32_t number, uint8_t *frame)
{
	uint64_t twin = blob->twins ? atomic_load_explicit(&blob->twins[number], memory_order_relaxed) : 0;
	if (twin == 0)
		return false;
	Chunk chunk;
	chunk_table_get(cache_blob_table(blob->cache), number, &chunk);
	if (!read_twin(blob, twin, &chunk, frame)) {
		atomic_store_explicit(&blob->twins[number], 0, memory_order_relaxed);
		return false;
	}
	if (cache_blob_write(blob->cache, number, frame, chunk.blob_size) < 0)
		fetch_recent_put(&blob->fetcher->recent, blob->id, number, frame, chunk.blob_size);
	fetch_count(&blob->fetcher->metrics->copies, 1);
	return true;
}
