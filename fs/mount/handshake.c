#include "fs/mount/handshake.h"

#include <string.h>

/* Newer than the headers of Debian 12 (Linux 6.12). */
#ifndef FUSE_ALLOW_IDMAP
#define FUSE_ALLOW_IDMAP (UINT64_C(1) << 40)
#endif

/*
 * Everything is immutable, so the kernel may cache names, attributes, link targets and pages for ever and need not ask before
 * open and opendir. Idmapped mounts need default_permissions, which the keeper always sets.
 */
#define WANTED                                                                                           \
	((uint64_t)FUSE_ASYNC_READ | FUSE_EXPORT_SUPPORT | FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO | \
	 FUSE_NO_OPEN_SUPPORT | FUSE_PARALLEL_DIROPS | FUSE_MAX_PAGES | FUSE_CACHE_SYMLINKS |            \
	 FUSE_NO_OPENDIR_SUPPORT | FUSE_INIT_EXT | FUSE_ALLOW_IDMAP)

/* Without these every open would have to be answered, or reads be cut in pieces of 128 KiB. */
#define NEEDED ((uint64_t)FUSE_NO_OPEN_SUPPORT | FUSE_NO_OPENDIR_SUPPORT | FUSE_MAX_PAGES)

#define KERNEL_PAGE    4096
#define MAX_BACKGROUND 64
#define CONGESTION     48
#define MAX_WRITE      4096 /* keeps every request within a receive slot of the journal */

static uint64_t offered_flags(const struct fuse_init_in *init, size_t size)
{
	uint64_t flags = init->flags;
	if (flags & FUSE_INIT_EXT && size >= offsetof(struct fuse_init_in, flags2) + sizeof(init->flags2))
		flags |= (uint64_t)init->flags2 << 32;
	return flags;
}

int handshake_answer(const void *init, size_t size, unsigned wanted, HandshakeReply *ret_reply, Error *error)
{
	struct fuse_in_header header;
	struct fuse_init_in body = { 0 };
	if (size < sizeof(header) + offsetof(struct fuse_init_in, flags2))
		return error_set(error, -EPROTO, "the kernel's first FUSE request has %zu bytes, too few for FUSE_INIT",
				 size);
	memcpy(&header, init, sizeof(header));
	size_t body_size = size - sizeof(header);
	memcpy(&body, (const char *)init + sizeof(header), body_size < sizeof(body) ? body_size : sizeof(body));
	if (header.opcode != FUSE_INIT || body.major != FUSE_KERNEL_VERSION)
		return error_set(error, -EPROTO,
				 "the kernel's first FUSE request is number %u of protocol %u, not FUSE_INIT of %u",
				 header.opcode, body.major, FUSE_KERNEL_VERSION);

	uint64_t offered = offered_flags(&body, body_size);
	if ((offered & NEEDED) != NEEDED)
		return error_set(error, -EOPNOTSUPP,
				 "this kernel's FUSE (protocol %u.%u) cannot cache open directories; imgfs needs Linux "
				 "5.1 or later",
				 body.major, body.minor);

	uint64_t used = WANTED;
	used |= wanted & HANDSHAKE_POSIX_ACL ? (uint64_t)FUSE_POSIX_ACL : 0;
	used |= wanted & HANDSHAKE_CHANGING ? (uint64_t)FUSE_AUTO_INVAL_DATA : 0;
	used &= offered;
	*ret_reply = (HandshakeReply){
		.header = { .len = sizeof(HandshakeReply), .unique = header.unique },
		.body = {
			.major = FUSE_KERNEL_VERSION,
			.minor = body.minor < FUSE_KERNEL_MINOR_VERSION ? body.minor : FUSE_KERNEL_MINOR_VERSION,
			.max_readahead = body.max_readahead,
			.flags = (uint32_t)used,
			.flags2 = (uint32_t)(used >> 32),
			.max_background = MAX_BACKGROUND,
			.congestion_threshold = CONGESTION,
			.max_write = MAX_WRITE,
			.time_gran = 1,
			.max_pages = HANDSHAKE_READ_MAX / KERNEL_PAGE,
		},
	};
	return 0;
}
