/*
 * Where the manager leaves newer logins for the server, behind the metrics in the memory that both have: what a credential helper gives may be valid for
 * hours only, and a server can ask nobody. The server counts what was refused; the manager, which looks at that, asks as whom to appear now.
 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

#include "fs/mount/server-metrics.h"

#define LOGIN_BOX_MAX ((size_t)256 << 10) /* of its text */

typedef struct LoginBox {
	_Atomic uint64_t refused; /* transfers, for want of a login that counts */
	_Atomic uint32_t serial;  /* odd: it is being written; another for every text */
	_Atomic uint32_t size;
	char text
		[LOGIN_BOX_MAX]; /* a JSON object: by the SHA-256 of an access as an image was attached with, that which counts now */
} LoginBox;

typedef struct LoginBoxes {
	ServerMetrics metrics;
	LoginBox box;
} LoginBoxes;

/* Maps that of a metrics' memory. Errors: -EBADMSG (there is none: it is of an older build), mmap's. */
int login_box_open(int metrics_fd, LoginBoxes **ret_boxes) _must_check_;
void login_box_close(LoginBoxes *boxes); /* NULL is nothing */

/* Replaces the text. One writer at a time. Errors: -EFBIG, -ENOMEM. */
typedef struct LoginPair {
	char *before, *now; /* accesses (net_access_encode()) */
} LoginPair;
int login_box_write(LoginBoxes *boxes, const LoginPair *pairs, size_t count) _must_check_;

/*
 * What counts now instead of `access`, malloc'ed and the caller's, if the text is another than that of `serial`, which becomes that of the text. Errors: -ENOENT (nothing new, or nothing for
 * this one), -EAGAIN (it is being written), -ENOMEM.
 */
int login_box_read(LoginBoxes *boxes, const char *access, uint32_t *serial, char **ret_now) _must_check_;
