#include "fs/net/net-loop.h"

#include <limits.h>
#include <string.h>

#include "fs/net/net-easy.h"
#include "fs/net/net-headers.h"
#include "fs/net/net-tls.h"

/* How long a server may take to end an answer all of whose bytes have come, before the connection is given up. */
#define TRAILER_TIMEOUT 200

struct NetTransfer {
	NetLoop *loop;
	NetTransfer *previous, *next;
	NetRange range; /* url is not kept */
	CURL *easy;
	NetHeaders headers;
	NetProgress progress;
	uint64_t received;
	bool accepted; /* the headers are those of the range asked for */
	int refusal;   /* why this side ended the transfer, or 0 */
	Error error;
	char curl_text[CURL_ERROR_SIZE];
};

struct NetLoop {
	CURLM *multi;
	NetTransfer *transfers;
	const NetAccess *access; /* not owned */
};

int net_loop_new(unsigned connections, NetLoop **ret_loop)
{
	_cleanup_(net_loop_free_p) NetLoop *loop = calloc(1, sizeof(*loop));
	if (!loop)
		return -ENOMEM;
	loop->multi = net_multi_new(connections);
	if (!loop->multi)
		return -ENOMEM;
	*ret_loop = TAKE_PTR(loop);
	return 0;
}

NetLoop *net_loop_free(NetLoop *loop)
{
	if (!loop)
		return NULL;
	while (loop->transfers)
		net_loop_cut(loop, loop->transfers);
	if (loop->multi)
		(void)curl_multi_cleanup(loop->multi);
	free(loop);
	return NULL;
}

void net_loop_set_access(NetLoop *loop, const NetAccess *access)
{
	loop->access = access;
}

static size_t on_header(char *line, size_t unit, size_t count, void *arg)
{
	NetTransfer *transfer = arg;
	size_t size = unit * count;
	if (transfer->accepted)
		return size; /* a trailer */
	net_headers_add(&transfer->headers, line, size);
	net_progress_add(&transfer->progress, size);
	if (!transfer->headers.complete)
		return size;
	net_progress_mark(&transfer->progress);
	/* Interim answers are followed by another, redirects by another request. */
	unsigned class = transfer->headers.status / 100;
	if (class == 1 || class == 3)
		return size;
	transfer->refusal = net_headers_check_range(&transfer->headers, transfer->range.offset, transfer->range.size,
						    &transfer->error);
	if (transfer->refusal < 0)
		return 0;
	transfer->accepted = true;
	return size;
}

static size_t on_body(char *data, size_t unit, size_t count, void *arg)
{
	NetTransfer *transfer = arg;
	size_t size = unit * count, wanted = size;
	if (!transfer->accepted) /* of a redirect that leads nowhere */
		return 0;
	if (wanted > transfer->range.size - transfer->received)
		wanted = (size_t)(transfer->range.size - transfer->received);
	transfer->received += wanted;
	net_progress_add(&transfer->progress, wanted);
	if (transfer->received == transfer->range.size) {
		net_progress_mark(&transfer->progress);
		transfer->progress.limit = TRAILER_TIMEOUT;
	}
	if (wanted > 0)
		transfer->range.data(transfer->range.arg, (const uint8_t *)data, wanted);
	return wanted;
}

/* Frees a transfer that the multi handle no longer has, or never had. */
static void transfer_free(NetTransfer *transfer)
{
	if (transfer->easy)
		curl_easy_cleanup(transfer->easy);
	free(transfer);
}

static int prepare(NetTransfer *transfer, const char *url)
{
	int r = net_easy_new(url, transfer->loop->access, &transfer->easy);
	if (r < 0)
		return r;
	char text[48];
	(void)snprintf(text, sizeof(text), "%llu-%llu", (unsigned long long)transfer->range.offset,
		       (unsigned long long)(transfer->range.offset + transfer->range.size - 1));
	CURL *easy = transfer->easy;
	if (curl_easy_setopt(easy, CURLOPT_RANGE, text) != CURLE_OK)
		return -ENOMEM;
	(void)curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, transfer->curl_text);
	(void)curl_easy_setopt(easy, CURLOPT_PRIVATE, transfer);
	(void)curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
	(void)curl_easy_setopt(easy, CURLOPT_HEADERDATA, transfer);
	(void)curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
	(void)curl_easy_setopt(easy, CURLOPT_WRITEDATA, transfer);
	(void)curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, transfer->range.fresh ? 1L : 0L);
	return 0;
}

