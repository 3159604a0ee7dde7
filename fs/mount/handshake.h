/*
 * The answer to FUSE_INIT (include/uapi/linux/fuse.h, "struct fuse_init_in"): which of the features the kernel offers
 * this mount uses. The keeper gives it once, before any server runs; every server works under what was agreed here.
 */
#pragma once

#include <linux/fuse.h>
#include <stddef.h>

#include "fs/base/error.h"

#define HANDSHAKE_INIT_MAX FUSE_MIN_READ_BUFFER /* the kernel accepts no smaller buffer; the request is far smaller */
#define HANDSHAKE_READ_MAX (1024 * 1024)        /* the largest READ, and so the size of a reply buffer */

enum {
	/* The kernel enforces ACLs. Not when getxattr is answered ENOSYS, since it would hand that error to whoever it checks. */
	HANDSHAKE_POSIX_ACL = 1,
	HANDSHAKE_CHANGING = 2, /* some directory changes: its time says whether what was listed of it is still true */
};

typedef struct HandshakeReply {
	struct fuse_out_header header;
	struct fuse_init_out body;
} HandshakeReply;

/*
 * Fills the reply to the `size` bytes read from /dev/fuse; `wanted` are HANDSHAKE_* bits.
 * Errors: -EPROTO (not a FUSE_INIT), -EOPNOTSUPP (a kernel that lacks what imgfs cannot do without).
 */
int handshake_answer(const void *init, size_t size, unsigned wanted, HandshakeReply *ret_reply, Error *error)
	_must_check_;
