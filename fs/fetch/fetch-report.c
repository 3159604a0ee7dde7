#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fs/base/error.h"
#include "fs/fetch/fetch-private.h"

#define BACK_OFF_FIRST  50
#define BACK_OFF_LAST   2000
#define REPORT_INTERVAL 10000

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

void fetch_back_off(FetchBackOff *back_off, int64_t started)
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
	back_off->failures++;
	back_off->failed_at = now;
	back_off->not_before = now + delay * 3 / 4 + jitter() % (uint32_t)(delay / 2);
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

void fetch_report_failure(Fetcher *fetcher, const FetchBlob *blob, const char *sentence)
{
	if (!is_time(&fetcher->told.failure_at))
		return;
	Error error = { 0 };
	(void)error_set(&error, -EIO, "cannot fetch from %s: %s; trying again", blob->url, sentence);
	fetcher->told.failing = true;
	tell(fetcher, &error);
}

void fetch_report_success(Fetcher *fetcher, const FetchBlob *blob)
{
	if (!fetcher->told.failing)
		return;
	Error error = { 0 };
	(void)error_set(&error, 0, "fetching from %s works again", blob->url);
	fetcher->told.failing = false;
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
