/* Attaching and detaching: who shares what, what is left of a failure, and many at once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/node/node-fixture.h"

#define THREADS 20
#define TURNS   25

static void test_one(void **state)
{
	NodeFixture *fixture = *state;
	node_fixture_start(fixture);
	assert_int_equal(node_fixture_attach(fixture, "me", "a:1"), 1);
	assert_true(fake_keeper_has(1));
	json_t *entry = node_fixture_entry(fixture, "me");
	assert_string_equal(json_string_value(json_object_get(entry, "reference")), "a:1");
	assert_string_equal(json_string_value(json_object_get(entry, "state")), "attached");
	assert_false(json_is_true(json_object_get(entry, "sealed")));
	json_decref(entry);
	assert_int_equal(node_fixture_detach(fixture, "me"), 0);
	assert_int_equal(fake_keeper_size(), 0);
	assert_null(node_fixture_entry(fixture, "me"));
	assert_int_equal(node_fixture_detach(fixture, "me"), -ENOENT);
	/* Another slot, though it is the same image. */
	assert_int_equal(node_fixture_attach(fixture, "me", "a:1"), 2);
}

static void test_shared(void **state)
{
	NodeFixture *fixture = *state;
	node_fixture_start(fixture);
	assert_int_equal(node_fixture_attach(fixture, "me", "a:1"), 1);
	assert_int_equal(node_fixture_attach(fixture, "you", "a:1"), 1);
	assert_int_equal(node_fixture_attach(fixture, "they", "b:1"), 2);
	assert_int_equal(fake_keeper_counts().attaches, 2);
	assert_int_equal(node_fixture_detach(fixture, "me"), 0);
	assert_true(fake_keeper_has(1));
	assert_int_equal(node_fixture_detach(fixture, "you"), 0);
	assert_false(fake_keeper_has(1));
	assert_true(fake_keeper_has(2));
}

static void test_replaced(void **state)
{
	NodeFixture *fixture = *state;
	node_fixture_start(fixture);
	assert_int_equal(node_fixture_attach(fixture, "me", "a:1"), 1);
	assert_int_equal(node_fixture_attach(fixture, "me", "a:1"), 1);
	assert_int_equal(fake_keeper_counts().attaches, 1);
	assert_int_equal(node_fixture_attach(fixture, "me", "a:2"), 2);
	assert_false(fake_keeper_has(1));
	assert_int_equal(fake_keeper_size(), 1);
	assert_int_equal(node_fixture_detach(fixture, "me"), 0);
	assert_int_equal(fake_keeper_size(), 0);
}

static void add_to_keeper(uint32_t slot, const char *image)
{
	Digest chain_id;
	char hex[DIGEST_HEX_SIZE];
	assert_int_equal(digest_of(image, strlen(image), &chain_id), 0);
	fake_keeper_add(slot, digest_hex(&chain_id, hex));
}

/* The keeper has it from a call that nobody heard the answer of. */
static void test_keeper_has_it(void **state)
{
	NodeFixture *fixture = *state;
	node_fixture_start(fixture);
	add_to_keeper(2, "b:1");
	add_to_keeper(200, "a:1");
	assert_int_equal(node_fixture_attach(fixture, "me", "a:1"), 1);
	assert_true(fake_keeper_has(1));
	assert_false(fake_keeper_has(200));
	json_t *entry = node_fixture_entry(fixture, "me");
	assert_string_equal(json_string_value(json_object_get(entry, "state")), "attached");
	json_decref(entry);
	assert_int_equal(fake_keeper_counts().detaches, 1);
	/* Under its own number it is taken as it is. */
	assert_int_equal(node_fixture_attach(fixture, "you", "b:1"), 2);
	assert_int_equal(fake_keeper_counts().detaches, 1);
	assert_int_equal(fake_keeper_size(), 2);
}

static void test_keeper_is_busy(void **state)
{
	NodeFixture *fixture = *state;
	node_fixture_start(fixture);
	assert_int_equal(node_fixture_attach(fixture, "me", "a:1"), 1);
	fake_keeper_be_busy(2);
	assert_int_equal(node_fixture_detach(fixture, "me"), 0);
	assert_int_equal(fake_keeper_counts().detaches, 3);
	assert_int_equal(fake_keeper_size(), 0);
}

/* Nothing is left of an attach that fails; what the owner had stays. */
static void test_failures(void **state)
{
	NodeFixture *fixture = *state;
	node_fixture_start(fixture);
	fixture->fault = -EHOSTUNREACH;
	assert_int_equal(node_fixture_attach(fixture, "me", "a:1"), -EHOSTUNREACH);
	fixture->fault = 0;
	fake_keeper_fail(-EUCLEAN, 1);
	assert_int_equal(node_fixture_attach(fixture, "me", "a:1"), -EUCLEAN);
	assert_null(node_fixture_entry(fixture, "me"));
	assert_int_equal(node_fixture_attach(fixture, "me", "a:1"), 2);
	fake_keeper_fail(-ENFILE, 1);
	assert_int_equal(node_fixture_attach(fixture, "me", "a:2"), -ENFILE);
	assert_true(fake_keeper_has(2));
	node_fixture_stop(fixture);
	node_fixture_start(fixture);
	json_t *entry = node_fixture_entry(fixture, "me");
	assert_string_equal(json_string_value(json_object_get(entry, "reference")), "a:1");
	json_decref(entry);
	assert_int_equal(fake_keeper_size(), 1);
}

