#include "fs/net/net-http.h"

#include <limits.h>
#include <string.h>

#include "fs/net/net-easy.h"
#include "fs/net/net-route.h"
#include "fs/net/net-tls.h"

#define CONNECTIONS 8u
#define BODY_START  (64u << 10)
#define SKIP_MAX    (64u << 10) /* reading so much of an answer that does not matter is cheaper than another connection */

/* A server that says it is busy, or ends a connection, is asked again; for up to so long, in milliseconds. */
#define RETRIES_MAX 4u
#define RETRY_FIRST 100
#define RETRY_LAST  5000

#define GIVEN_UP_MS 200 /* between two questions whether anybody still waits */

#define OPTIONAL_TIMEOUT 2000 /* milliseconds: what can be done without keeps nobody waiting for long */

struct NetHttp {
	CURLM *multi;
	int64_t timeout;
	NetTokens *tokens;
	const NetAccess *access; /* not owned */
	NetGivenUp *given_up;    /* NULL: never */
	void *given_up_arg;
};

/* One request under way. */
typedef struct Exchange {
	const NetRequest *request;
	NetRoute route;
	enum {
		EXCHANGE_IDLE,
		EXCHANGE_RUNS,
		EXCHANGE_WAITS
	} state;          /* before the start and after the end; for the network; for a token or the next try */
	CURL *easy;       /* while it runs */
	int64_t try_at;   /* while it waits; 0: until a token has come */
	int64_t begin_by; /* of an optional one: when its answer must have begun, whatever it waits for until then */
	unsigned retries;
	uint64_t skipped;
	struct curl_slist *headers_sent;
	NetHeaders headers;
	NetProgress progress;
	NetResponse response;
	size_t capacity;
	bool accepted;
	int refusal;
	Error error;
	char curl_text[CURL_ERROR_SIZE];
} Exchange;

int net_http_new(int64_t timeout, NetHttp **ret_http)
{
	_cleanup_(net_http_free_p) NetHttp *http = calloc(1, sizeof(*http));
	if (!http)
		return -ENOMEM;
	http->timeout = timeout;
	http->multi = net_multi_new(CONNECTIONS);
	if (!http->multi)
		return -ENOMEM;
	int r = net_tokens_new(http->multi, http, timeout, &http->tokens);
	if (r < 0)
		return r;
	*ret_http = TAKE_PTR(http);
	return 0;
}

NetHttp *net_http_free(NetHttp *http)
{
	if (http) {
		net_tokens_free(http->tokens);
		if (http->multi)
			(void)curl_multi_cleanup(http->multi);
		free(http);
	}
	return NULL;
}

int64_t net_http_set_timeout(NetHttp *http, int64_t timeout)
{
	int64_t before = http->timeout;
	http->timeout = timeout;
	return before;
}

void net_http_set_access(NetHttp *http, const NetAccess *access)
{
	http->access = access;
	net_tokens_set_access(http->tokens, access);
}

void net_http_set_given_up(NetHttp *http, NetGivenUp *given_up, void *arg)
{
	http->given_up = given_up;
	http->given_up_arg = arg;
}

void net_response_done(NetResponse *response)
{
	free(response->body);
	*response = (NetResponse){ 0 };
}

bool net_is_unreachable(int code)
{
	return code == -EHOSTUNREACH || code == -ECONNRESET || code == -ETIMEDOUT || code == -EREMOTEIO;
}

static int check_headers(Exchange *exchange)
{
	const NetRequest *request = exchange->request;
	if (request->ranged)
		return net_headers_check_range(&exchange->headers, request->offset, request->size, &exchange->error);
	if (exchange->headers.status != 200 && !(request->put && exchange->headers.status == 201))
		return net_status_error(exchange->headers.status, &exchange->error);
	return 0;
}

static size_t on_header(char *line, size_t unit, size_t count, void *arg)
{
	Exchange *exchange = arg;
	size_t size = unit * count;
	if (exchange->accepted)
		return size; /* a trailer */
	net_headers_add(&exchange->headers, line, size);
	if (!exchange->headers.complete)
		return size;
	/* Interim answers are no progress: another follows them, which has to come in the same time. */
	if (exchange->headers.status / 100 == 1)
		return size;
	net_progress_mark(&exchange->progress);
	if (net_route_goes_on(&exchange->route, &exchange->headers))
		return size;
	exchange->refusal = check_headers(exchange);
	if (exchange->refusal < 0)
		return 0;
	exchange->accepted = true;
	return size;
}

/* Memory follows the bytes that came, not the length that was announced. */
static int reserve(Exchange *exchange, size_t size)
{
	if (size <= exchange->capacity)
		return 0;
	size_t capacity = exchange->capacity ? exchange->capacity : BODY_START;
	while (capacity < size)
		capacity *= 2;
	if (capacity > exchange->request->size)
		capacity = (size_t)exchange->request->size;
	uint8_t *body = realloc(exchange->response.body, capacity);
	if (!body)
		return -ENOMEM;
	exchange->response.body = body;
	exchange->capacity = capacity;
	return 0;
}

