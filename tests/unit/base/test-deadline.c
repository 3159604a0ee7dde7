#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>

#include "fs/base/deadline.h"

static int64_t nanoseconds(const struct timespec *time)
{
	return (int64_t)time->tv_sec * 1000000000 + time->tv_nsec;
}

static void test_carries(void **state)
{
	(void)state;
	/* Whatever the fraction of a second is now, one of these has to be carried. */
	for (int64_t milliseconds = 0; milliseconds < 3000; milliseconds += 333) {
		struct timespec before = deadline_in(0), time = deadline_in(milliseconds), after = deadline_in(0);
		assert_in_range(time.tv_nsec, 0, 999999999);
		assert_true(nanoseconds(&time) >= nanoseconds(&before) + milliseconds * 1000000);
		assert_true(nanoseconds(&time) <= nanoseconds(&after) + milliseconds * 1000000);
	}
}

static void test_is_over(void **state)
{
	(void)state;
	struct timespec now = deadline_in(0), later = deadline_in(3600000);
	assert_true(deadline_is_over(&now));
	assert_false(deadline_is_over(&later));
}

/* By another clock than the deadline's the wait would end at once, or not for decades. */
static void test_conditions_have_its_clock(void **state)
{
	(void)state;
	pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
	pthread_cond_t cond;
	deadline_cond_init(&cond);
	struct timespec time = deadline_in(50);
	(void)pthread_mutex_lock(&mutex);
	int r;
	do
		r = pthread_cond_timedwait(&cond, &mutex, &time);
	while (r == 0);
	(void)pthread_mutex_unlock(&mutex);
	assert_int_equal(r, ETIMEDOUT);
	assert_true(deadline_is_over(&time));
	(void)pthread_cond_destroy(&cond);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_carries),
		cmocka_unit_test(test_is_over),
		cmocka_unit_test(test_conditions_have_its_clock),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
