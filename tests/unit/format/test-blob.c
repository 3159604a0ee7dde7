/* The footer and the compressed index. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>
#include <xxhash.h>
#include <zstd.h>

#include "fs/base/bytes.h"
#include "fs/format/blob.h"

static const BlobFooter sample = {
	.tar_size = 1000000,
	.index_offset = 500000,
	.index_size = 4000,
	.image_size = 20000,
	.index_digest = { { 1, 2, 3 } },
	.diff_id = { { 4, 5, 6 } },
	.chunk_count = 10,
};
#define BLOB_SIZE (500000u + 4000u + FORMAT_FOOTER_SIZE)

static void test_footer_layout(void **state)
{
	(void)state;
	uint8_t bytes[FORMAT_FOOTER_SIZE];
	BlobFooter footer;
	blob_footer_encode(&sample, bytes);
	assert_memory_equal(bytes, "\x5f\x2a\x4d\x18\x88\0\0\0imgfsblb\x01\0\0\0\0\0\0\0", 24);
	assert_int_equal(load_le64(bytes + 8 + 16), 1000000);
	assert_int_equal(load_le64(bytes + 8 + 24), 500000);
	assert_int_equal(load_le32(bytes + 8 + 112), 10);
	assert_int_equal(blob_footer_decode(bytes, BLOB_SIZE, &footer, NULL), 0);
	assert_memory_equal(&footer, &sample, offsetof(BlobFooter, chunk_count) + sizeof(uint32_t));
}

static void test_footer_rot(void **state)
{
	(void)state;
	uint8_t bytes[FORMAT_FOOTER_SIZE];
	BlobFooter footer;
	blob_footer_encode(&sample, bytes);
	for (size_t at = 0; at < sizeof(bytes); at++) {
		bytes[at] ^= 0x10;
		assert_int_equal(blob_footer_decode(bytes, BLOB_SIZE, &footer, NULL), -EBADMSG);
		bytes[at] ^= 0x10;
	}
	assert_int_equal(blob_footer_decode(bytes, BLOB_SIZE - 1, &footer, NULL), -EBADMSG);
	assert_int_equal(blob_footer_decode(bytes, BLOB_SIZE + 1, &footer, NULL), -EBADMSG);
	assert_int_equal(blob_footer_decode(bytes, FORMAT_FOOTER_SIZE, &footer, NULL), -EBADMSG);
}

/* A footer whose sum is right, but one of whose fields is not. */
static int decode_with(size_t at, uint32_t value)
{
	uint8_t bytes[FORMAT_FOOTER_SIZE];
	BlobFooter footer;
	blob_footer_encode(&sample, bytes);
	store_le32(bytes + 8 + at, value);
	store_le64(bytes + 8 + 128, XXH64(bytes + 8, 128, 0));
	return blob_footer_decode(bytes, BLOB_SIZE, &footer, NULL);
}

static void test_footer_fields(void **state)
{
	(void)state;
	assert_int_equal(decode_with(8, 1), 0);
	assert_int_equal(decode_with(8, 2), -EPROTONOSUPPORT);
	assert_int_equal(decode_with(12, 1), -EPROTONOSUPPORT);
	assert_int_equal(decode_with(16, 9), -EBADMSG); /* a tar of 9 bytes in 10 chunks */
	assert_int_equal(decode_with(20, 1), -EBADMSG); /* a tar larger than 10 chunks can hold */
	assert_int_equal(decode_with(24, 500001), -EBADMSG);
	assert_int_equal(decode_with(28, UINT32_MAX), -EBADMSG);
	assert_int_equal(decode_with(32, 3999), -EBADMSG);
	assert_int_equal(decode_with(44, 2), -EBADMSG); /* an image of 8 GiB */
	assert_int_equal(decode_with(112, 0), -EBADMSG);
	assert_int_equal(decode_with(116, 1), -EBADMSG);
	assert_int_equal(decode_with(124, 1), -EBADMSG);
}

static uint8_t *encode(const void *image, size_t image_size, size_t *ret_size)
{
	uint8_t *data;
	assert_int_equal(blob_index_encode(image, image_size, &data, ret_size), 0);
	return data;
}

static int decode(const uint8_t *data, size_t size)
{
	_cleanup_free_ uint8_t *image = NULL;
	Error error = { 0 };
	size_t image_size;
	int r = blob_index_decode(data, size, &image, &image_size, &error);
	if (r < 0)
		assert_int_not_equal(error.message[0], '\0');
	return r;
}