static size_t on_body(char *data, size_t unit, size_t count, void *arg)
{
	Exchange *exchange = arg;
	NetResponse *response = &exchange->response;
	size_t size = unit * count;
	if (!exchange->accepted) {
		exchange->skipped += size;
		return exchange->skipped <= SKIP_MAX ? size : 0;
	}
	if (size > exchange->request->size - response->size) {
		exchange->refusal = error_set(&exchange->error, -EFBIG, "the answer is longer than %llu bytes",
					      (unsigned long long)exchange->request->size);
		return 0;
	}
	exchange->refusal = reserve(exchange, response->size + size);
	if (exchange->refusal < 0)
		return 0;
	memcpy(response->body + response->size, data, size);
	response->size += size;
	net_progress_add(&exchange->progress, size);
	return size;
}

static int prepare(NetHttp *http, Exchange *exchange)
{
	const NetRequest *request = exchange->request;
	int r = net_route_open(&exchange->route, http->access, http->tokens, &exchange->easy, &exchange->error);
	if (r < 0)
		return r;
	CURL *easy = exchange->easy;
	char text[256];
	if (request->ranged) {
		(void)snprintf(text, sizeof(text), "%llu-%llu", (unsigned long long)request->offset,
			       (unsigned long long)(request->offset + request->size - 1));
		if (curl_easy_setopt(easy, CURLOPT_RANGE, text) != CURLE_OK)
			return -ENOMEM;
	}
	if (request->accept) {
		(void)snprintf(text, sizeof(text), "Accept: %s", request->accept);
		exchange->headers_sent = curl_slist_append(NULL, text);
		if (!exchange->headers_sent)
			return -ENOMEM;
		(void)curl_easy_setopt(easy, CURLOPT_HTTPHEADER, exchange->headers_sent);
	}
	(void)curl_easy_setopt(easy, CURLOPT_NOBODY, request->head ? 1L : 0L);
	if (request->put) {
		(void)curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE, (long)request->put_size);
		(void)curl_easy_setopt(easy, CURLOPT_POSTFIELDS, request->put);
		if (curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, "PUT") != CURLE_OK)
			return -ENOMEM;
	}
	(void)curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, exchange->curl_text);
	(void)curl_easy_setopt(easy, CURLOPT_PRIVATE, exchange);
	(void)curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
	(void)curl_easy_setopt(easy, CURLOPT_HEADERDATA, exchange);
	(void)curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
	(void)curl_easy_setopt(easy, CURLOPT_WRITEDATA, exchange);
	return 0;
}

static void unplug(NetHttp *http, Exchange *exchange)
{
	if (exchange->easy) {
		(void)curl_multi_remove_handle(http->multi, exchange->easy);
		curl_easy_cleanup(exchange->easy);
	}
	curl_slist_free_all(exchange->headers_sent);
	exchange->easy = NULL;
	exchange->headers_sent = NULL;
	exchange->state = EXCHANGE_IDLE;
}

static void stop(NetHttp *http, Exchange *exchange)
{
	unplug(http, exchange);
	net_route_done(&exchange->route);
}

/* Lets it wait until then, or for a token (0). */
static int park(NetHttp *http, Exchange *exchange, int64_t try_at)
{
	unplug(http, exchange);
	exchange->state = EXCHANGE_WAITS;
	exchange->try_at = try_at;
	return 0;
}

static int64_t limit(const NetHttp *http, const Exchange *exchange)
{
	return exchange->request->optional && http->timeout > OPTIONAL_TIMEOUT ? OPTIONAL_TIMEOUT : http->timeout;
}

/* Makes the next attempt, or the first. 0 also when it has to wait for a token. */
static int attempt(NetHttp *http, Exchange *exchange)
{
	unplug(http, exchange);
	net_response_done(&exchange->response);
	exchange->capacity = 0;
	exchange->accepted = false;
	exchange->refusal = 0;
	exchange->headers = (NetHeaders){ 0 };
	exchange->error = (Error){ 0 };
	exchange->curl_text[0] = '\0';
	exchange->progress.limit = limit(http, exchange);
	net_progress_mark(&exchange->progress);
	int r = prepare(http, exchange);
	if (r == -EAGAIN)
		return park(http, exchange, 0);
	if (r == 0 && curl_multi_add_handle(http->multi, exchange->easy) != CURLM_OK)
		r = -ENOMEM;
	if (r == 0)
		exchange->state = EXCHANGE_RUNS;
	return r;
}