int net_loop_start(NetLoop *loop, const NetRange *range, NetTransfer **ret_transfer)
{
	NetTransfer *transfer = calloc(1, sizeof(*transfer));
	if (!transfer)
		return -ENOMEM;
	transfer->loop = loop;
	transfer->range = *range;
	transfer->range.url = NULL;
	transfer->progress.limit = range->stall;
	net_progress_mark(&transfer->progress);
	int r = prepare(transfer, range->url);
	if (r == 0 && curl_multi_add_handle(loop->multi, transfer->easy) != CURLM_OK)
		r = -ENOMEM;
	if (r < 0) {
		transfer_free(transfer);
		return r;
	}
	transfer->next = loop->transfers;
	if (transfer->next)
		transfer->next->previous = transfer;
	loop->transfers = transfer;
	*ret_transfer = transfer;
	return 0;
}

void net_loop_cut(NetLoop *loop, NetTransfer *transfer)
{
	if (transfer->next)
		transfer->next->previous = transfer->previous;
	if (transfer->previous)
		transfer->previous->next = transfer->next;
	else
		loop->transfers = transfer->next;
	(void)curl_multi_remove_handle(loop->multi, transfer->easy);
	transfer_free(transfer);
}

/* Takes a transfer out, then tells its owner. */
static void finish(NetTransfer *transfer, int result)
{
	NetRange range = transfer->range;
	Error error = transfer->error;
	if (result < 0 && !error.message[0])
		(void)error_set(&error, result, "%s",
				transfer->curl_text[0] ? transfer->curl_text : error_text(NULL, result));
	net_loop_cut(transfer->loop, transfer);
	range.end(range.arg, result, result < 0 ? error.message : NULL);
}

static void complete(NetTransfer *transfer, CURLcode code)
{
	int result = 0;
	if (transfer->refusal < 0)
		result = transfer->refusal;
	else if (transfer->accepted && transfer->received == transfer->range.size)
		result = 0; /* what curl says of bytes behind the range does not matter */
	else if (!transfer->accepted && transfer->headers.complete && (code == CURLE_OK || code == CURLE_WRITE_ERROR))
		result = net_status_error(transfer->headers.status, &transfer->error);
	else if (code == CURLE_OK)
		result = error_set(&transfer->error, -ECONNRESET, "the server's answer ends too early");
	else
		result = net_tls_error(transfer->easy, code, transfer->curl_text, &transfer->error);
	finish(transfer, result);
}

static void collect(NetLoop *loop)
{
	int left;
	for (CURLMsg *message; (message = curl_multi_info_read(loop->multi, &left));) {
		if (message->msg != CURLMSG_DONE)
			continue;
		char *transfer = NULL;
		CURLcode code = message->data.result;
		(void)curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &transfer);
		complete((NetTransfer *)(void *)transfer, code);
	}
}

/* Ends one stalled transfer; the list may be another afterwards. */
static bool cut_stalled(NetLoop *loop, int64_t now)
{
	for (NetTransfer *transfer = loop->transfers; transfer; transfer = transfer->next) {
		if (net_progress_deadline(&transfer->progress) > now)
			continue;
		if (transfer->accepted && transfer->received == transfer->range.size) {
			finish(transfer, 0);
		} else {
			int r = error_set(&transfer->error, -ETIMEDOUT, "the server sends nothing");
			finish(transfer, r);
		}
		return true;
	}
	return false;
}

static int poll_timeout(const NetLoop *loop, int64_t timeout)
{
	int64_t now = net_now();
	for (const NetTransfer *transfer = loop->transfers; transfer; transfer = transfer->next) {
		int64_t left = net_progress_deadline(&transfer->progress) - now;
		if (left < timeout)
			timeout = left;
	}
	if (timeout < 0)
		return 0;
	return timeout > INT_MAX ? INT_MAX : (int)timeout;
}

static int curl_result(CURLMcode code)
{
	if (code == CURLM_OK)
		return 0;
	return code == CURLM_OUT_OF_MEMORY ? -ENOMEM : -EIO;
}

int net_loop_run(NetLoop *loop, int64_t timeout)
{
	/* A transfer added since the last time has a timer of 0 inside curl, which ends this wait at once. */
	int running;
	int r = curl_result(curl_multi_poll(loop->multi, NULL, 0, poll_timeout(loop, timeout), NULL));
	if (r == 0)
		r = curl_result(curl_multi_perform(loop->multi, &running));
	collect(loop);
	while (cut_stalled(loop, net_now()))
		;
	return r;
}

void net_loop_wake(NetLoop *loop)
{
	(void)curl_multi_wakeup(loop->multi);
}
