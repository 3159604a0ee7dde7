#include <errno.h>
#include <string.h>

#include "fs/base/error.h"
#include "fs/fetch/fetch-private.h"

#define BACK_OFF_FIRST 1000  /* milliseconds; doubled with each failure */
#define BACK_OFF_LAST  60000 /* also of what a host asks for: by then it may well be the only one */
#define LACKS_TIME \
	30000 /* for which a mirror that lacks chunks of a blob is not asked for that blob: it may be filling */
#define LIES_TIME     600000
#define TELL_INTERVAL 60000
#define PROOF_PARTS   8      /* which are worth asking a host for that may not give them */
#define PROOF_TIME    600000 /* after which it is asked again that did not */

/* Those that nobody has measured come first, each once, in the order of the configuration. 0: there is none. */
static unsigned best_of(const FetchBlob *blob, bool sources, int64_t now)
{
	const Fetcher *fetcher = blob->fetcher;
	unsigned best = 0;
	for (unsigned i = 1; i <= fetcher->access.mirror_count; i++) {
		const FetchMirror *mirror = &fetcher->mirrors[i - 1];
		if (fetcher->access.mirrors[i - 1].is_source != sources || blob->shunned[i - 1] > now ||
		    mirror->not_before > now)
			continue;
		if (mirror->speed == 0)
			return i;
		if (best == 0 || mirror->speed > fetcher->mirrors[best - 1].speed)
			best = i;
	}
	return best;
}

unsigned fetch_mirror_pick(const FetchBlob *blob, int64_t now)
{
	unsigned best = best_of(blob, false, now);
	if (best > 0 || (blob->fetcher->origin.not_before <= now && blob->origin_shunned <= now))
		return best;
	return best_of(blob, true, now);
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
	(void)error_set(&error, -EIO, "%s %s is passed over: %s",
			fetcher->access.mirrors[range->mirror - 1].is_source ? "source" : "mirror",
			fetcher->access.mirrors[range->mirror - 1].base, sentence);
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

static FetchMirror *mirror_of(const FetchRange *range)
{
	Fetcher *fetcher = range->fetcher;
	return range->mirror == 0 ? &fetcher->origin : &fetcher->mirrors[range->mirror - 1];
}

static void shun(const FetchRange *range, int64_t time)
{
	FetchBlob *blob = range->blob;
	int64_t *until = range->mirror == 0 ? &blob->origin_shunned : &blob->shunned[range->mirror - 1];
	*until = fetch_now() + time;
}

unsigned fetch_mirror_parts_max(const Fetcher *fetcher, unsigned mirror, int64_t now, unsigned *ret_least)
{
	const FetchMirror *asked = mirror == 0 ? &fetcher->origin : &fetcher->mirrors[mirror - 1];
	*ret_least = asked->gives_parts ? 2 : PROOF_PARTS;
	return asked->parts_not_before <= now ? FETCH_PARTS_MAX : 1;
}

void fetch_mirror_asked(const FetchRange *range)
{
	FetchMirror *mirror = mirror_of(range);
	if (range->part_count > 1 && !mirror->gives_parts)
		mirror->parts_not_before = range->started + PROOF_TIME;
}

/* Is it the request that lets the host prove itself, and not one from before it failed? */
static bool is_trial(const FetchRange *range)
{
	const FetchMirror *mirror = mirror_of(range);
	return range->part_count > 1 && !mirror->gives_parts && mirror->parts_not_before == range->started + PROOF_TIME;
}

void fetch_mirror_cut(const FetchRange *range)
{
	if (is_trial(range))
		mirror_of(range)->parts_not_before = 0;
}

/* What has been learnt of a host that was asked for several ranges at once. */
static void note_parts(const FetchRange *range, int result)
{
	FetchMirror *mirror = mirror_of(range);
	switch (result) {
	case 0:
		if (is_trial(range)) {
			mirror->gives_parts = true;
			mirror->parts_not_before = 0;
		}
		break;
	case -EOPNOTSUPP:
		mirror->gives_parts = false;
		mirror->parts_not_before = fetch_now() + PROOF_TIME;
		break;
	case -ENOENT:
	case -EACCES:
	case -ENOMEM:
		fetch_mirror_cut(range); /* says nothing of several ranges */
		break;
	default: /* perhaps these are what breaks it: it has to prove it again, and a trial is over */
		mirror->gives_parts = false;
	}
}

void fetch_mirror_ended(const FetchRange *range, int result, const char *sentence, int64_t retry_after)
{
	FetchMirror *mirror = mirror_of(range);
	int64_t delay = BACK_OFF_LAST;
	if (range->part_count > 1)
		note_parts(range, result);
	if (result == -EOPNOTSUPP)
		return;
	if (result == 0) {
		mirror->failures = 0;
		measure(mirror, range);
		return;
	}
	/* What a host does not have is no fault of it. */
	if (result == -ENOENT || result == -ERANGE) {
		shun(range, LACKS_TIME);
		return;
	}
	if (mirror->failures < 6)
		delay = (int64_t)BACK_OFF_FIRST << mirror->failures;
	if (retry_after > delay)
		delay = retry_after;
	mirror->failures++;
	mirror->not_before = fetch_now() + (delay < BACK_OFF_LAST ? delay : BACK_OFF_LAST);
	if (range->mirror > 0)
		tell(range, sentence);
	if (range->mirror > 0 && result == -EACCES)
		fetch_renew_login(range->fetcher);
}

void fetch_mirror_lied(const FetchRange *range)
{
	shun(range, LIES_TIME);
	if (range->mirror > 0)
		tell(range, "what came is not what the index says");
}
