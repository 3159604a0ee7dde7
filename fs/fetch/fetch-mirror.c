#include <errno.h>
#include <string.h>

#include "fs/base/error.h"
#include "fs/fetch/fetch-private.h"

#define BACK_OFF_FIRST 1000 /* milliseconds; doubled with each failure */
#define BACK_OFF_LAST  60000
#define LACKS_TIME \
	30000 /* for which a mirror that lacks chunks of a blob is not asked for that blob: it may be filling */
#define LIES_TIME     600000
#define TELL_INTERVAL 60000

/* Mirrors that nobody has measured come first, each once, in the order of the configuration. */
unsigned fetch_mirror_pick(const FetchBlob *blob, int64_t now)
{
	const Fetcher *fetcher = blob->fetcher;
	unsigned best = 0;
	for (unsigned i = 1; i <= fetcher->access.mirror_count; i++) {
		const FetchMirror *mirror = &fetcher->mirrors[i - 1];
		if (blob->shunned[i - 1] > now || mirror->not_before > now)
			continue;
		if (mirror->speed == 0)
			return i;
		if (best == 0 || mirror->speed > fetcher->mirrors[best - 1].speed)
			best = i;
	}
	return best;
}

static void tell(const FetchRange *range, const char *sentence)
{
	Fetcher *fetcher = range->fetcher;
	FetchMirror *mirror = &fetcher->mirrors[range->mirror - 1];
	int64_t now = fetch_now();
	Error error = { 0 };
	if (!fetcher->options.report || (mirror->told_at != 0 && now - mirror->told_at < TELL_INTERVAL))
		return;
	mirror->told_at = now;
	(void)error_set(&error, -EIO, "mirror %s is passed over: %s", fetcher->access.mirrors[range->mirror - 1].base,
			sentence);
	fetcher->options.report(fetcher->options.report_arg, error.message);
}

static void measure(FetchMirror *mirror, const FetchRange *range)
{
	int64_t elapsed = fetch_now() - range->started;
	uint64_t speed = range->size * 1000 / (uint64_t)(elapsed > 0 ? elapsed : 1);
	mirror->speed = mirror->speed == 0 ? speed : (3 * mirror->speed + speed) / 4;
	if (mirror->speed == 0)
		mirror->speed = 1;
}

void fetch_mirror_ended(const FetchRange *range, int result, const char *sentence, int64_t retry_after)
{
	FetchMirror *mirror = &range->fetcher->mirrors[range->mirror - 1];
	int64_t now = fetch_now(), delay = BACK_OFF_LAST;
	if (result == 0) {
		mirror->failures = 0;
		measure(mirror, range);
		return;
	}
	/* What a mirror does not have is no fault of it. */
	if (result == -ENOENT || result == -ERANGE) {
		range->blob->shunned[range->mirror - 1] = now + LACKS_TIME;
		return;
	}
	if (mirror->failures < 6)
		delay = (int64_t)BACK_OFF_FIRST << mirror->failures;
	mirror->failures++;
	mirror->not_before = now + (retry_after > delay ? retry_after : delay);
	tell(range, sentence);
}

void fetch_mirror_lied(const FetchRange *range)
{
	range->blob->shunned[range->mirror - 1] = fetch_now() + LIES_TIME;
	tell(range, "what came is not what the index says");
}
