/* SHA-256 and its text forms; the vectors are those of FIPS 180-2, appendix B. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "fs/base/digest-list.h"
#include "fs/base/digest.h"

#define EMPTY "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define ABC   "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

static void assert_digest(const Digest *digest, const char *hex)
{
	char text[DIGEST_HEX_SIZE];
	assert_string_equal(digest_hex(digest, text), hex);
}

static void test_vectors(void **state)
{
	(void)state;
	Digest digest;
	assert_int_equal(digest_of("abc", 3, &digest), 0);
	assert_digest(&digest, ABC);
	assert_int_equal(digest_of(NULL, 0, &digest), 0);
	assert_digest(&digest, EMPTY);
}

static void test_pieces(void **state)
{
	(void)state;
	_cleanup_(digest_state_free_p) DigestState *pieces = NULL;
	Digest digest;
	assert_int_equal(digest_state_new(&pieces), 0);
	for (int round = 0; round < 2; round++) {
		assert_int_equal(digest_state_add(pieces, "a", 1), 0);
		assert_int_equal(digest_state_add(pieces, "", 0), 0);
		assert_int_equal(digest_state_add(pieces, "bc", 2), 0);
		assert_int_equal(digest_state_end(pieces, &digest), 0);
		assert_digest(&digest, ABC);
	}
	assert_int_equal(digest_state_end(pieces, &digest), 0);
	assert_digest(&digest, EMPTY);
	assert_null(digest_state_free(NULL));
}

static void test_text(void **state)
{
	(void)state;
	Digest digest, back;
	char text[DIGEST_TEXT_SIZE];
	assert_int_equal(digest_from_hex(ABC, &digest), 0);
	assert_string_equal(digest_text(&digest, text), "sha256:" ABC);
	assert_int_equal(digest_from_text(text, &back), 0);
	assert_true(digest_equal(&digest, &back));
	assert_int_equal(digest_compare(&digest, &back), 0);
	assert_int_equal(digest_from_hex(EMPTY, &back), 0);
	assert_false(digest_equal(&digest, &back));
	assert_true(digest_compare(&digest, &back) < 0);
	assert_true(digest_compare(&back, &digest) > 0);
}

static void test_refused(void **state)
{
	(void)state;
	static const char *const hex[] = {
		"",
		"ba78",
		ABC "0",
		"BA7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
		"ga7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
		" a7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
	};
	static const char *const text[] = { "", "sha256:", ABC, "sha512:" ABC, "SHA256:" ABC, "sha256:" ABC " " };
	Digest digest = { { 42 } };
	for (size_t i = 0; i < ELEMENTS(hex); i++)
		assert_int_equal(digest_from_hex(hex[i], &digest), -EINVAL);
	for (size_t i = 0; i < ELEMENTS(text); i++)
		assert_int_equal(digest_from_text(text[i], &digest), -EINVAL);
	assert_int_equal(digest.bytes[0], 42);
}

static void test_list(void **state _unused_)
{
	_cleanup_(digest_list_done) DigestList list = { 0 };
	Digest digest = { 0 };
	assert_false(digest_list_has(&list, &digest));
	for (unsigned i = 0; i < 200; i++) {
		digest.bytes[0] = (uint8_t)(i * 77);
		assert_int_equal(digest_list_add(&list, &digest), 0);
	}
	digest_list_sort(&list);
	for (unsigned i = 0; i < 256; i++) {
		digest.bytes[0] = (uint8_t)(i * 77);
		assert_int_equal(digest_list_has(&list, &digest), i < 200);
	}
	digest_list_done(&list);
	assert_int_equal(list.count, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_list), cmocka_unit_test(test_vectors), cmocka_unit_test(test_pieces),
		cmocka_unit_test(test_text), cmocka_unit_test(test_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
