/* Start-up profiles: bytes as docs/format.md section 7 has them, ranges that merge, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>
#include <xxhash.h>

#include "fs/base/bytes.h"
#include "fs/format/profile.h"

static void make(Profile *ret_profile)
{
	*ret_profile = (Profile){ .milliseconds = 1500, .manifest = { { 1, 2, 3 } } };
	assert_int_equal(profile_add(ret_profile, 2, 10, 3), 0);
	assert_int_equal(profile_add(ret_profile, 0, 7, 1), 0);
}

static void test_bytes(_unused_ void **state)
{
	Profile profile;
	uint8_t *data;
	size_t size;
	make(&profile);
	assert_int_equal(profile_encode(&profile, &data, &size), 0);
	assert_int_equal(size, 64 + 2 * 12 + 8);
	static const uint8_t head[] = { 'i', 'm', 'g', 'f', 's', 'p', 'r', 'f', 1, 0, 0, 0, 2, 0, 0, 0, 1, 2, 3 };
	static const uint8_t rest[] = { 0xdc, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0,
					10,   0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0 };
	assert_memory_equal(data, head, sizeof(head));
	assert_memory_equal(data + 48, rest, sizeof(rest));
	assert_int_equal(load_le64(data + size - 8), XXH64(data, size - 8, 0));

	Profile again = { 0 };
	assert_int_equal(profile_decode(data, size, &again, NULL), 0);
	assert_true(digest_equal(&again.manifest, &profile.manifest));
	assert_int_equal(again.milliseconds, 1500);
	assert_int_equal(again.count, 2);
	assert_memory_equal(again.ranges, profile.ranges, 2 * sizeof(*again.ranges));
	profile_done(&again);
	profile_done(&profile);
	free(data);
}

static void test_merge(_unused_ void **state)
{
	Profile profile = { 0 };
	assert_int_equal(profile_add(&profile, 0, 5, 2), 0);
	assert_int_equal(profile_add(&profile, 0, 7, 1), 0);
	assert_int_equal(profile_add(&profile, 0, 4, 1), 0);
	assert_int_equal(profile.count, 1);
	assert_int_equal(profile.ranges[0].first, 4);
	assert_int_equal(profile.ranges[0].count, 4);
	/* Another layer, a gap, and what was there before are ranges of their own. */
	assert_int_equal(profile_add(&profile, 1, 8, 1), 0);
	assert_int_equal(profile_add(&profile, 1, 10, 1), 0);
	assert_int_equal(profile_add(&profile, 1, 10, 1), 0);
	assert_int_equal(profile.count, 4);
	assert_int_equal(profile_add(&profile, 1024, 0, 1), -EINVAL);
	assert_int_equal(profile_add(&profile, 0, 0, 0), -EINVAL);
	assert_int_equal(profile_add(&profile, 0, UINT32_MAX, 1), -EINVAL);
	for (uint32_t i = 4; i < PROFILE_RANGES_MAX; i++)
		assert_int_equal(profile_add(&profile, 0, 100 + 2 * i, 1), 0);
	assert_int_equal(profile_add(&profile, 0, 50, 1), -EFBIG);
	uint8_t *data;
	size_t size;
	assert_int_equal(profile_encode(&profile, &data, &size), 0);
	assert_int_equal(size, PROFILE_SIZE_MAX);
	free(data);
	profile_done(&profile);
}

typedef struct Damage {
	size_t at;
	uint32_t value;
	int expected;
	const char *sentence;
} Damage;

static void test_refused(_unused_ void **state)
{
	static const Damage damages[] = {
		{ 0, 0, -EBADMSG, "not a start-up profile" },
		{ 8, 2, -EPROTONOSUPPORT, "version 2" },
		{ 12, 3, -EBADMSG, "not as long" },
		{ 12, UINT32_MAX, -EBADMSG, "not as long" },
		{ 52, 2, -EBADMSG, "bits that mean nothing" },
		{ 60, 1, -EBADMSG, "bits that mean nothing" },
		{ 64, 1024, -EBADMSG, "range 0" },
		{ 72, 0, -EBADMSG, "range 0" },
		{ 84, UINT32_MAX, -EBADMSG, "range 1" },
	};
	Profile profile, again;
	uint8_t *data;
	size_t size;
	make(&profile);
	for (size_t i = 0; i < ELEMENTS(damages); i++) {
		Error error = { 0 };
		assert_int_equal(profile_encode(&profile, &data, &size), 0);
		store_le32(data + damages[i].at, damages[i].value);
		store_le64(data + size - 8, XXH64(data, size - 8, 0));
		assert_int_equal(profile_decode(data, size, &again, &error), damages[i].expected);
		assert_non_null(strstr(error.message, damages[i].sentence));
		free(data);
	}
	assert_int_equal(profile_encode(&profile, &data, &size), 0);
	for (size_t cut = 0; cut < size; cut++)
		assert_int_equal(profile_decode(data, cut, &again, NULL), -EBADMSG);
	for (size_t bit = 0; bit < size * 8; bit++) {
		data[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_true(profile_decode(data, size, &again, NULL) < 0);
		data[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	free(data);
	profile_done(&profile);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bytes),
		cmocka_unit_test(test_merge),
		cmocka_unit_test(test_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
