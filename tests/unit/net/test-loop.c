#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "fs/net/net-loop.h"
#include "tests/unit/net/net-fixture.h"

typedef struct Result {
	uint8_t *bytes;
	uint64_t size;
	unsigned ends;
	int result;
	char sentence[256];
	int64_t retry_after;
} Result;

static void on_data(void *arg, const uint8_t *data, size_t size)
{
	Result *result = arg;
	memcpy(result->bytes + result->size, data, size);
	result->size += size;
}

static void on_end(void *arg, int code, const char *sentence, int64_t retry_after)
{
	Result *result = arg;
	result->ends++;
	result->result = code;
	result->retry_after = retry_after;
	(void)snprintf(result->sentence, sizeof(result->sentence), "%s", sentence ?: "");
}

/* The buffer is exactly as long as the range, so that a sanitizer sees a byte too many. */
static NetTransfer *start(NetLoop *loop, const NetFixture *fixture, uint64_t offset, uint64_t size, Result *result)
{
	*result = (Result){ .bytes = malloc(size) };
	assert_non_null(result->bytes);
	NetRange range = {
		.url = fixture->url,
		.offset = offset,
		.size = size,
		.stall = 200,
		.data = on_data,
		.end = on_end,
		.arg = result,
	};
	NetTransfer *transfer;
	assert_int_equal(net_loop_start(loop, &range, &transfer), 0);
	return transfer;
}

static void run_to_end(NetLoop *loop, const Result *result)
{
	while (result->ends == 0)
		assert_int_equal(net_loop_run(loop, 1000), 0);
	assert_int_equal(result->ends, 1);
}

static void test_ranges(void **state)
{
	NetFixture *fixture = *state;
	NetLoop *loop;
	Result results[10];
	assert_int_equal(net_loop_new(4, &loop), 0);
	for (uint32_t i = 0; i < 10; i++)
		(void)start(loop, fixture, i * 1000, 1 + i * 20000, &results[i]);
	for (size_t i = 0; i < 10; i++) {
		run_to_end(loop, &results[i]);
		assert_int_equal(results[i].result, 0);
		assert_int_equal(results[i].size, 1 + i * 20000);
		assert_memory_equal(results[i].bytes, fixture->content + i * 1000, results[i].size);
		free(results[i].bytes);
	}
	assert_null(net_loop_free(loop));
}

static void expect(NetFixture *fixture, FakeFault fault, int code, const char *word)
{
	NetLoop *loop;
	Result result;
	assert_int_equal(net_loop_new(4, &loop), 0);
	fake_server_fault(fixture->server, fault, 0);
	(void)start(loop, fixture, 10, 100000, &result);
	run_to_end(loop, &result);
	assert_int_equal(result.result, code);
	if (!strstr(result.sentence, word))
		print_error("%s\n", result.sentence);
	assert_non_null(strstr(result.sentence, word));
	assert_int_equal(code < 0, result.sentence[0] != '\0');
	assert_int_equal(result.retry_after, fault == FAKE_ERROR ? 1000 : 0);
	if (code == 0)
		assert_memory_equal(result.bytes, fixture->content + 10, 100000);
	free(result.bytes);
	assert_null(net_loop_free(loop));
}