static int start(NetHttp *http, Exchange *exchange)
{
	exchange->begin_by = exchange->request->optional ? net_now() + limit(http, exchange) : INT64_MAX;
	int r = net_route_init(&exchange->route, exchange->request->url);
	return r < 0 ? r : attempt(http, exchange);
}

static int judge(Exchange *exchange, CURLcode code)
{
	if (exchange->refusal < 0)
		return exchange->refusal;
	if (code != CURLE_OK && code != CURLE_WRITE_ERROR)
		return net_tls_error(exchange->easy, code, exchange->curl_text, &exchange->error);
	if (!exchange->accepted)
		return net_status_error(exchange->headers.status, &exchange->error);
	if (exchange->request->ranged && exchange->response.size < exchange->request->size)
		return error_set(&exchange->error, -ECONNRESET, "the server's answer ends too early");
	exchange->response.has_digest = exchange->headers.has_digest;
	exchange->response.digest = exchange->headers.digest;
	return 0;
}

static int report(Exchange *exchange, int code, Error *error)
{
	const char *sentence = exchange->error.message[0]       ? exchange->error.message
			       : exchange->curl_text[0] != '\0' ? exchange->curl_text
								: error_text(NULL, code);
	return error_set(error, code, "%s: %s", exchange->request->url, sentence);
}

/* The requests of one call. */
typedef struct Batch {
	NetHttp *http;
	Exchange *exchanges;
	size_t count;
	size_t started;
	size_t finished;
} Batch;

/* A request has failed, and all of the call with it, unless it can be done without. */
static int fail(Batch *batch, Exchange *exchange, int code, Error *error)
{
	if (!exchange->request->optional || code == -ENOMEM)
		return report(exchange, code, error);
	stop(batch->http, exchange);
	net_response_done(&exchange->response);
	batch->finished++;
	return 0;
}

/* A step on the way is over. 0: it has gone on to the next. */
static int go_on(NetHttp *http, Exchange *exchange)
{
	int r = net_route_follow(&exchange->route, exchange->easy, &exchange->headers, http->tokens, &exchange->error);
	if (r == -EAGAIN)
		return park(http, exchange, 0);
	return r < 0 ? r : attempt(http, exchange);
}

/* Is it worth while to ask again, and when? What cannot be reached at all is not: a node has to start without its build host. */
static bool retry_later(Exchange *exchange, int code, int64_t *ret_when)
{
	if ((code != -EREMOTEIO && code != -ECONNRESET) || exchange->retries == RETRIES_MAX ||
	    exchange->request->optional)
		return false;
	int64_t wait = (int64_t)RETRY_FIRST << exchange->retries++, asked = net_easy_retry_after(exchange->easy);
	if (asked > wait)
		wait = asked;
	*ret_when = net_now() + wait;
	return wait <= RETRY_LAST;
}

/* An attempt has ended. Says whether that was the last one. */
static int end_attempt(NetHttp *http, Exchange *exchange, CURLcode code, bool *ret_over)
{
	*ret_over = false;
	bool ended = code == CURLE_OK || code == CURLE_WRITE_ERROR;
	if (ended && !exchange->accepted && exchange->refusal == 0 && exchange->headers.complete &&
	    net_route_goes_on(&exchange->route, &exchange->headers))
		return go_on(http, exchange);
	int64_t when;
	int r = judge(exchange, code);
	if (r < 0 && retry_later(exchange, r, &when))
		return park(http, exchange, when);
	*ret_over = true;
	return r;
}

/* Lets all go on whose time has come: now, or with the token. */
static int wake(Batch *batch, bool token, Error *error)
{
	int64_t now = net_now();
	for (size_t i = 0; i < batch->started; i++) {
		Exchange *exchange = &batch->exchanges[i];
		if (exchange->state != EXCHANGE_WAITS || (exchange->try_at == 0 ? !token : exchange->try_at > now))
			continue;
		int r = attempt(batch->http, exchange);
		if (r < 0)
			r = fail(batch, exchange, r, error);
		if (r < 0)
			return r;
	}
	return 0;
}

/* The request for a token has failed: so has what waits for it, if something does. */
static int fail_waiting(Batch *batch, const Error *why, Error *error)
{
	for (size_t i = 0; i < batch->started; i++) {
		Exchange *exchange = &batch->exchanges[i];
		if (exchange->state == EXCHANGE_WAITS && exchange->try_at == 0) {
			exchange->error = *why;
			int r = fail(batch, exchange, why->code, error);
			if (r < 0)
				return r;
		}
	}
	return 0;
}

static int end_token(Batch *batch, CURLcode code, Error *error)
{
	Error why = { 0 };
	int r = net_tokens_complete(batch->http->tokens, code, &why);
	return r < 0 ? fail_waiting(batch, &why, error) : wake(batch, true, error);
}

