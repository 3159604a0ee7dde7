/* A host of several that has failed: for how long it is passed over, and with which login it is asked then. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>

#include "fs/fetch/fetch-private.h"

#define LONGEST 60000

/* Milliseconds from now for which the first mirror is passed over, once it has failed and asked for so much. */
static int64_t passed_over(Fetcher *fetcher, int64_t retry_after)
{
	FetchRange range = { .fetcher = fetcher, .mirror = 1 };
	fetch_mirror_ended(&range, -EREMOTEIO, "busy", retry_after);
	return fetcher->mirrors[0].not_before - fetch_now();
}

static void test_asked_to_wait(_unused_ void **state)
{
	Fetcher *fetcher = calloc(1, sizeof(*fetcher));
	assert_non_null(fetcher);
	fetcher->mirrors = calloc(1, sizeof(*fetcher->mirrors));
	assert_non_null(fetcher->mirrors);
	assert_in_range(passed_over(fetcher, 0), 1, LONGEST);
	fetcher->mirrors[0].failures = 0;
	assert_in_range(passed_over(fetcher, 20000), 2000, 20000);
	/* As much as a number can say: it is asked again within a minute all the same. */
	assert_in_range(passed_over(fetcher, (int64_t)INT32_MAX * 1000), 1, LONGEST);
	for (size_t i = 0; i < 10; i++)
		assert_in_range(passed_over(fetcher, 0), 1, LONGEST);
	free(fetcher->mirrors);
	free(fetcher);
}

#define MIRROR(LOGIN) "{\"mirrors\":[{\"base\":\"https://mirror\",\"user\":\"" LOGIN "\"}]}"

static char *newer_login(_unused_ void *arg)
{
	return strdup(MIRROR("ann:new"));
}

/* Also while the host itself, which is not asked, would take it. */
static void test_login_refused(_unused_ void **state)
{
	FetcherOptions options = { .access = MIRROR("ann:old"), .renew = newer_login };
	Fetcher *fetcher;
	assert_int_equal(fetcher_new(&options, &fetcher), 0);
	const NetAccess *access = fetcher->access.mirrors[0].access;
	FetchRange range = { .fetcher = fetcher, .mirror = 1 };
	fetch_mirror_ended(&range, -EREMOTEIO, "busy", 0);
	assert_string_equal(access->user, "ann:old");
	fetch_mirror_ended(&range, -EACCES, "no", 0);
	assert_string_equal(access->user, "ann:new");
	assert_null(fetcher_free(fetcher));
}

static void end_parts(Fetcher *fetcher, int64_t started, int result)
{
	FetchRange range = { .fetcher = fetcher, .part_count = 9, .started = started };
	fetch_mirror_ended(&range, result, "", 0);
}

/* Two hosts behind one name, say: what is still under way when one has failed decides nothing. */
static void test_hosts_that_alternate(_unused_ void **state)
{
	Fetcher *fetcher = calloc(1, sizeof(*fetcher));
	assert_non_null(fetcher);
	int64_t now = fetch_now();
	unsigned least;
	FetchRange range = { .fetcher = fetcher, .part_count = 9, .started = now - 1000 };
	fetch_mirror_asked(&range);
	assert_int_equal(fetch_mirror_parts_max(fetcher, 0, now, &least), 1);
	end_parts(fetcher, now - 1000, 0);
	assert_int_equal(fetch_mirror_parts_max(fetcher, 0, now, &least), FETCH_PARTS_MAX);
	assert_int_equal(least, 2);
	end_parts(fetcher, now - 500, -EOPNOTSUPP);
	assert_int_equal(fetch_mirror_parts_max(fetcher, 0, now, &least), 1);
	end_parts(fetcher, now - 400, 0);
	end_parts(fetcher, now - 300, -ECONNRESET);
	range.started = now - 200;
	fetch_mirror_cut(&range);
	assert_int_equal(fetch_mirror_parts_max(fetcher, 0, now + 1000, &least), 1);
	free(fetcher);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_asked_to_wait),
		cmocka_unit_test(test_login_refused),
		cmocka_unit_test(test_hosts_that_alternate),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
