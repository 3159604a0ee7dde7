/* Waiting on a condition until a time, which becomes neither longer nor shorter when somebody sets the clock. */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

/* Makes a condition whose times are those of deadline_in(). */
void deadline_cond_init(pthread_cond_t *ret_cond);

/* That many milliseconds, 0 or more, from now: for pthread_cond_timedwait() of such a condition. */
struct timespec deadline_in(int64_t milliseconds);

bool deadline_is_over(const struct timespec *deadline);