static int end_exchange(Batch *batch, Exchange *exchange, CURLcode code, Error *error)
{
	bool over;
	int r = end_attempt(batch->http, exchange, code, &over);
	if (r < 0)
		return fail(batch, exchange, r, error);
	if (over) {
		stop(batch->http, exchange);
		batch->finished++;
	}
	return 0;
}

static int collect(Batch *batch, Error *error)
{
	int left;
	for (CURLMsg *message; (message = curl_multi_info_read(batch->http->multi, &left));) {
		if (message->msg != CURLMSG_DONE)
			continue;
		char *private = NULL;
		CURLcode code = message->data.result;
		(void)curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &private);
		int r = (NetHttp *)(void *)private == batch->http
				? end_token(batch, code, error)
				: end_exchange(batch, (Exchange *)(void *)private, code, error);
		if (r < 0)
			return r;
	}
	return 0;
}

/* When it will have taken too long, if nothing comes until then. */
static int64_t fails_at(const Exchange *exchange)
{
	int64_t stalls_at = exchange->state == EXCHANGE_RUNS ? net_progress_deadline(&exchange->progress) : INT64_MAX;
	return exchange->accepted || stalls_at < exchange->begin_by ? stalls_at : exchange->begin_by;
}

/* Fails when a request has stalled; otherwise says how long to wait for the next one that might, or may be tried again. */
static int check_progress(Batch *batch, int *ret_wait, Error *error)
{
	int64_t now = net_now(), next = now + INT_MAX;
	if (net_tokens_deadline(batch->http->tokens) <= now) {
		Error why = { 0 };
		int r = net_tokens_expire(batch->http->tokens, &why);
		if (r < 0)
			r = fail_waiting(batch, &why, error);
		if (r < 0)
			return r;
	}
	if (net_tokens_deadline(batch->http->tokens) < next)
		next = net_tokens_deadline(batch->http->tokens);
	for (size_t i = 0; i < batch->started; i++) {
		Exchange *exchange = &batch->exchanges[i];
		int64_t at = fails_at(exchange);
		if (exchange->state != EXCHANGE_IDLE && at <= now) {
			(void)error_set(&exchange->error, -ETIMEDOUT, "no answer within %lld ms",
					(long long)exchange->progress.limit);
			int r = fail(batch, exchange, -ETIMEDOUT, error);
			if (r < 0)
				return r;
		}
		if (exchange->state == EXCHANGE_WAITS && exchange->try_at != 0 && exchange->try_at < at)
			at = exchange->try_at;
		if (exchange->state != EXCHANGE_IDLE && at < next)
			next = at;
	}
	*ret_wait = next < now ? 0 : (int)(next - now);
	return 0;
}

static bool is_given_up(const NetHttp *http)
{
	return http->given_up && http->given_up(http->given_up_arg);
}

static int run(Batch *batch, Error *error)
{
	NetHttp *http = batch->http;
	while (batch->finished < batch->count) {
		size_t finished = batch->finished;
		if (is_given_up(http))
			return error_set(error, -ECANCELED, "given up: nobody waits for it any more");
		while (batch->started < batch->count && batch->started - batch->finished < CONNECTIONS) {
			Exchange *exchange = &batch->exchanges[batch->started++];
			int r = start(http, exchange);
			if (r < 0)
				r = fail(batch, exchange, r, error);
			if (r < 0)
				return r;
		}
		int wait = 0, running;
		int r = check_progress(batch, &wait, error);
		if (r < 0)
			return r;
		if (http->given_up && wait > GIVEN_UP_MS)
			wait = GIVEN_UP_MS;
		if (batch->finished > finished)
			wait = 0; /* done without: others can begin, or that was the last one */
		if (curl_multi_poll(http->multi, NULL, 0, wait, NULL) != CURLM_OK ||
		    curl_multi_perform(http->multi, &running) != CURLM_OK)
			return error_set(error, -ENOMEM, "libcurl failed, probably for lack of memory");
		r = collect(batch, error);
		if (r == 0)
			r = wake(batch, false, error);
		if (r < 0)
			return r;
	}
	return 0;
}

int net_http_perform(NetHttp *http, const NetRequest *requests, size_t count, NetResponse *responses, Error *error)
{
	Exchange *exchanges = calloc(count ? count : 1, sizeof(*exchanges));
	if (!exchanges)
		return error_set(error, -ENOMEM, "out of memory");
	for (size_t i = 0; i < count; i++)
		exchanges[i].request = &requests[i];
	Batch batch = { .http = http, .exchanges = exchanges, .count = count };
	int r = run(&batch, error);
	for (size_t i = 0; i < count; i++) {
		stop(http, &exchanges[i]);
		if (r == 0)
			responses[i] = exchanges[i].response;
		else
			net_response_done(&exchanges[i].response);
	}
	free(exchanges);
	return r;
}
