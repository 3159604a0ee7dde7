/*
 * Eight bytes of a tar's length, then the file of a decoded copy, whose footer gets the digest of its sums made right where they would stand.
 * What opens reads without a fault anywhere, right or wrong; and the whole of it is right only if each part is.
 */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fs/base/bytes.h"
#include "fs/base/fd.h"
#include "fs/cache/cache-decoded.h"

#define FILE_MAX (1u << 16)
#define DIGESTED (CACHE_DECODED_FOOTER - DIGEST_SIZE)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void mend_digest(uint8_t *file, size_t size, uint64_t tar_size)
{
	uint64_t sums = (tar_size / CACHE_DECODED_PAGE + (tar_size % CACHE_DECODED_PAGE != 0)) * 8;
	Digest digest;
	if (size < CACHE_DECODED_FOOTER || sums > size - CACHE_DECODED_FOOTER)
		return;
	/* The sums and the footer before its digest stand together. */
	if (digest_of(file + size - CACHE_DECODED_FOOTER - sums, (size_t)sums + DIGESTED, &digest) < 0)
		abort();
	memcpy(file + size - DIGEST_SIZE, digest.bytes, DIGEST_SIZE);
}

static void read_all(const CacheDecoded *copy, uint64_t tar_size)
{
	static uint8_t whole[FILE_MAX], part[FILE_MAX];
	int r = cache_decoded_read(copy, 0, (size_t)tar_size, whole);
	assert(cache_decoded_check(copy) == r);
	for (uint64_t at = 0; at < tar_size; at += 1000) {
		size_t count = tar_size - at < 1500 ? (size_t)(tar_size - at) : 1500;
		int got = cache_decoded_read(copy, at, count, part);
		assert(r < 0 || got == 0);
		assert(r < 0 || memcmp(part, whole + at, count) == 0);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t file[FILE_MAX];
	Digest diff_id = { { 7 } };
	CacheDecoded *copy;
	if (size < 8 || size - 8 > FILE_MAX)
		return 0;
	uint64_t tar_size = load_le64(data);
	size -= 8;
	if (size > 0)
		memcpy(file, data + 8, size);
	mend_digest(file, size, tar_size);
	int fd = memfd_create("decoded", MFD_CLOEXEC);
	if (fd < 0 || fd_write_all(fd, file, size) < 0)
		abort();
	if (cache_decoded_open(fd, &diff_id, tar_size, &copy) < 0)
		return 0;
	read_all(copy, tar_size);
	(void)cache_decoded_free(copy);
	return 0;
}
