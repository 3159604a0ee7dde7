#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "fs/net/net-http.h"
#include "tests/unit/net/net-fixture.h"

static int perform(NetFixture *fixture, const NetRequest *requests, size_t count, NetResponse *responses, Error *error)
{
	NetHttp *http;
	assert_non_null(fixture->url);
	assert_int_equal(net_http_new(300, &http), 0);
	int r = net_http_perform(http, requests, count, responses, error);
	assert_null(net_http_free(http));
	return r;
}

static void refuse(NetFixture *fixture, FakeFault fault, const NetRequest *request, int code, const char *word)
{
	NetResponse response = { .size = 12345 };
	Error error = { 0 };
	fake_server_fault(fixture->server, fault, 0);
	assert_int_equal(perform(fixture, request, 1, &response, &error), code);
	assert_int_equal(response.size, 12345);
	if (!strstr(error.message, word) || !strstr(error.message, request->url))
		print_error("%s\n", error.message);
	assert_non_null(strstr(error.message, word));
	assert_non_null(strstr(error.message, request->url));
}

static void test_whole_and_head_and_range(void **state)
{
	NetFixture *fixture = *state;
	NetRequest requests[] = {
		{ .url = fixture->url, .size = FILE_SIZE, .accept = "text/plain" },
		{ .url = fixture->url, .head = true },
		{ .url = fixture->url, .ranged = true, .offset = 1000, .size = 70000 },
	};
	NetResponse responses[3];
	Digest digest;
	assert_int_equal(perform(fixture, requests, 3, responses, NULL), 0);
	assert_int_equal(digest_of(fixture->content, FILE_SIZE, &digest), 0);
	assert_int_equal(responses[0].size, FILE_SIZE);
	assert_memory_equal(responses[0].body, fixture->content, FILE_SIZE);
	assert_true(responses[0].has_digest && digest_equal(&responses[0].digest, &digest));
	assert_int_equal(responses[1].size, 0);
	assert_true(responses[1].has_digest && digest_equal(&responses[1].digest, &digest));
	assert_int_equal(responses[2].size, 70000);
	assert_memory_equal(responses[2].body, fixture->content + 1000, 70000);
	for (size_t i = 0; i < 3; i++)
		net_response_done(&responses[i]);
	FakeCounts counts;
	fake_server_counts(fixture->server, &counts);
	assert_int_equal(counts.heads, 1);
	assert_false(counts.accept_encoding);
}

static void test_many_on_few_connections(void **state)
{
	NetFixture *fixture = *state;
	NetRequest requests[100];
	NetResponse responses[100];
	for (uint32_t i = 0; i < 100; i++)
		requests[i] = (NetRequest){ .url = fixture->url, .ranged = true, .offset = i * 100, .size = 100 };
	assert_int_equal(perform(fixture, requests, 100, responses, NULL), 0);
	for (uint32_t i = 0; i < 100; i++) {
		assert_memory_equal(responses[i].body, fixture->content + (size_t)i * 100, 100);
		net_response_done(&responses[i]);
	}
	FakeCounts counts;
	fake_server_counts(fixture->server, &counts);
	assert_in_range(counts.connections, 1, 8);
	assert_int_equal(perform(fixture, NULL, 0, NULL, NULL), 0);
}

/* One that fails ends all; what the others got is freed. */
static void test_one_failure_fails_all(void **state)
{
	NetFixture *fixture = *state;
	NetRequest requests[20];
	NetResponse responses[20];
	for (size_t i = 0; i < 20; i++)
		requests[i] = (NetRequest){ .url = fixture->url, .size = FILE_SIZE };
	requests[13].ranged = true;
	requests[13].offset = FILE_SIZE;
	assert_int_equal(perform(fixture, requests, 20, responses, NULL), -ENOENT);
}