static void test_faults(void **state)
{
	NetFixture *fixture = *state;
	expect(fixture, FAKE_NONE, 0, "");
	expect(fixture, FAKE_REDIRECT, 0, "");
	expect(fixture, FAKE_TOO_LONG, 0, "");
	expect(fixture, FAKE_STALL_REQUEST, -ETIMEDOUT, "sends nothing");
	expect(fixture, FAKE_STALL_HEADERS, -ETIMEDOUT, "sends nothing");
	expect(fixture, FAKE_STALL_BODY, -ETIMEDOUT, "sends nothing");
	expect(fixture, FAKE_TRICKLE, -ETIMEDOUT, "sends nothing");
	expect(fixture, FAKE_INTERIM, -ETIMEDOUT, "sends nothing");
	expect(fixture, FAKE_RESET_BODY, -ECONNRESET, "");
	expect(fixture, FAKE_TRUNCATE, -ECONNRESET, "");
	expect(fixture, FAKE_ERROR, -EREMOTEIO, "503");
	expect(fixture, FAKE_NOT_FOUND, -ENOENT, "404");
	expect(fixture, FAKE_DENIED, -EACCES, "403");
	expect(fixture, FAKE_WHOLE, -EPROTO, "ignores ranges");
	expect(fixture, FAKE_WRONG_RANGE, -EPROTO, "another range");
	expect(fixture, FAKE_NO_RANGE, -EPROTO, "Content-Range");
	expect(fixture, FAKE_REDIRECT_LOOP, -ELOOP, "redirects");
	expect(fixture, FAKE_REDIRECT_FILE, -EPROTO, "file");
	fake_server_kill(fixture->server);
	expect(fixture, FAKE_NONE, -EHOSTUNREACH, "");
}

/* A refused answer hands out no byte. */
static void test_wrong_answer_gives_nothing(void **state)
{
	NetFixture *fixture = *state;
	static const FakeFault faults[] = { FAKE_WHOLE, FAKE_WRONG_RANGE, FAKE_NO_RANGE, FAKE_ERROR,
					    FAKE_REDIRECT_FILE };
	for (size_t i = 0; i < ELEMENTS(faults); i++) {
		NetLoop *loop;
		Result result;
		assert_int_equal(net_loop_new(4, &loop), 0);
		fake_server_fault(fixture->server, faults[i], 0);
		(void)start(loop, fixture, 0, 10, &result);
		run_to_end(loop, &result);
		assert_int_equal(result.size, 0);
		free(result.bytes);
		assert_null(net_loop_free(loop));
	}
}

static const NetSpan spans[] = { { .offset = 10, .size = 1 },
				 { .offset = 20000, .size = 50000 },
				 { .offset = FILE_SIZE - 7, .size = 7 } };

/* Asks for all of `spans` in one request. */
static void expect_parts(NetFixture *fixture, FakeFault fault, int code, const char *word)
{
	NetLoop *loop;
	NetTransfer *transfer;
	Result result = { .bytes = malloc(50008) };
	NetRange range = {
		.url = fixture->url,
		.size = 50008,
		.spans = spans,
		.span_count = ELEMENTS(spans),
		.stall = 200,
		.data = on_data,
		.end = on_end,
		.arg = &result,
	};
	assert_non_null(result.bytes);
	assert_int_equal(net_loop_new(4, &loop), 0);
	fake_server_fault(fixture->server, fault, 0);
	assert_int_equal(net_loop_start(loop, &range, &transfer), 0);
	run_to_end(loop, &result);
	assert_int_equal(result.result, code);
	assert_non_null(strstr(result.sentence, word));
	assert_int_equal(code < 0, result.sentence[0] != '\0');
	if (code == 0)
		assert_int_equal(result.size, 50008);
	for (uint64_t i = 0, at = 0; i < ELEMENTS(spans) && code == 0; at += spans[i++].size)
		assert_memory_equal(result.bytes + at, fixture->content + spans[i].offset, spans[i].size);
	if (code == -EOPNOTSUPP)
		assert_int_equal(result.size, 0);
	free(result.bytes);
	assert_null(net_loop_free(loop));
}

static void test_several_ranges(void **state)
{
	NetFixture *fixture = *state;
	expect_parts(fixture, FAKE_NONE, -EOPNOTSUPP, "with one");
	fake_server_give_parts(fixture->server, true);
	expect_parts(fixture, FAKE_NONE, 0, "");
	expect_parts(fixture, FAKE_REDIRECT, 0, "");
	expect_parts(fixture, FAKE_WHOLE, -EOPNOTSUPP, "status 200");
	expect_parts(fixture, FAKE_WRONG_RANGE, -EOPNOTSUPP, "another one");
	expect_parts(fixture, FAKE_NO_RANGE, -EOPNOTSUPP, "without Content-Range");
	expect_parts(fixture, FAKE_ERROR, -EOPNOTSUPP, "status 503");
	expect_parts(fixture, FAKE_NOT_FOUND, -ENOENT, "404");
	expect_parts(fixture, FAKE_DENIED, -EOPNOTSUPP, "status 403");
	expect_parts(fixture, FAKE_STALL_BODY, -ETIMEDOUT, "sends nothing");
	expect_parts(fixture, FAKE_RESET_BODY, -ECONNRESET, "");
	expect_parts(fixture, FAKE_TRUNCATE, -ECONNRESET, "");
}

