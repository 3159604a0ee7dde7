/* Private to the room: where things are in a decoded copy (cache-decoded.h). */
#pragma once

#include <string.h>

#include "fs/base/bytes.h"
#include "fs/base/digest.h"
#include "fs/cache/cache-decoded.h"

#define DECODED_MAGIC   "imgfsdec"
#define DECODED_MAKING  "imgfsnew" /* instead, while it is being made */
#define DECODED_VERSION 1u
#define DECODED_SUM     8u

enum { AT_MAGIC = 0, AT_VERSION = 8, AT_PAGE = 12, AT_TAR_SIZE = 16, AT_DIFF_ID = 32, AT_DIGEST = 64 };

static inline uint64_t decoded_pages(uint64_t tar_size)
{
	return tar_size / CACHE_DECODED_PAGE + (tar_size % CACHE_DECODED_PAGE != 0);
}

/* The footer of a layer's copy, whole but for the digest. */
static inline void decoded_footer(const Digest *diff_id, uint64_t tar_size,
				  uint8_t ret_footer[static CACHE_DECODED_FOOTER])
{
	memset(ret_footer, 0, CACHE_DECODED_FOOTER);
	memcpy(ret_footer + AT_MAGIC, DECODED_MAGIC, strlen(DECODED_MAGIC));
	store_le32(ret_footer + AT_VERSION, DECODED_VERSION);
	store_le32(ret_footer + AT_PAGE, CACHE_DECODED_PAGE);
	store_le64(ret_footer + AT_TAR_SIZE, tar_size);
	memcpy(ret_footer + AT_DIFF_ID, diff_id->bytes, DIGEST_SIZE);
}

/* Of the sums and of the footer before the digest. Errors: -ENOMEM. */
static inline int decoded_digest(const uint8_t *sums, size_t size, const uint8_t footer[static CACHE_DECODED_FOOTER],
				 Digest *ret_digest)
{
	_cleanup_(digest_state_free_p) DigestState *state = NULL;
	int r = digest_state_new(&state);
	if (r == 0)
		r = digest_state_add(state, sums, size);
	if (r == 0)
		r = digest_state_add(state, footer, AT_DIGEST);
	return r < 0 ? r : digest_state_end(state, ret_digest);
}