static void test_refusals(void **state)
{
	NetFixture *fixture = *state;
	NetRequest whole = { .url = fixture->url, .size = FILE_SIZE };
	NetRequest range = { .url = fixture->url, .ranged = true, .offset = 5, .size = 1000 };
	NetRequest small = { .url = fixture->url, .size = FILE_SIZE - 1 };
	refuse(fixture, FAKE_NOT_FOUND, &whole, -ENOENT, "does not have it");
	refuse(fixture, FAKE_DENIED, &whole, -EACCES, "does not allow it");
	refuse(fixture, FAKE_ERROR, &whole, -EREMOTEIO, "failed");
	refuse(fixture, FAKE_REDIRECT_LOOP, &whole, -ELOOP, "redirects");
	refuse(fixture, FAKE_REDIRECT_FILE, &whole, -EPROTO, "file");
	refuse(fixture, FAKE_TRUNCATE, &whole, -ECONNRESET, "");
	refuse(fixture, FAKE_RESET_BODY, &whole, -ECONNRESET, "");
	refuse(fixture, FAKE_STALL_REQUEST, &whole, -ETIMEDOUT, "no answer within 300 ms");
	refuse(fixture, FAKE_STALL_HEADERS, &whole, -ETIMEDOUT, "no answer");
	refuse(fixture, FAKE_STALL_BODY, &whole, -ETIMEDOUT, "no answer");
	refuse(fixture, FAKE_INTERIM, &whole, -ETIMEDOUT, "no answer");
	refuse(fixture, FAKE_WANT_TOKEN, &whole, -ETIMEDOUT, "no token");
	refuse(fixture, FAKE_TRICKLE, &whole, -ETIMEDOUT, "no answer");
	refuse(fixture, FAKE_WHOLE, &range, -EPROTO, "ignores ranges");
	refuse(fixture, FAKE_WRONG_RANGE, &range, -EPROTO, "another range");
	refuse(fixture, FAKE_NO_RANGE, &range, -EPROTO, "Content-Range");
	refuse(fixture, FAKE_TOO_LONG, &range, -EFBIG, "longer than 1000 bytes");
	refuse(fixture, FAKE_NONE, &small, -EFBIG, "longer than");
	fake_server_kill(fixture->server);
	refuse(fixture, FAKE_NONE, &whole, -EHOSTUNREACH, "");
	NetRequest file = { .url = "file:///etc/passwd", .size = 100000 };
	refuse(fixture, FAKE_NONE, &file, -EINVAL, "Invalid argument");
}

static void test_redirect(void **state)
{
	NetFixture *fixture = *state;
	NetRequest range = { .url = fixture->url, .ranged = true, .offset = 5, .size = 1000 };
	NetResponse response;
	fake_server_fault(fixture->server, FAKE_REDIRECT, 0);
	assert_int_equal(perform(fixture, &range, 1, &response, NULL), 0);
	assert_memory_equal(response.body, fixture->content + 5, 1000);
	net_response_done(&response);
}

/* A server that is briefly busy, or loses a connection, fails nothing. */
static void test_brief_failures(void **state)
{
	NetFixture *fixture = *state;
	NetRequest whole = { .url = fixture->url, .size = FILE_SIZE };
	static const FakeFault faults[] = { FAKE_ERROR, FAKE_RESET_BODY, FAKE_TRUNCATE };
	for (size_t i = 0; i < ELEMENTS(faults); i++) {
		NetResponse response;
		fake_server_fault(fixture->server, faults[i], 2);
		assert_int_equal(perform(fixture, &whole, 1, &response, NULL), 0);
		assert_int_equal(response.size, FILE_SIZE);
		assert_memory_equal(response.body, fixture->content, FILE_SIZE);
		net_response_done(&response);
	}
}

/* Whatever ends them without an answer: nobody waits for more. */
static void test_optional(void **state)
{
	NetFixture *fixture = *state;
	NetRequest requests[20]; /* more than are made at once */
	NetResponse responses[20];
	static const FakeFault faults[] = { FAKE_STALL_REQUEST, FAKE_WANT_TOKEN, FAKE_NOT_FOUND };
	for (size_t i = 0; i < 20; i++)
		requests[i] = (NetRequest){ .url = fixture->url, .size = FILE_SIZE, .optional = true };
	for (size_t i = 0; i < ELEMENTS(faults); i++) {
		fake_server_fault(fixture->server, faults[i], 0);
		assert_int_equal(perform(fixture, requests, 20, responses, NULL), 0);
		for (size_t k = 0; k < 20; k++)
			assert_null(responses[k].body);
	}
	requests[0].url = "file:///etc/passwd";
	assert_int_equal(perform(fixture, requests, 1, responses, NULL), 0);
	assert_null(responses[0].body);
}

