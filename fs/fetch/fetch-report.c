#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fs/base/error.h"
#include "fs/fetch/fetch-private.h"
#include "fs/net/net-secret.h"

#define BACK_OFF_FIRST  50
#define BACK_OFF_LAST   2000
#define REPORT_INTERVAL 10000
#define RENEW_INTERVAL  500   /* milliseconds between two questions for another login */
#define ASKED_MAX       10000 /* Retry-After: enough to be polite, and less than most readers' deadlines */

/* Any jitter will do that differs between nodes and between attempts (xorshift64). */
static uint32_t jitter(void)
{
	static _Thread_local uint64_t state;
	if (state == 0) {
		struct timespec now;
		(void)clock_gettime(CLOCK_REALTIME, &now);
		state = ((uint64_t)now.tv_nsec << 32 ^ (uint64_t)now.tv_sec ^ (uint64_t)getpid() << 20) | 1;
	}
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)(state >> 32);
}

void fetch_back_off(FetchBackOff *back_off, int64_t started, int64_t wait)
{
	int64_t now = fetch_now();
	/* Attempts that were under way when another failed tell nothing new: they do not make the delay longer. */
	if (back_off->failures > 0 && started < back_off->failed_at)
		return;
	int64_t delay = BACK_OFF_LAST;
	if (back_off->failures < 6)
		delay = BACK_OFF_FIRST << back_off->failures;
	if (delay > BACK_OFF_LAST)
		delay = BACK_OFF_LAST;
	int64_t not_before = now + delay * 3 / 4 + jitter() % (uint32_t)(delay / 2);
	back_off->asked = wait > 0;
	if (wait > ASKED_MAX)
		wait = ASKED_MAX;
	/* Later by up to an eighth, so that not all nodes come back at once. */
	if (wait > 0 && now + wait > not_before)
		not_before = now + wait + jitter() % (uint32_t)(wait / 8 + 1);
	back_off->failures++;
	back_off->failed_at = now;
	back_off->not_before = not_before;
}

static void tell(Fetcher *fetcher, const Error *error)
{
	if (fetcher->options.report)
		fetcher->options.report(fetcher->options.report_arg, error->message);
}

static bool is_time(int64_t *last)
{
	int64_t now = fetch_now();
	if (*last != 0 && now - *last < REPORT_INTERVAL)
		return false;
	*last = now;
	return true;
}

/* When this reason was told the last time. A new one takes the place of the one that was told first. */
static int64_t *failure_time(FetchTold *told, int code)
{
	size_t oldest = 0;
	for (size_t i = 0; i < FETCH_REASONS; i++) {
		if (told->failures[i].at != 0 && told->failures[i].code == code)
			return &told->failures[i].at;
		if (told->failures[i].at < told->failures[oldest].at)
			oldest = i;
	}
	told->failures[oldest].code = code;
	told->failures[oldest].at = 0;
	return &told->failures[oldest].at;
}

void fetch_renew_login(Fetcher *fetcher)
{
	int64_t now = fetch_now();
	if (!fetcher->options.renew ||
	    (fetcher->told.renewed_at != 0 && now - fetcher->told.renewed_at < RENEW_INTERVAL))
		return;
	fetcher->told.renewed_at = now;
	char *text = fetcher->options.renew(fetcher->options.renew_arg);
	_cleanup_(net_access_done) NetAccess newer = { 0 };
	if (text && net_access_decode(text, &newer) == 0 && net_access_renew(&fetcher->access, &newer))
		net_loop_set_access(fetcher->loop, &fetcher->access);
	net_secret_wipe(&text);
}

void fetch_report_failure(Fetcher *fetcher, FetchBlob *blob, int code, const char *sentence)
{
	if (code == -EACCES)
		fetch_renew_login(fetcher);
	if (!is_time(failure_time(&fetcher->told, code)))
		return;
	Error error = { 0 };
	(void)error_set(&error, code, "cannot fetch from %s: %s; trying again", blob->url, sentence);
	blob->failing = true;
	tell(fetcher, &error);
}

void fetch_report_success(Fetcher *fetcher, FetchBlob *blob)
{
	if (!blob->failing)
		return;
	Error error = { 0 };
	(void)error_set(&error, 0, "fetching from %s works again", blob->url);
	blob->failing = false;
	tell(fetcher, &error);
}

void fetch_report_decoded(Fetcher *fetcher)
{
	uint64_t failures = atomic_load_explicit(&fetcher->metrics->decoded_failures, memory_order_relaxed);
	if (failures == fetcher->told.decoded_failures || !is_time(&fetcher->told.decoded_at))
		return;
	fetcher->told.decoded_failures = failures;
	Error error = { 0 };
	(void)error_set(&error, -EBADMSG,
			"a decoded copy is not as it was written (%llu reads so far): it was evicted, or the disk has "
			"lost it; the layer itself is read instead, and imgfs pull --decoded makes the copy anew",
			(unsigned long long)failures);
	tell(fetcher, &error);
}

void fetch_report_disk(Fetcher *fetcher, int code)
{
	if (!is_time(&fetcher->told.disk_at))
		return;
	Error error = { 0 };
	(void)error_set(&error, code,
			"cannot write to the cache: %s; serving without it, at the price of fetching again",
			error_text(NULL, code));
	tell(fetcher, &error);
}
