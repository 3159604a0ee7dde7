/*
 * Ranges of remote blobs, many at once, on one curl multi handle. One thread owns a NetLoop and everything in it; only
 * net_loop_wake() may be called from others. Callbacks come from inside net_loop_run().
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/base/cleanup.h"
#include "fs/net/net-access.h"
#include "fs/net/net-multipart.h"

typedef struct NetLoop NetLoop;
typedef struct NetTransfer NetTransfer;

typedef struct NetRange {
	const char *url;
	unsigned mirror; /* whose access counts: 0: that of the loop, n: that of its n-th mirror */
	uint64_t offset;
	uint64_t size; /* at least 1 */

	/*
	 * Several ranges in one request, ascending and apart from each other by more than a server would join; NULL: it is [offset,
	 * offset + size). Copied. `offset` is unused then, and `size` what they have together.
	 */
	const NetSpan *spans;
	size_t span_count;
	int64_t stall; /* milliseconds without progress after which the transfer is cut */
	bool fresh;    /* on a new connection */

	/*
	 * Bytes of the range, in order and never more than `size`; only after the headers proved to be the right ones. Must
	 * not call into the loop.
	 */
	void (*data)(void *arg, const uint8_t *data, size_t size);

	/*
	 * The transfer is over and gone; called exactly once unless it was cut. Result 0 means that all bytes were given; else a negative
	 * errno (-ETIMEDOUT: stalled; -EOPNOTSUPP: the server does not give several ranges at once as it should, so that they should be asked for one by
	 * one) and a sentence that does not name the URL, and how many milliseconds the server asks to wait before
	 * the next attempt (Retry-After; 0: it does not say). May start and cut other transfers.
	 */
	void (*end)(void *arg, int result, const char *sentence, int64_t retry_after);
	void *arg;
} NetRange;

/* `connections` is how many are open at most. Errors: -ENOMEM. */
int net_loop_new(unsigned connections, NetLoop **ret_loop) _must_check_;

/* Cuts what is under way. */
NetLoop *net_loop_free(NetLoop *loop);
DEFINE_CLEANUP(NetLoop, net_loop_free);

/*
 * How to speak to the hosts of transfers from now on, and to its mirrors (NET_MIRRORS_MAX at most); not copied, must outlive the loop. NULL: as to a
 * stranger.
 */
void net_loop_set_access(NetLoop *loop, const NetAccess *access);

/* Starts a transfer; `range` is copied, url too. Errors: -EINVAL (not an http or https URL), -ENOMEM; end() is not called then. */
int net_loop_start(NetLoop *loop, const NetRange *range, NetTransfer **ret_transfer) _must_check_;

/* Ends a transfer at once, without end(), and closes its connection. Not from inside data(). */
void net_loop_cut(NetLoop *loop, NetTransfer *transfer);

/*
 * Moves transfers on, waiting for the network for up to `timeout` milliseconds, or until net_loop_wake(). Errors: -ENOMEM, -EIO
 * (curl fails; the caller should not call again at once).
 */
int net_loop_run(NetLoop *loop, int64_t timeout) _must_check_;

/* Makes net_loop_run() return soon, or the next one if none is under way. Any thread. */
void net_loop_wake(NetLoop *loop);