static void test_directories(void **state)
{
	NodeFixture *fixture = *state;
	Error error = { 0 };
	json_t *answer = NULL;
	node_fixture_start(fixture);
	static const struct {
		const char *directory;
		int result;
	} cases[] = { { "/nowhere/at/all", -ENOENT }, { "/dev/null", -ENOTDIR } };
	for (size_t i = 0; i < ELEMENTS(cases); i++) {
		_cleanup_(control_request_done) ControlRequest request = { 0 };
		assert_int_equal(control_request_parse(json_pack("{s:s, s:s, s:s, s:s, s:s}", "call", "attach", "owner",
								 "me", "reference", "a:1", "store", "/s", "directory",
								 cases[i].directory),
						       &request, NULL),
				 0);
		assert_int_equal(node_attach(fixture->node, NULL, &request, &answer, &error), cases[i].result);
		assert_non_null(strstr(error.message, cases[i].directory));
	}
	assert_int_equal(fake_keeper_counts().attaches, 0);
}

static void test_long_lists(void **state)
{
	NodeFixture *fixture = *state;
	node_fixture_start(fixture);
	char owner[1000] = "", number[16];
	memset(owner, 'o', sizeof(owner) - 1);
	for (unsigned i = 0; i < 900; i++) {
		(void)snprintf(number, sizeof(number), "%03u", i);
		memcpy(owner, number, 3);
		assert_true(node_fixture_attach(fixture, owner, i % 2 ? "a:1" : "a:2") > 0);
	}
	unsigned seen = 0, pages = 0;
	_cleanup_free_ char *after = NULL;
	do {
		json_t *answer = NULL;
		assert_int_equal(node_list(fixture->node, after, &answer, NULL), 0);
		assert_in_range(json_dumpb(answer, NULL, 0, JSON_COMPACT), 1, 1 << 20);
		seen += (unsigned)json_array_size(json_object_get(answer, "attached"));
		pages++;
		free(after);
		const char *next = json_string_value(json_object_get(answer, "next"));
		after = next ? strdup(next) : NULL;
		json_decref(answer);
	} while (after);
	assert_int_equal(seen, 900);
	assert_in_range(pages, 2, 10);
}

typedef struct Worker {
	NodeFixture *fixture;
	unsigned number;
} Worker;

static void *work(void *arg)
{
	Worker *worker = arg;
	char owner[32], image[32];
	for (unsigned i = 0; i < TURNS; i++) {
		/* Two threads use each name. */
		(void)snprintf(owner, sizeof(owner), "owner-%u", worker->number / 2);
		(void)snprintf(image, sizeof(image), "a:%u", (worker->number + i) % 5);
		assert_true(node_fixture_attach(worker->fixture, owner, image) > 0);
		int r = node_fixture_detach(worker->fixture, owner);
		assert_true(r == 0 || r == -ENOENT);
	}
	return NULL;
}

/* The keeper is never called by two threads at once, never given a slot or a chain twice, and in the end it has nothing. */
static void test_many_at_once(void **state)
{
	NodeFixture *fixture = *state;
	fixture->keeps = true;
	node_fixture_start(fixture);
	pthread_t threads[THREADS];
	Worker workers[THREADS];
	for (unsigned i = 0; i < THREADS; i++) {
		workers[i] = (Worker){ .fixture = fixture, .number = i };
		assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	assert_int_equal(fake_keeper_size(), 0);
	json_t *answer = NULL;
	assert_int_equal(node_list(fixture->node, NULL, &answer, NULL), 0);
	assert_int_equal(json_array_size(json_object_get(answer, "attached")), 0);
	json_decref(answer);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_one, node_fixture_set_up, node_fixture_tear_down),
		cmocka_unit_test_setup_teardown(test_shared, node_fixture_set_up, node_fixture_tear_down),
		cmocka_unit_test_setup_teardown(test_replaced, node_fixture_set_up, node_fixture_tear_down),
		cmocka_unit_test_setup_teardown(test_keeper_has_it, node_fixture_set_up, node_fixture_tear_down),
		cmocka_unit_test_setup_teardown(test_keeper_is_busy, node_fixture_set_up, node_fixture_tear_down),
		cmocka_unit_test_setup_teardown(test_failures, node_fixture_set_up, node_fixture_tear_down),
		cmocka_unit_test_setup_teardown(test_directories, node_fixture_set_up, node_fixture_tear_down),
		cmocka_unit_test_setup_teardown(test_long_lists, node_fixture_set_up, node_fixture_tear_down),
		cmocka_unit_test_setup_teardown(test_many_at_once, node_fixture_set_up, node_fixture_tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
