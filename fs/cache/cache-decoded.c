#include "fs/cache/cache-decoded.h"

#include <errno.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "fs/base/fd.h"
#include "fs/cache/cache-decoded-layout.h"
#include "fs/cache/page-sum.h"

#define CHECK_SIZE (1u << 20)

struct CacheDecoded {
	int fd;
	uint64_t tar_size;
	uint8_t *sums;
};

CacheDecoded *cache_decoded_free(CacheDecoded *copy)
{
	if (!copy)
		return NULL;
	close_p(&copy->fd);
	free(copy->sums);
	free(copy);
	return NULL;
}

bool cache_decoded_is_place(int fd)
{
	struct stat status;
	uint8_t magic[sizeof(DECODED_MAKING) - 1];
	if (fstat(fd, &status) < 0)
		return false;
	return status.st_size == 0 ||
	       (status.st_size >= (off_t)CACHE_DECODED_FOOTER &&
		fd_pread_all(fd, magic, sizeof(magic), (uint64_t)status.st_size - CACHE_DECODED_FOOTER) == 0 &&
		memcmp(magic, DECODED_MAKING, sizeof(magic)) == 0);
}

static int load_sums(CacheDecoded *copy, const Digest *diff_id)
{
	uint64_t pages = decoded_pages(copy->tar_size);
	struct stat status;
	if (fstat(copy->fd, &status) < 0)
		return -errno;
	/* Whatever the length says is bounded by the file's. */
	uint64_t rest = (uint64_t)status.st_size - CACHE_DECODED_FOOTER;
	if (status.st_size < (off_t)CACHE_DECODED_FOOTER || copy->tar_size > rest ||
	    pages * (CACHE_DECODED_PAGE + DECODED_SUM) != rest)
		return -EBADMSG;
	size_t size = (size_t)pages * DECODED_SUM;
	uint8_t footer[CACHE_DECODED_FOOTER], wanted[CACHE_DECODED_FOOTER];
	copy->sums = malloc(size + 1);
	int r = copy->sums ? fd_pread_all(copy->fd, copy->sums, size, pages * CACHE_DECODED_PAGE) : -ENOMEM;
	if (r == 0)
		r = fd_pread_all(copy->fd, footer, sizeof(footer), rest);
	if (r < 0)
		return r == -ENODATA ? -EBADMSG : r;
	Digest digest;
	decoded_footer(diff_id, copy->tar_size, wanted);
	r = decoded_digest(copy->sums, size, footer, &digest);
	if (r < 0)
		return r;
	return memcmp(footer, wanted, AT_DIGEST) == 0 && memcmp(footer + AT_DIGEST, digest.bytes, DIGEST_SIZE) == 0
		       ? 0
		       : -EBADMSG;
}

int cache_decoded_open(int fd, const Digest *diff_id, uint64_t tar_size, CacheDecoded **ret_copy)
{
	_cleanup_close_ int owned = fd;
	_cleanup_(cache_decoded_free_p) CacheDecoded *copy = calloc(1, sizeof(*copy));
	if (!copy)
		return -ENOMEM;
	copy->fd = TAKE_FD(owned);
	copy->tar_size = tar_size;
	int r = load_sums(copy, diff_id);
	if (r < 0)
		return r;
	*ret_copy = TAKE_PTR(copy);
	return 0;
}

/* Its sum is on its way to the processor while the page is read: it is never near, since there is one for each page of the layer. */
static void fetch_sum(const CacheDecoded *copy, uint64_t number)
{
	__builtin_prefetch(copy->sums + number * DECODED_SUM);
}

/* Are the pages from `number` on what they were? */
static bool pages_sound(const CacheDecoded *copy, uint64_t number, const uint8_t *pages, size_t size)
{
	const uint8_t *sum = copy->sums + number * DECODED_SUM;
	for (size_t at = 0; at < size; at += CACHE_DECODED_PAGE, sum += DECODED_SUM)
		if (page_sum(pages + at, size) != load_le64(sum))
			return false;
	return true;
}

/* Reads and checks the page that holds `offset`, and copies a part of it that is on this page. */
static int read_within_page(const CacheDecoded *copy, uint64_t offset, size_t size, uint8_t *to)
{
	uint8_t page[CACHE_DECODED_PAGE];
	uint64_t number = offset / CACHE_DECODED_PAGE;
	fetch_sum(copy, number);
	int r = fd_pread_all(copy->fd, page, sizeof(page), number * CACHE_DECODED_PAGE);
	if (r < 0)
		return r;
	if (!pages_sound(copy, number, page, sizeof(page)))
		return -EBADMSG;
	memcpy(to, page + offset % CACHE_DECODED_PAGE, size);
	return 0;
}

/*
 * A range over several pages, read by one call. Pages wanted whole are read, checked and left where they are wanted; the first and the
 * last one may be wanted in part, and then are checked beside it: where files begin in a tar knows nothing of pages.
 */
int cache_decoded_read(const CacheDecoded *copy, uint64_t tar_offset, size_t size, void *buffer)
{
	uint8_t first[CACHE_DECODED_PAGE], last[CACHE_DECODED_PAGE];
	uint8_t *to = buffer;
	size_t skip = tar_offset % CACHE_DECODED_PAGE, end = (skip + size) % CACHE_DECODED_PAGE;
	if (skip + size < CACHE_DECODED_PAGE || (skip != 0 && skip + size == CACHE_DECODED_PAGE))
		return size == 0 ? 0 : read_within_page(copy, tar_offset, size, to);
	size_t head = skip ? CACHE_DECODED_PAGE - skip : 0, whole = size - head - end;
	struct iovec parts[3];
	int count = 0;
	if (head)
		parts[count++] = (struct iovec){ first, sizeof(first) };
	if (whole)
		parts[count++] = (struct iovec){ to + head, whole };
	if (end)
		parts[count++] = (struct iovec){ last, sizeof(last) };
	size_t total = skip + size + (end ? CACHE_DECODED_PAGE - end : 0);
	uint64_t number = tar_offset / CACHE_DECODED_PAGE;
	fetch_sum(copy, number);
	ssize_t got = preadv(copy->fd, parts, count, (off_t)(tar_offset - skip));
	if (got != (ssize_t)total)
		return got < 0 ? -errno : -EBADMSG;

	if (head && !pages_sound(copy, number, first, sizeof(first)))
		return -EBADMSG;
	if (!pages_sound(copy, number + (head != 0), to + head, whole))
		return -EBADMSG;
	if (end && !pages_sound(copy, number + (total - 1) / CACHE_DECODED_PAGE, last, sizeof(last)))
		return -EBADMSG;
	memcpy(to, first + skip, head);
	memcpy(to + head + whole, last, end);
	return 0;
}

int cache_decoded_check(const CacheDecoded *copy)
{
	_cleanup_free_ uint8_t *part = malloc(CHECK_SIZE);
	if (!part)
		return -ENOMEM;
	for (uint64_t at = 0; at < copy->tar_size; at += CHECK_SIZE) {
		uint64_t left = copy->tar_size - at;
		int r = cache_decoded_read(copy, at, left < CHECK_SIZE ? (size_t)left : CHECK_SIZE, part);
		if (r < 0)
			return r;
	}
	return 0;
}
