#include "fs/net/net-loop.h"

#include <limits.h>
#include <string.h>

#include "fs/net/net-easy.h"
#include "fs/net/net-hosts.h"
#include "fs/net/net-route.h"
#include "fs/net/net-tls.h"

/* How long a server may take to end an answer all of whose bytes have come, before the connection is given up. */
#define TRAILER_TIMEOUT 200

#define SITES         (1 + NET_MIRRORS_MAX)
#define TOKEN_TIMEOUT 10000
#define SKIP_MAX      (64u << 10) /* reading so much is cheaper than another connection */

/* Hosts that are spoken to in one way, with tokens of their own. */
typedef struct NetSite {
	const NetAccess *access; /* not owned */
	NetTokens *tokens;
} NetSite;

struct NetTransfer {
	NetLoop *loop;
	NetSite *site;
	NetTransfer *previous, *next;
	NetRange range; /* url is the route's */
	NetRoute route;
	CURL *easy;      /* NULL: it waits for a token */
	uint64_t parked; /* in which round it began to wait */
	NetHeaders headers;
	NetProgress progress;
	uint64_t received;
	uint64_t skipped;    /* bytes of answers that are steps on the way */
	bool accepted;       /* the headers are those of the range asked for */
	NetSpan *spans;      /* range.spans */
	NetMultipart *parts; /* of several ranges; NULL: it is one */
	int refusal;         /* why this side ended the transfer, or 0 */
	int64_t retry_after;
	Error error;
	char curl_text[CURL_ERROR_SIZE];
};

struct NetLoop {
	CURLM *multi;
	CURLSH *sessions; /* of TLS, so that another connection to a host needs no whole handshake */
	NetTransfer *transfers;
	uint64_t round;       /* of those that wait */
	NetSite sites[SITES]; /* the loop's own, then its mirrors */
};

int net_loop_new(unsigned connections, NetLoop **ret_loop)
{
	_cleanup_(net_loop_free_p) NetLoop *loop = calloc(1, sizeof(*loop));
	if (!loop)
		return -ENOMEM;
	loop->multi = net_multi_new(connections);
	if (!loop->multi)
		return -ENOMEM;
	loop->sessions = curl_share_init();
	if (!loop->sessions ||
	    curl_share_setopt(loop->sessions, CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION) != CURLSHE_OK)
		return -ENOMEM;
	for (size_t i = 0; i < SITES; i++) {
		NetSite *site = &loop->sites[i];
		int r = net_tokens_new(loop->multi, site, TOKEN_TIMEOUT, &site->tokens);
		if (r < 0)
			return r;
	}
	*ret_loop = TAKE_PTR(loop);
	return 0;
}

NetLoop *net_loop_free(NetLoop *loop)
{
	if (!loop)
		return NULL;
	while (loop->transfers)
		net_loop_cut(loop, loop->transfers);
	for (size_t i = 0; i < SITES; i++)
		net_tokens_free(loop->sites[i].tokens);
	if (loop->multi)
		(void)curl_multi_cleanup(loop->multi);
	if (loop->sessions)
		(void)curl_share_cleanup(loop->sessions);
	free(loop);
	return NULL;
}

void net_loop_set_access(NetLoop *loop, const NetAccess *access)
{
	for (size_t i = 0; i < SITES; i++) {
		NetSite *site = &loop->sites[i];
		site->access = access;
		if (i > 0)
			site->access = access && i <= access->mirror_count ? access->mirrors[i - 1].access : NULL;
		net_tokens_set_access(site->tokens, site->access);
	}
}

static int check_headers(NetTransfer *transfer)
{
	if (!transfer->parts)
		return net_headers_check_range(&transfer->headers, transfer->range.offset, transfer->range.size,
					       &transfer->error);
	int r = net_headers_check_parts(&transfer->headers, &transfer->error);
	if (r == 0)
		net_multipart_init(transfer->parts, transfer->range.spans, transfer->range.span_count,
				   transfer->headers.boundary);
	return r;
}

static size_t on_header(char *line, size_t unit, size_t count, void *arg)
{
	NetTransfer *transfer = arg;
	size_t size = unit * count;
	if (transfer->accepted)
		return size; /* a trailer */
	net_headers_add(&transfer->headers, line, size);
	if (!transfer->headers.complete)
		return size;
	/* Interim answers are no progress: another follows them, which has to come in the same time. */
	if (transfer->headers.status / 100 == 1)
		return size;
	net_progress_mark(&transfer->progress);
	if (net_route_goes_on(&transfer->route, &transfer->headers))
		return size;
	transfer->refusal = check_headers(transfer);
	if (transfer->refusal < 0)
		return 0;
	transfer->accepted = true;
	return size;
}

static void give(NetTransfer *transfer, const uint8_t *data, size_t size)
{
	transfer->received += size;
	net_progress_add(&transfer->progress, size);
	if (transfer->received == transfer->range.size) {
		net_progress_mark(&transfer->progress);
		transfer->progress.limit = TRAILER_TIMEOUT;
	}
	transfer->range.data(transfer->range.arg, data, size);
}