static bool count_down(void *arg)
{
	int *left = arg;
	return (*left)-- <= 0;
}

/* Long before the time is over that a request may take. */
static void test_given_up(void **state)
{
	NetFixture *fixture = *state;
	_cleanup_(net_http_free_p) NetHttp *http = NULL;
	NetRequest requests[] = { { .url = fixture->url, .size = FILE_SIZE },
				  { .url = fixture->url, .size = FILE_SIZE, .optional = true } };
	NetResponse responses[2];
	int left = 3;
	assert_int_equal(net_http_new(86400000, &http), 0);
	net_http_set_given_up(http, count_down, &left);
	fake_server_fault(fixture->server, FAKE_STALL_BODY, 0);
	assert_int_equal(net_http_perform(http, requests, 1, responses, NULL), -ECANCELED);
	assert_int_equal(left, -1);
	/* What may fail is given up with the rest, and it can all be asked for again. */
	assert_int_equal(net_http_perform(http, &requests[1], 1, responses, NULL), -ECANCELED);
	fake_server_fault(fixture->server, FAKE_NONE, 0);
	net_http_set_given_up(http, NULL, NULL);
	assert_int_equal(net_http_perform(http, requests, 2, responses, NULL), 0);
	for (size_t i = 0; i < 2; i++) {
		assert_int_equal(responses[i].size, FILE_SIZE);
		net_response_done(&responses[i]);
	}
}

/* Where a request may take a day, an optional one waits two seconds for its token all the same, and the next one too. */
static void test_optional_token(void **state)
{
	NetFixture *fixture = *state;
	_cleanup_(net_http_free_p) NetHttp *http = NULL;
	NetRequest request = { .url = fixture->url, .size = FILE_SIZE, .optional = true };
	NetResponse response;
	assert_int_equal(net_http_new(86400000, &http), 0);
	fake_server_fault(fixture->server, FAKE_WANT_TOKEN, 0);
	for (int again = 0; again < 2; again++) {
		int left = 300; /* a minute at least, unless much happens */
		net_http_set_given_up(http, count_down, &left);
		assert_int_equal(net_http_perform(http, &request, 1, &response, NULL), 0);
		assert_null(response.body);
	}
}

static void test_unreachable(void **state _unused_)
{
	assert_true(net_is_unreachable(-EHOSTUNREACH));
	assert_true(net_is_unreachable(-ETIMEDOUT));
	assert_true(net_is_unreachable(-ECONNRESET));
	assert_true(net_is_unreachable(-EREMOTEIO));
	assert_false(net_is_unreachable(-ENOENT));
	assert_false(net_is_unreachable(-EACCES));
	assert_false(net_is_unreachable(-EKEYREJECTED));
	assert_false(net_is_unreachable(0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_whole_and_head_and_range, net_fixture_start, net_fixture_stop),
		cmocka_unit_test_setup_teardown(test_many_on_few_connections, net_fixture_start, net_fixture_stop),
		cmocka_unit_test_setup_teardown(test_one_failure_fails_all, net_fixture_start, net_fixture_stop),
		cmocka_unit_test_setup_teardown(test_refusals, net_fixture_start, net_fixture_stop),
		cmocka_unit_test_setup_teardown(test_redirect, net_fixture_start, net_fixture_stop),
		cmocka_unit_test_setup_teardown(test_brief_failures, net_fixture_start, net_fixture_stop),
		cmocka_unit_test_setup_teardown(test_optional, net_fixture_start, net_fixture_stop),
		cmocka_unit_test_setup_teardown(test_given_up, net_fixture_start, net_fixture_stop),
		cmocka_unit_test_setup_teardown(test_optional_token, net_fixture_start, net_fixture_stop),
		cmocka_unit_test(test_unreachable),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
