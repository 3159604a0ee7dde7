/* gRPC's frame, status codes and percent-encoding; expectations are grpc's own documents (PROTOCOL-HTTP2.md, statuscodes.md). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "snapshotter/wire-message.h"

static void test_prefix(void **state _unused_)
{
	uint8_t prefix[WIRE_PREFIX_SIZE];
	bool compressed;
	uint32_t size;
	wire_prefix_write(prefix, 0x010203);
	assert_memory_equal(prefix, "\0\0\1\2\3", 5);
	wire_prefix_read((const uint8_t *)"\1\xff\0\0\2", &compressed, &size);
	assert_true(compressed);
	assert_int_equal(size, 0xff000002);
}

static void test_statuses(void **state _unused_)
{
	static const struct {
		int error, status;
	} samples[] = { { 0, 0 },        { -ENOENT, 5 },      { -EEXIST, 6 }, { -EINVAL, 3 },    { -EBUSY, 9 },
			{ -EAGAIN, 14 }, { -EOPNOTSUPP, 12 }, { -ENOSPC, 8 }, { -ECANCELED, 1 }, { -EIO, 2 } };
	for (size_t i = 0; i < ELEMENTS(samples); i++) {
		assert_int_equal(wire_status_of(samples[i].error), samples[i].status);
		if (samples[i].status != WIRE_UNKNOWN)
			assert_int_equal(wire_status_errno((WireStatus)samples[i].status), samples[i].error);
	}
	assert_int_equal(wire_status_errno(WIRE_INTERNAL), -EIO);
}

static void assert_text(const char *text, const char *encoded)
{
	char value[128], again[128];
	wire_text_encode(text, value, sizeof(value));
	assert_string_equal(value, encoded);
	wire_text_decode(value, strlen(value), again, sizeof(again));
	assert_string_equal(again, text);
}

static void test_text(void **state _unused_)
{
	assert_text("plain text ~", "plain text ~");
	assert_text("100%\n", "100%25%0A");
	assert_text("\xc3\xa4", "%C3%A4");
	char value[6];
	wire_text_encode("abc\n", value, sizeof(value)); /* no half escape */
	assert_string_equal(value, "abc");
	wire_text_decode("%zz%4", 5, value, sizeof(value));
	assert_string_equal(value, "%zz%4");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_prefix),
		cmocka_unit_test(test_statuses),
		cmocka_unit_test(test_text),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