static size_t add_parts(NetTransfer *transfer, const uint8_t *data, size_t size)
{
	size_t left = size;
	while (left > 0 && transfer->refusal == 0) {
		const uint8_t *part;
		size_t part_size;
		if (transfer->parts->state == NET_PART_END && (transfer->skipped += left) > SKIP_MAX)
			return 0;
		transfer->refusal =
			net_multipart_next(transfer->parts, &data, &left, &part, &part_size, &transfer->error);
		if (part_size > 0)
			give(transfer, part, part_size);
	}
	return transfer->refusal < 0 ? 0 : size;
}

static size_t on_body(char *data, size_t unit, size_t count, void *arg)
{
	NetTransfer *transfer = arg;
	size_t size = unit * count, wanted = size;
	if (!transfer->accepted) {
		transfer->skipped += size;
		return transfer->skipped <= SKIP_MAX ? size : 0;
	}
	if (transfer->parts)
		return add_parts(transfer, (const uint8_t *)data, size);
	if (wanted > transfer->range.size - transfer->received)
		wanted = (size_t)(transfer->range.size - transfer->received);
	if (wanted > 0)
		give(transfer, (const uint8_t *)data, wanted);
	return wanted;
}

static void transfer_free(NetTransfer *transfer)
{
	net_route_done(&transfer->route);
	free(transfer->spans);
	free(transfer->parts);
	free(transfer);
}

/* "FIRST-LAST,..." as in the Range header; malloc'ed, or NULL. */
static char *range_text(const NetRange *range)
{
	const NetSpan one = { .offset = range->offset, .size = range->size };
	const NetSpan *spans = range->spans ? range->spans : &one;
	size_t count = range->spans ? range->span_count : 1, room = 48 * count, used = 0;
	char *text = malloc(room);
	for (size_t i = 0; text && i < count; i++)
		used += (size_t)snprintf(text + used, room - used, "%s%llu-%llu", i > 0 ? "," : "",
					 (unsigned long long)spans[i].offset,
					 (unsigned long long)(spans[i].offset + spans[i].size - 1));
	return text;
}

static int prepare(NetTransfer *transfer)
{
	const NetSite *site = transfer->site;
	int r = net_route_open(&transfer->route, site->access, site->tokens, &transfer->easy, &transfer->error);
	if (r < 0)
		return r;
	CURL *easy = transfer->easy;
	_cleanup_free_ char *text = range_text(&transfer->range);
	if (!text || curl_easy_setopt(easy, CURLOPT_RANGE, text) != CURLE_OK)
		return -ENOMEM;
	(void)curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, transfer->curl_text);
	(void)curl_easy_setopt(easy, CURLOPT_PRIVATE, transfer);
	(void)curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
	(void)curl_easy_setopt(easy, CURLOPT_HEADERDATA, transfer);
	(void)curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
	(void)curl_easy_setopt(easy, CURLOPT_WRITEDATA, transfer);
	(void)curl_easy_setopt(easy, CURLOPT_SHARE, transfer->loop->sessions);
	(void)curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, transfer->range.fresh ? 1L : 0L);
	return 0;
}

static void unplug(NetTransfer *transfer)
{
	if (transfer->easy) {
		(void)curl_multi_remove_handle(transfer->loop->multi, transfer->easy);
		curl_easy_cleanup(transfer->easy);
	}
	transfer->easy = NULL;
}

/* Lets it wait for a token. */
static int park(NetTransfer *transfer)
{
	unplug(transfer);
	transfer->parked = transfer->loop->round;
	return 0;
}

/* Makes the next attempt, or the first. 0 also when it has to wait for a token. */
static int attempt(NetTransfer *transfer)
{
	unplug(transfer);
	transfer->headers = (NetHeaders){ 0 };
	transfer->curl_text[0] = '\0';
	net_progress_mark(&transfer->progress);
	int r = prepare(transfer);
	if (r == -EAGAIN)
		return park(transfer);
	if (r == 0 && curl_multi_add_handle(transfer->loop->multi, transfer->easy) != CURLM_OK)
		r = -ENOMEM;
	return r;
}

static int copy_spans(NetTransfer *transfer)
{
	NetRange *range = &transfer->range;
	if (!range->spans)
		return 0;
	transfer->spans = calloc(range->span_count, sizeof(*range->spans));
	transfer->parts = calloc(1, sizeof(*transfer->parts));
	if (!transfer->spans || !transfer->parts)
		return -ENOMEM;
	memcpy(transfer->spans, range->spans, range->span_count * sizeof(*range->spans));
	range->spans = transfer->spans;
	return 0;
}

