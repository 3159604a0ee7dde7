#include "fs/mount/backoff.h"

unsigned backoff_next(Backoff *backoff, int64_t lifetime, bool killed)
{
	if (killed || lifetime >= BACKOFF_SHORT_LIFE) {
		backoff->short_lives = 0;
		return 0;
	}
	if (backoff->short_lives < BACKOFF_FREE + 16)
		backoff->short_lives++;
	if (backoff->short_lives < BACKOFF_FREE)
		return 0;
	unsigned delay = 50u << (backoff->short_lives - BACKOFF_FREE);
	return delay < BACKOFF_MAX ? delay : BACKOFF_MAX;
}
