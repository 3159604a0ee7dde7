#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "fs/base/fd.h"
#include "fs/cache/cache-decoded-layout.h"
#include "fs/cache/cache-private.h"
#include "fs/cache/page-sum.h"

struct CacheDecodedWriter {
	CacheStore *store; /* NULL: in a place */
	Digest diff_id;
	uint64_t tar_size;
	int dirfd;
	int fd;                               /* of a place: its owner's */
	char temporary[CACHE_TEMPORARY_SIZE]; /* empty: there is none */
	uint64_t written;                     /* pages */
	uint8_t *sums;
	size_t used; /* of the page that is not full yet */
	uint8_t page[CACHE_DECODED_PAGE];
};

static int lock(int fd, short type)
{
	struct flock place = { .l_type = type, .l_whence = SEEK_SET };
	return fcntl(fd, F_OFD_SETLK, &place) < 0 ? -errno : 0;
}

/* What is no copy by now will be none: the disk gets its room back. */
static void leave_place(int fd)
{
	if (cache_decoded_is_place(fd))
		(void)!ftruncate(fd, 0);
	(void)!lock(fd, F_UNLCK);
}

CacheDecodedWriter *cache_decoded_writer_free(CacheDecodedWriter *writer)
{
	if (!writer)
		return NULL;
	if (writer->temporary[0])
		(void)unlinkat(writer->dirfd, writer->temporary, 0);
	if (writer->store)
		close_p(&writer->fd);
	else if (writer->fd >= 0)
		leave_place(writer->fd);
	close_p(&writer->dirfd);
	free(writer->sums);
	free(writer);
	return NULL;
}

static int failed(const CacheDecodedWriter *writer, int code, Error *error)
{
	char text[DIGEST_TEXT_SIZE];
	return error_set(error, code, "cannot write a decoded copy of layer %s (%llu bytes) to the cache%s%s: %s%s",
			 digest_text(&writer->diff_id, text), (unsigned long long)writer->tar_size,
			 writer->store ? " " : "", writer->store ? writer->store->path : "", error_text(NULL, code),
			 code == -ENOSPC || code == -EDQUOT ? "; free some space, or do without --decoded" : "");
}

/*
 * Takes the room for the file at once. Some file systems reserve until nothing is left, and only then say so, which others would feel: it is
 * asked for first. One that cannot reserve finds out when it is written.
 */
static int take_room(int fd, uint64_t size, uint64_t spare)
{
	struct statvfs disk;
	if (fstatvfs(fd, &disk) < 0)
		return -errno;
	if (size / disk.f_frsize + spare / disk.f_frsize >= disk.f_bavail)
		return -ENOSPC;
	return fallocate(fd, 0, 0, (off_t)size) < 0 && errno != EOPNOTSUPP && errno != ENOSYS ? -errno : 0;
}

static uint64_t file_size(const CacheDecodedWriter *writer)
{
	return decoded_pages(writer->tar_size) * (CACHE_DECODED_PAGE + DECODED_SUM) + CACHE_DECODED_FOOTER;
}

static int get_sums(CacheDecodedWriter *writer)
{
	writer->sums = malloc(decoded_pages(writer->tar_size) * DECODED_SUM + 1);
	return writer->sums ? 0 : -ENOMEM;
}

static bool is_gone(int fd)
{
	struct stat status;
	return fstat(fd, &status) < 0 || status.st_nlink == 0;
}

/* From the first byte on the file says that it is no copy yet. */
static int begin_in_place(CacheDecodedWriter *writer, int fd, uint64_t spare)
{
	static const char making[] = DECODED_MAKING;
	uint8_t footer[CACHE_DECODED_FOOTER] = { 0 };
	if (writer->tar_size > INT64_MAX / 2)
		return -EFBIG;
	int r = lock(fd, F_WRLCK);
	if (r < 0)
		return r == -EAGAIN || r == -EACCES ? -EBUSY : r;
	if (!cache_decoded_is_place(fd)) {
		(void)!lock(fd, F_UNLCK);
		return -EEXIST;
	}
	writer->fd = fd; /* to be left when the writer goes */
	if (is_gone(fd))
		return -ESTALE;
	if (ftruncate(fd, 0) < 0)
		return -errno;
	memcpy(footer, making, strlen(making));
	r = fd_pwrite_all(fd, footer, sizeof(footer), file_size(writer) - sizeof(footer));
	if (r == 0)
		r = take_room(fd, file_size(writer), spare);
	return r < 0 ? r : get_sums(writer);
}

