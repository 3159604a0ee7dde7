#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdbool.h>
#include <string.h>

#include "fs/fetch/fetch-decoded.h"
#include "fs/format/format.h"

static void add(FetchDecoded *decoded, uint64_t blob, uint32_t chunk)
{
	FetchSlot *slot = fetch_decoded_claim(decoded);
	assert_non_null(slot);
	memset(slot->content, (int)(blob + chunk), FORMAT_CHUNK_MAX);
	fetch_decoded_publish(decoded, slot, blob, chunk);
	fetch_decoded_unpin(decoded, slot);
}

static bool has(FetchDecoded *decoded, uint64_t blob, uint32_t chunk)
{
	FetchSlot *slot = fetch_decoded_find(decoded, blob, chunk);
	if (!slot)
		return false;
	assert_int_equal(slot->content[FORMAT_CHUNK_MAX - 1], (uint8_t)(blob + chunk));
	fetch_decoded_unpin(decoded, slot);
	return true;
}

static void test_finds_what_was_published(void **state _unused_)
{
	FetchDecoded decoded;
	fetch_decoded_init(&decoded);
	assert_false(has(&decoded, 1, 0));
	FetchSlot *slot = fetch_decoded_claim(&decoded);
	assert_non_null(slot);
	assert_false(has(&decoded, 1, 0));
	fetch_decoded_unpin(&decoded, slot);
	assert_false(has(&decoded, 1, 0));
	add(&decoded, 1, 0);
	assert_true(has(&decoded, 1, 0));
	assert_false(has(&decoded, 2, 0));
	assert_false(has(&decoded, 1, 1));
	fetch_decoded_done(&decoded);
}

static void test_the_oldest_makes_room(void **state _unused_)
{
	FetchDecoded decoded;
	fetch_decoded_init(&decoded);
	for (uint32_t i = 0; i < FETCH_DECODED_SLOTS; i++)
		add(&decoded, 1, i);
	assert_true(has(&decoded, 1, 0)); /* used again, so that 1 is the oldest */
	add(&decoded, 1, FETCH_DECODED_SLOTS);
	assert_true(has(&decoded, 1, 0));
	assert_false(has(&decoded, 1, 1));
	for (uint32_t i = 2; i <= FETCH_DECODED_SLOTS; i++)
		assert_true(has(&decoded, 1, i));
	fetch_decoded_done(&decoded);
}

static void test_pinned_ones_stay(void **state _unused_)
{
	FetchDecoded decoded;
	FetchSlot *pinned[FETCH_DECODED_SLOTS];
	fetch_decoded_init(&decoded);
	add(&decoded, 1, 0);
	pinned[0] = fetch_decoded_find(&decoded, 1, 0);
	assert_non_null(pinned[0]);
	for (uint32_t i = 1; i < FETCH_DECODED_SLOTS; i++) {
		pinned[i] = fetch_decoded_claim(&decoded);
		assert_non_null(pinned[i]);
	}
	assert_null(fetch_decoded_claim(&decoded));
	assert_true(has(&decoded, 1, 0));
	fetch_decoded_unpin(&decoded, pinned[0]);
	pinned[0] = fetch_decoded_claim(&decoded);
	assert_non_null(pinned[0]);
	assert_false(has(&decoded, 1, 0));
	for (uint32_t i = 0; i < FETCH_DECODED_SLOTS; i++)
		fetch_decoded_unpin(&decoded, pinned[i]);
	fetch_decoded_done(&decoded);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_finds_what_was_published),
		cmocka_unit_test(test_the_oldest_makes_room),
		cmocka_unit_test(test_pinned_ones_stay),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