static void test_bad_url(void **state _unused_)
{
	NetLoop *loop;
	NetTransfer *transfer;
	NetRange range = { .url = "file:///etc/passwd", .size = 1, .data = on_data, .end = on_end };
	assert_int_equal(net_loop_new(4, &loop), 0);
	assert_int_equal(net_loop_start(loop, &range, &transfer), -EINVAL);
	range.url = "";
	assert_int_equal(net_loop_start(loop, &range, &transfer), -EINVAL);
	assert_null(net_loop_free(loop));
	assert_null(net_loop_free(NULL));
}

static void test_cut(void **state)
{
	NetFixture *fixture = *state;
	NetLoop *loop;
	Result cut, other, left;
	assert_int_equal(net_loop_new(4, &loop), 0);
	fake_server_fault(fixture->server, FAKE_STALL_BODY, 1);
	NetTransfer *transfer = start(loop, fixture, 0, 1000, &cut);
	while (cut.size == 0)
		assert_int_equal(net_loop_run(loop, 10), 0);
	net_loop_cut(loop, transfer);
	(void)start(loop, fixture, 0, 1000, &other);
	run_to_end(loop, &other);
	assert_int_equal(other.result, 0);
	assert_int_equal(cut.ends, 0);
	(void)start(loop, fixture, 0, 1000, &left); /* the loop's end cuts it */
	assert_null(net_loop_free(loop));
	assert_int_equal(left.ends, 0);
	free(cut.bytes);
	free(other.bytes);
	free(left.bytes);
}

static void *wake_later(void *arg)
{
	struct timespec pause = { .tv_nsec = 20000000 };
	(void)nanosleep(&pause, NULL);
	net_loop_wake(arg);
	return NULL;
}

static void test_wake(void **state _unused_)
{
	NetLoop *loop;
	pthread_t thread;
	assert_int_equal(net_loop_new(4, &loop), 0);
	assert_int_equal(pthread_create(&thread, NULL, wake_later, loop), 0);
	assert_int_equal(net_loop_run(loop, INT64_MAX), 0); /* hangs unless it is woken */
	assert_int_equal(pthread_join(thread, NULL), 0);
	net_loop_wake(loop);
	assert_int_equal(net_loop_run(loop, INT64_MAX), 0); /* woken before */
	assert_null(net_loop_free(loop));
}

static void test_connections_are_kept(void **state)
{
	NetFixture *fixture = *state;
	NetLoop *loop;
	assert_int_equal(net_loop_new(4, &loop), 0);
	for (size_t i = 0; i < 10; i++) {
		Result result;
		(void)start(loop, fixture, i, 100, &result);
		run_to_end(loop, &result);
		assert_int_equal(result.result, 0);
		free(result.bytes);
	}
	FakeCounts counts;
	fake_server_counts(fixture->server, &counts);
	assert_int_equal(counts.connections, 1);
	assert_null(net_loop_free(loop));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_ranges, net_fixture_start, net_fixture_stop),
		cmocka_unit_test_setup_teardown(test_faults, net_fixture_start, net_fixture_stop),
		cmocka_unit_test_setup_teardown(test_wrong_answer_gives_nothing, net_fixture_start, net_fixture_stop),
		cmocka_unit_test_setup_teardown(test_several_ranges, net_fixture_start, net_fixture_stop),
		cmocka_unit_test(test_bad_url),
		cmocka_unit_test_setup_teardown(test_cut, net_fixture_start, net_fixture_stop),
		cmocka_unit_test(test_wake),
		cmocka_unit_test_setup_teardown(test_connections_are_kept, net_fixture_start, net_fixture_stop),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