int net_loop_start(NetLoop *loop, const NetRange *range, NetTransfer **ret_transfer)
{
	NetTransfer *transfer = calloc(1, sizeof(*transfer));
	if (!transfer)
		return -ENOMEM;
	transfer->loop = loop;
	transfer->site = &loop->sites[range->mirror < SITES ? range->mirror : 0];
	transfer->range = *range;
	transfer->range.url = NULL;
	transfer->progress.limit = range->stall;
	int r = copy_spans(transfer);
	if (r == 0)
		r = net_route_init(&transfer->route, range->url);
	if (r == 0)
		r = attempt(transfer);
	if (r < 0) {
		unplug(transfer);
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
	unplug(transfer);
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
	int64_t retry_after = transfer->retry_after;
	net_loop_cut(transfer->loop, transfer);
	range.end(range.arg, result, result < 0 ? error.message : NULL, retry_after);
}

/* Has the transfer gone on to another attempt? Negative: it cannot. */
static int go_on(NetTransfer *transfer)
{
	int r = net_route_follow(&transfer->route, transfer->easy, &transfer->headers, transfer->site->tokens,
				 &transfer->error);
	if (r == -EAGAIN)
		return park(transfer);
	return r < 0 ? r : attempt(transfer);
}

static void complete(NetTransfer *transfer, CURLcode code)
{
	int result = 0;
	bool skipped =
		!transfer->accepted && transfer->headers.complete && (code == CURLE_OK || code == CURLE_WRITE_ERROR);
	if (skipped && transfer->refusal == 0 && net_route_goes_on(&transfer->route, &transfer->headers)) {
		result = go_on(transfer);
		if (result == 0)
			return;
	} else if (transfer->refusal < 0)
		result = transfer->refusal;
	else if (transfer->accepted && transfer->received == transfer->range.size)
		result = 0; /* what curl says of bytes behind the range does not matter */
	else if (skipped)
		result = net_status_error(transfer->headers.status, &transfer->error);
	else if (code == CURLE_OK)
		result = error_set(&transfer->error, -ECONNRESET, "the server's answer ends too early");
	else
		result = net_tls_error(transfer->easy, code, transfer->curl_text, &transfer->error);
	if (result < 0 && transfer->easy)
		transfer->retry_after = net_easy_retry_after(transfer->easy);
	finish(transfer, result);
}

/* One of those that began to wait for a token before this round. */
static NetTransfer *find_waiting(NetLoop *loop, const NetSite *site)
{
	NetTransfer *transfer = loop->transfers;
	while (transfer && (transfer->easy || transfer->site != site || transfer->parked == loop->round))
		transfer = transfer->next;
	return transfer;
}

/* Lets all go on that wait for a token, or ends them with `error`. The list may be another after each. */
static void release_waiting(NetLoop *loop, const NetSite *site, const Error *error)
{
	loop->round++;
	for (NetTransfer *transfer; (transfer = find_waiting(loop, site));) {
		if (error)
			transfer->error = *error;
		int r = error ? error->code : attempt(transfer);
		if (r < 0)
			finish(transfer, r);
	}
}

static void token_came(NetLoop *loop, const NetSite *site, CURLcode code)
{
	Error error = { 0 };
	int r = net_tokens_complete(site->tokens, code, &error);
	release_waiting(loop, site, r < 0 ? &error : NULL);
}

/* The site whose tokens a handle asks for, or NULL: it is a transfer's. */
static const NetSite *site_of(const NetLoop *loop, const void *private)
{
	for (size_t i = 0; i < SITES; i++)
		if (private == &loop->sites[i])
			return &loop->sites[i];
	return NULL;
}

static void collect(NetLoop *loop)
{
	int left;
	for (CURLMsg *message; (message = curl_multi_info_read(loop->multi, &left));) {
		if (message->msg != CURLMSG_DONE)
			continue;
		char *private = NULL;
		CURLcode code = message->data.result;
		(void)curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &private);
		const NetSite *site = site_of(loop, private);
		if (site)
			token_came(loop, site, code);
		else
			complete((NetTransfer *)(void *)private, code);
	}
}

/* Ends one stalled transfer; the list may be another afterwards. */
static bool cut_stalled(NetLoop *loop, int64_t now)
{
	for (size_t i = 0; i < SITES; i++) {
		const NetSite *site = &loop->sites[i];
		if (net_tokens_deadline(site->tokens) > now)
			continue;
		Error error = { 0 };
		int r = net_tokens_expire(site->tokens, &error);
		release_waiting(loop, site, r < 0 ? &error : NULL);
		return true;
	}
	for (NetTransfer *transfer = loop->transfers; transfer; transfer = transfer->next) {
		if (!transfer->easy || net_progress_deadline(&transfer->progress) > now)
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
	for (size_t i = 0; i < SITES; i++)
		if (net_tokens_deadline(loop->sites[i].tokens) - now < timeout)
			timeout = net_tokens_deadline(loop->sites[i].tokens) - now;
	for (const NetTransfer *transfer = loop->transfers; transfer; transfer = transfer->next) {
		int64_t left = net_progress_deadline(&transfer->progress) - now;
		if (transfer->easy && left < timeout)
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
