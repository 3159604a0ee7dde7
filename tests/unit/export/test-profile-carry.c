/* A start-up profile of one version of an image, made into one of the next. */
#include "tools/export/profile-carry.h"

#include <stdio.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "tests/unit/export/image-fixture.h"
#include "tests/unit/export/tar-builder.h"

enum { FILES = 20000 };

/* Many small files; `first` makes the chunk of the first ones another. */
static void put(StoreFixture *fixture, const char *first, const char *name, StoreImage *ret_image)
{
	Buffer tar = { 0 };
	tar_file(&tar, "first", first, strlen(first));
	for (unsigned i = 0; i < FILES; i++) {
		char path[32];
		(void)snprintf(path, sizeof(path), "file-%s%05u", first, i);
		/* The first half has other names in each version, so that these files are not to be found. */
		tar_file(&tar, i < FILES / 2 ? path : path + strlen("file-") + strlen(first), first, 3);
	}
	tar_end(&tar);
	image_fixture_put(fixture, &tar, 1, name, "v1", ret_image);
	buffer_done(&tar);
}

/* Who hands a profile in may say the same as often as the ranges of one last: it is looked at once. */
static void test_repeated(void **state _unused_)
{
	StoreFixture fixture;
	StoreImage old, new;
	Profile profile = { .count = PROFILE_RANGES_MAX }, once, often;
	Error error = { 0 };
	store_fixture_open(&fixture);
	put(&fixture, "one", "old", &old);
	put(&fixture, "two", "new", &new);
	profile.manifest = old.digest;
	profile.ranges = calloc(profile.count, sizeof(*profile.ranges));
	assert_non_null(profile.ranges);
	for (size_t i = 0; i < profile.count; i++)
		profile.ranges[i] = (ProfileRange){ .layer = 0, .first = 0, .count = UINT32_MAX };
	profile.count = 1;
	assert_int_equal(profile_carry(fixture.store, &profile, &new.digest, &once, &error), 0);
	assert_true(once.flags & PROFILE_CARRIED);
	assert_true(once.count > 0);
	profile.count = PROFILE_RANGES_MAX;
	assert_int_equal(profile_carry(fixture.store, &profile, &new.digest, &often, &error), 0);
	assert_int_equal(often.count, once.count);
	assert_memory_equal(often.ranges, once.ranges, once.count * sizeof(*once.ranges));
	profile_done(&profile);
	profile_done(&once);
	profile_done(&often);
	store_image_done(&old);
	store_image_done(&new);
	store_fixture_close(&fixture);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_repeated) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