static void test_index_round_trip(void **state)
{
	(void)state;
	const size_t sizes[] = { 0, 1, 100000, (4u << 20) - 1, 4u << 20, 64u << 20 };
	for (size_t i = 0; i < ELEMENTS(sizes); i++) {
		_cleanup_free_ uint8_t *image = calloc(1, sizes[i] + 1), *data = NULL, *back = NULL;
		assert_non_null(image);
		for (size_t at = 0; at < sizes[i]; at += 1000)
			image[at] = (uint8_t)(at / 1000);
		size_t size, back_size;
		data = encode(image, sizes[i], &size);
		assert_int_equal(load_le32(data), FORMAT_INDEX_MAGIC);
		assert_int_equal(load_le32(data + 4), size - 8);
		assert_int_equal(blob_index_decode(data, size, &back, &back_size, NULL), 0);
		assert_int_equal(back_size, sizes[i]);
		assert_memory_equal(back, image, sizes[i]);
	}
}

/* Both ways to encode give the image back; the fast one is for those who would rather wait less. */
static void test_index_fast(void **state)
{
	(void)state;
	/* Records that resemble each other with something random in each, as an index has them. */
	uint8_t image[16000];
	uint32_t random = 1;
	for (size_t i = 0; i < sizeof(image); i++) {
		random = random * 1103515245 + 12345;
		image[i] = (uint8_t)(i % 20 < 4 ? random >> 24 : i % 20 * 7 + (random >> 31));
	}
	_cleanup_free_ uint8_t *small = NULL, *fast = NULL, *back = NULL;
	size_t small_size, fast_size, back_size;
	small = encode(image, sizeof(image), &small_size);
	assert_int_equal(blob_index_encode_fast(image, sizeof(image), &fast, &fast_size), 0);
	assert_true(small_size < fast_size);
	assert_int_equal(blob_index_decode(fast, fast_size, &back, &back_size, NULL), 0);
	assert_int_equal(back_size, sizeof(image));
	assert_memory_equal(back, image, sizeof(image));
}

static void test_index_refused(void **state)
{
	(void)state;
	uint8_t image[5000];
	memset(image, 'i', sizeof(image));
	size_t size;
	_cleanup_free_ uint8_t *data = encode(image, sizeof(image), &size);
	for (size_t cut = 0; cut < size; cut++) {
		_cleanup_free_ uint8_t *exact = malloc(cut + 1);
		memcpy(exact, data, cut);
		assert_int_equal(decode(exact, cut), -EBADMSG);
		if (cut >= 12) {
			store_le32(exact + 4, (uint32_t)(cut - 8));
			assert_int_equal(decode(exact, cut), -EBADMSG);
		}
	}

	/* Two zstd frames, a zstd skippable frame, and a frame that does not state its size. */
	_cleanup_free_ uint8_t *two = malloc(3 * size + 100);
	memcpy(two, data, size);
	memcpy(two + size, data + 8, size - 8);
	store_le32(two + 4, (uint32_t)(2 * (size - 8)));
	assert_int_equal(decode(two, 8 + 2 * (size - 8)), -EBADMSG);
	store_le32(two + 4, 16);
	memcpy(two + 8, "\x50\x2a\x4d\x18\x08\0\0\0\0\0\0\0\0\0\0\0", 16);
	assert_int_equal(decode(two, 24), -EBADMSG);
	ZSTD_CCtx *context = ZSTD_createCCtx();
	assert_false(ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_contentSizeFlag, 0)));
	size_t unsized = ZSTD_compress2(context, two + 8, 3 * size, image, sizeof(image));
	(void)ZSTD_freeCCtx(context);
	assert_false(ZSTD_isError(unsized));
	store_le32(two + 4, (uint32_t)unsized);
	assert_int_equal(decode(two, 8 + unsized), -EBADMSG);
}

/* A frame of 22 bytes that claims to hold 2^62 is refused before memory is asked for it. */
static void test_index_huge(void **state)
{
	(void)state;
	uint8_t data[30] = { 0x5e, 0x2a, 0x4d, 0x18, 22, 0, 0, 0, 0x28, 0xb5, 0x2f, 0xfd, 0xc0, 0 };
	store_le64(data + 14, UINT64_C(1) << 62);
	/* One raw block, the last, that fills the rest. */
	uint32_t block = (uint32_t)(sizeof(data) - 25) << 3 | 1;
	memcpy(data + 22, &(uint32_t){ htole32(block) }, 3);
	assert_int_equal(decode(data, sizeof(data)), -EFBIG);
	store_le64(data + 14, FORMAT_IMAGE_MAX + 1);
	assert_int_equal(decode(data, sizeof(data)), -EFBIG);
	store_le64(data + 14, 6);
	assert_int_equal(decode(data, sizeof(data)), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_footer_layout), cmocka_unit_test(test_footer_rot),
		cmocka_unit_test(test_footer_fields), cmocka_unit_test(test_index_round_trip),
		cmocka_unit_test(test_index_refused), cmocka_unit_test(test_index_huge),
		cmocka_unit_test(test_index_fast),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
