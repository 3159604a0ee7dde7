#include "fs/base/deadline.h"

#define NANOSECONDS 1000000000L

void deadline_cond_init(pthread_cond_t *ret_cond)
{
	pthread_condattr_t attributes;
	(void)pthread_condattr_init(&attributes);
	(void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	(void)pthread_cond_init(ret_cond, &attributes);
	(void)pthread_condattr_destroy(&attributes);
}

struct timespec deadline_in(int64_t milliseconds)
{
	struct timespec time;
	(void)clock_gettime(CLOCK_MONOTONIC, &time);
	time.tv_sec += milliseconds / 1000;
	time.tv_nsec += milliseconds % 1000 * 1000000;
	if (time.tv_nsec >= NANOSECONDS) {
		time.tv_sec++;
		time.tv_nsec -= NANOSECONDS;
	}
	return time;
}

bool deadline_is_over(const struct timespec *deadline)
{
	struct timespec now = deadline_in(0);
	return now.tv_sec > deadline->tv_sec || (now.tv_sec == deadline->tv_sec && now.tv_nsec >= deadline->tv_nsec);
}