static int open_file(CacheDecodedWriter *writer)
{
	if (writer->tar_size > INT64_MAX / 2)
		return -EFBIG;
	writer->dirfd =
		openat(writer->store->dirfd, cache_kind_directories[CACHE_DECODED], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (writer->dirfd < 0)
		return -errno;
	writer->fd = cache_temporary(writer->dirfd, writer->temporary);
	if (writer->fd < 0) {
		writer->temporary[0] = '\0';
		return writer->fd;
	}
	int r = take_room(writer->fd, file_size(writer), 0);
	return r < 0 ? r : get_sums(writer);
}

int cache_decoded_writer_new(CacheStore *store, const Digest *diff_id, uint64_t tar_size,
			     CacheDecodedWriter **ret_writer, Error *error)
{
	_cleanup_(cache_decoded_writer_free_p) CacheDecodedWriter *writer = calloc(1, sizeof(*writer));
	if (!writer)
		return error_set(error, -ENOMEM, "out of memory");
	writer->store = store;
	writer->diff_id = *diff_id;
	writer->tar_size = tar_size;
	writer->dirfd = writer->fd = -1;
	int r = open_file(writer);
	if (r < 0)
		return failed(writer, r, error);
	*ret_writer = TAKE_PTR(writer);
	return 0;
}

int cache_decoded_reserve(CacheStore *store, const Digest *diff_id, int *ret_fd)
{
	char hex[DIGEST_HEX_SIZE], path[sizeof("decoded/") + DIGEST_HEX_SIZE];
	int r = cache_store_get(store, CACHE_DECODED, diff_id, ret_fd);
	if (r != -ENOENT && (r < 0 || !cache_decoded_is_place(*ret_fd)))
		return r;
	if (r == 0)
		(void)close(*ret_fd);
	(void)snprintf(path, sizeof(path), "%s/%s", cache_kind_directories[CACHE_DECODED], digest_hex(diff_id, hex));
	int fd = openat(store->dirfd, path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, CACHE_FILE_MODE);
	if (fd < 0)
		return -errno;
	*ret_fd = fd;
	return 0;
}

int cache_decoded_writer_in(int fd, const Digest *diff_id, uint64_t tar_size, uint64_t spare,
			    CacheDecodedWriter **ret_writer, Error *error)
{
	_cleanup_(cache_decoded_writer_free_p) CacheDecodedWriter *writer = calloc(1, sizeof(*writer));
	if (!writer)
		return error_set(error, -ENOMEM, "out of memory");
	writer->diff_id = *diff_id;
	writer->tar_size = tar_size;
	writer->dirfd = writer->fd = -1;
	int r = begin_in_place(writer, fd, spare);
	if (r < 0)
		return failed(writer, r, error);
	*ret_writer = TAKE_PTR(writer);
	return 0;
}

/* Writes whole pages and notes their sums. */
static int write_pages(CacheDecodedWriter *writer, const uint8_t *pages, size_t size)
{
	int r = fd_pwrite_all(writer->fd, pages, size, writer->written * CACHE_DECODED_PAGE);
	for (size_t at = 0; r == 0 && at < size; at += CACHE_DECODED_PAGE)
		store_le64(writer->sums + writer->written++ * DECODED_SUM, page_sum(pages + at, size));
	return r;
}

int cache_decoded_writer_add(CacheDecodedWriter *writer, const void *data, size_t size, Error *error)
{
	const uint8_t *bytes = data;
	if (!range_within(writer->written * CACHE_DECODED_PAGE + writer->used, size, writer->tar_size))
		return failed(writer, -EINVAL, error);
	int r = 0;
	while (r == 0 && size > 0) {
		size_t part = size - size % CACHE_DECODED_PAGE;
		if (writer->used == 0 && part > 0) {
			r = write_pages(writer, bytes, part);
		} else {
			part = CACHE_DECODED_PAGE - writer->used < size ? CACHE_DECODED_PAGE - writer->used : size;
			memcpy(writer->page + writer->used, bytes, part);
			writer->used += part;
			if (writer->used == CACHE_DECODED_PAGE) {
				r = write_pages(writer, writer->page, CACHE_DECODED_PAGE);
				writer->used = 0;
			}
		}
		bytes += part;
		size -= part;
	}
	return r < 0 ? failed(writer, r, error) : 0;
}

static int write_end(CacheDecodedWriter *writer)
{
	uint64_t pages = decoded_pages(writer->tar_size), at = pages * CACHE_DECODED_PAGE;
	size_t size = (size_t)pages * DECODED_SUM;
	int r = 0;
	if (writer->written * CACHE_DECODED_PAGE + writer->used != writer->tar_size)
		return -EINVAL;
	if (writer->used > 0) {
		memset(writer->page + writer->used, 0, CACHE_DECODED_PAGE - writer->used);
		r = write_pages(writer, writer->page, CACHE_DECODED_PAGE);
		writer->used = 0;
	}
	uint8_t footer[CACHE_DECODED_FOOTER];
	Digest digest;
	decoded_footer(&writer->diff_id, writer->tar_size, footer);
	if (r == 0)
		r = decoded_digest(writer->sums, size, footer, &digest);
	if (r < 0)
		return r;
	memcpy(footer + AT_DIGEST, digest.bytes, DIGEST_SIZE);
	r = fd_pwrite_all(writer->fd, writer->sums, size, at);
	return r < 0 ? r : fd_pwrite_all(writer->fd, footer, sizeof(footer), at + size);
}

int cache_decoded_writer_finish(CacheDecodedWriter *writer, Error *error)
{
	char hex[DIGEST_HEX_SIZE];
	int r = write_end(writer);
	if (!writer->store) {
		if (r == 0 && is_gone(writer->fd))
			r = ftruncate(writer->fd, 0) < 0 ? -errno : -ESTALE;
		return r < 0 ? failed(writer, r, error) : 0;
	}
	if (r == 0 && renameat(writer->dirfd, writer->temporary, writer->dirfd, digest_hex(&writer->diff_id, hex)) < 0)
		r = -errno;
	if (r < 0)
		return failed(writer, r, error);
	writer->temporary[0] = '\0';
	return 0;
}
