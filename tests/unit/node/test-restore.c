/* A manager that starts again, a machine that has started again, and a keeper that dies. */
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "fs/base/fd.h"
#include "fs/cache/cache-evict.h"
#include "tests/unit/node/node-fixture.h"

#define OTHER "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void test_manager_again(void **state)
{
	NodeFixture *fixture = *state;
	node_fixture_start(fixture);
	assert_int_equal(node_fixture_attach(fixture, "me", "a:1"), 1);
	assert_int_equal(node_fixture_attach(fixture, "you", "a:1"), 1);
	assert_int_equal(node_fixture_attach(fixture, "they", "b:1"), 2);
	for (int i = 0; i < 3; i++) {
		node_fixture_stop(fixture);
		fixture->fault = -EHOSTUNREACH; /* nothing has to be opened for it */
		node_fixture_start(fixture);
		json_t *entry = node_fixture_entry(fixture, "you");
		assert_string_equal(json_string_value(json_object_get(entry, "state")), "attached");
		assert_non_null(strstr(json_string_value(json_object_get(entry, "path")), "/fs/xattr/"));
		json_decref(entry);
	}
	assert_int_equal(fake_keeper_counts().attaches, 2);
	assert_int_equal(fake_keeper_counts().detaches, 0);
	assert_int_equal(node_fixture_detach(fixture, "me"), 0);
	assert_int_equal(node_fixture_detach(fixture, "you"), 0);
	assert_int_equal(fake_keeper_size(), 1);
	fixture->fault = 0;
	assert_int_equal(node_fixture_attach(fixture, "me", "c:1"), 3);
}

static void test_reboot(void **state)
{
	NodeFixture *fixture = *state;
	node_fixture_start(fixture);
	assert_int_equal(node_fixture_attach(fixture, "gone", "x:1"), 1);
	assert_int_equal(node_fixture_attach(fixture, "me", "a:1"), 2);
	assert_int_equal(node_fixture_attach(fixture, "you", "b:1"), 3);
	assert_int_equal(node_fixture_detach(fixture, "gone"), 0);
	node_fixture_stop(fixture);
	fake_keeper_die();
	node_fixture_start(fixture);
	assert_true(fake_keeper_has(2) && fake_keeper_has(3));
	assert_int_equal(fake_keeper_size(), 2);
	/* Numbers go on where they were. */
	assert_int_equal(node_fixture_attach(fixture, "gone", "x:1"), 4);
}

static void test_strangers_go(void **state)
{
	NodeFixture *fixture = *state;
	node_fixture_start(fixture);
	assert_int_equal(node_fixture_attach(fixture, "me", "a:1"), 1);
	node_fixture_stop(fixture);
	fake_keeper_add(7, OTHER);
	node_fixture_start(fixture);
	assert_int_equal(fake_keeper_size(), 1);
	assert_true(fake_keeper_has(1));
}

/* Files of the image with the highest number may be open still. */
static void test_slots_lost(void **state)
{
	NodeFixture *fixture = *state;
	node_fixture_start(fixture);
	node_fixture_stop(fixture);
	fake_keeper_add(7, OTHER);
	node_fixture_start(fixture);
	assert_int_equal(fake_keeper_size(), 0);
	assert_int_equal(node_fixture_attach(fixture, "me", "a:1"), 8);
	node_fixture_stop(fixture);
	node_fixture_start(fixture);
	assert_int_equal(node_fixture_attach(fixture, "you", "b:1"), 9);
}

/* The same of an image that is detached already: the keeper says which was the highest that it ever had. */
static void test_state_lost(void **state)
{
	NodeFixture *fixture = *state;
	char path[160];
	node_fixture_start(fixture);
	for (int i = 1; i < 4; i++) {
		assert_int_equal(node_fixture_attach(fixture, "me", "a:1"), i);
		assert_int_equal(node_fixture_detach(fixture, "me"), 0);
	}
	node_fixture_stop(fixture);
	(void)snprintf(path, sizeof(path), "%s/slots", fixture->state);
	assert_int_equal(unlink(path), 0);
	node_fixture_start(fixture);
	assert_int_equal(node_fixture_attach(fixture, "me", "b:1"), 4);
	/* Another keeper has other mounts, but the file is there again. */
	node_fixture_stop(fixture);
	fake_keeper_die();
	node_fixture_start(fixture);
	assert_int_equal(node_fixture_attach(fixture, "you", "c:1"), 5);
}

/* The first file of a directory that is none of the owner's. */
static void spoil(const NodeFixture *fixture, const char *owner, const char *text)
{
	char path[320], hex[DIGEST_HEX_SIZE];
	Digest digest;
	assert_int_equal(digest_of(owner, strlen(owner), &digest), 0);
	(void)snprintf(path, sizeof(path), "%s/attached/%s.json", fixture->state, digest_hex(&digest, hex));
	assert_int_equal(fd_replace_file(AT_FDCWD, path, text, strlen(text), 0600), 0);
}

static void test_damaged_state(void **state)
{
	NodeFixture *fixture = *state;
	char path[160];
	node_fixture_start(fixture);
	assert_int_equal(node_fixture_attach(fixture, "me", "a:1"), 1);
	assert_int_equal(node_fixture_attach(fixture, "you", "b:1"), 2);
	node_fixture_stop(fixture);
	fake_keeper_die();
	spoil(fixture, "me", "{\"imgfsRecord\": 1, \"request\": {}");
	(void)snprintf(path, sizeof(path), "%s/attached/.tmp-0123", fixture->state);
	assert_int_equal(fd_replace_file(AT_FDCWD, path, "x", 1, 0600), 0);
	(void)snprintf(path, sizeof(path), "%s/slots", fixture->state);
	_cleanup_close_ int fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
	assert_int_equal(fd_write_all(fd, "3 0123", 6), 0);
	node_fixture_start(fixture);
	assert_int_equal(fake_keeper_size(), 1);
	assert_true(fake_keeper_has(2));
	(void)snprintf(path, sizeof(path), "%s/attached/.tmp-0123", fixture->state);
	assert_int_equal(access(path, F_OK), -1);
	/* The torn line was never used. */
	assert_int_equal(node_fixture_attach(fixture, "they", "c:1"), 3);
}

/* Programs may use what a record that is damaged was about: it stays, and who attaches it gets it as it is. */
static void test_damaged_record_in_use(void **state)
{
	NodeFixture *fixture = *state;
	node_fixture_start(fixture);
	assert_int_equal(node_fixture_attach(fixture, "me", "a:1"), 1);
	assert_int_equal(node_fixture_attach(fixture, "you", "b:1"), 2);
	node_fixture_stop(fixture);
	spoil(fixture, "me", "{}");
	node_fixture_start(fixture);
	assert_int_equal(fake_keeper_size(), 2);
	assert_int_equal(node_fixture_attach(fixture, "me", "a:1"), 1);
	node_fixture_stop(fixture);
	node_fixture_start(fixture);
	assert_int_equal(fake_keeper_size(), 2);
}

static void test_one_manager_at_a_time(void **state)
{
	NodeFixture *fixture = *state;
	node_fixture_start(fixture);
	Node *second = NULL;
	Error error = { 0 };
	assert_int_equal(node_new(&fixture->node->options, &second, &error), -EBUSY);
	assert_non_null(strstr(error.message, "another imgfsd has"));
	/* Nor with another state, in which nobody holds what the keeper has. */
	NodeOptions options = fixture->node->options;
	char state_path[160];
	(void)snprintf(state_path, sizeof(state_path), "%s-2", fixture->state);
	options.state = state_path;
	error = (Error){ 0 };
	assert_int_equal(node_new(&options, &second, &error), -EBUSY);
	assert_non_null(strstr(error.message, "--runtime"));
}

/* What cannot be opened yet is tried again until it can; the others do not wait for it. */
static void test_back_after_all(void **state)
{
	NodeFixture *fixture = *state;
	node_fixture_start(fixture);
	assert_int_equal(node_fixture_attach(fixture, "me", "a:1"), 1);
	node_fixture_stop(fixture);
	fake_keeper_die();
	fixture->fault = -EHOSTUNREACH;
	fixture->keeps = true;
	node_fixture_start(fixture);
	json_t *entry = node_fixture_entry(fixture, "me");
	assert_string_equal(json_string_value(json_object_get(entry, "state")), "away");
	assert_string_equal(json_string_value(json_object_get(entry, "fault")), "the store is away");
	json_decref(entry);
	fixture->fault = 0;
	node_fixture_await(fixture, "me", "attached");
	assert_true(fake_keeper_has(1));
	entry = node_fixture_entry(fixture, "me");
	assert_null(json_object_get(entry, "fault"));
	json_decref(entry);
}

static void lose_keeper(NodeFixture *fixture)
{
	/* As the main loop does when the descriptor hangs up. */
	node_lock(fixture->node);
	fixture->node->lost = true;
	node_changed(fixture->node);
	node_unlock(fixture->node);
}

static void test_keeper_dies(void **state)
{
	NodeFixture *fixture = *state;
	fixture->keeps = true;
	node_fixture_start(fixture);
	assert_int_equal(node_fixture_attach(fixture, "me", "a:1"), 1);
	assert_int_equal(node_fixture_attach(fixture, "you", "b:1"), 2);
	fake_keeper_die();
	lose_keeper(fixture);
	for (int i = 0; i < 3000 && fake_keeper_size() < 2; i++)
		usleep(10000);
	node_fixture_await(fixture, "me", "attached");
	node_fixture_await(fixture, "you", "attached");
	assert_true(fake_keeper_has(1) && fake_keeper_has(2));
	/* One that dies of a request is replaced, and the request is made again. */
	fake_keeper_die_at_next_attach();
	assert_int_equal(node_fixture_attach(fixture, "they", "c:1"), 3);
	node_fixture_await(fixture, "me", "attached");
	for (int i = 0; i < 3000 && fake_keeper_size() < 3; i++)
		usleep(10000);
	assert_int_equal(fake_keeper_size(), 3);
	assert_int_equal(node_fixture_detach(fixture, "me"), 0);
	assert_int_equal(fake_keeper_size(), 2);
}

/* What is logged from here on goes to memory; returns where it went before. */
static int catch_log(int *ret_memory)
{
	int before = dup(STDERR_FILENO);
	*ret_memory = memfd_create("log", MFD_CLOEXEC);
	assert_true(before >= 0 && *ret_memory >= 0);
	assert_int_equal(dup2(*ret_memory, STDERR_FILENO), STDERR_FILENO);
	return before;
}

static char *end_log(int before, int memory)
{
	static char text[4096];
	assert_int_equal(dup2(before, STDERR_FILENO), STDERR_FILENO);
	ssize_t size = pread(memory, text, sizeof(text) - 1, 0);
	assert_true(size >= 0);
	text[size] = '\0';
	(void)close(before);
	(void)close(memory);
	return text;
}

static void await_opens(unsigned wanted)
{
	for (int i = 0; i < 3000 && fake_keeper_counts().opens < wanted; i++)
		usleep(10000);
	assert_true(fake_keeper_counts().opens >= wanted);
}

/* A keeper that is late is not called dead, unless another one is there afterwards. */
static void test_keeper_is_late(void **state)
{
	NodeFixture *fixture = *state;
	fixture->keeps = true;
	node_fixture_start(fixture);
	assert_int_equal(node_fixture_attach(fixture, "me", "a:1"), 1);
	for (int dies = 0; dies < 2; dies++) {
		int memory, before = catch_log(&memory);
		unsigned opens = fake_keeper_counts().opens;
		fake_keeper_be_late_at_next_attach();
		assert_int_equal(node_fixture_attach(fixture, "you", "b:1"), -ETIMEDOUT);
		if (dies)
			fake_keeper_die();
		lose_keeper(fixture);
		await_opens(opens + 1);
		node_fixture_await(fixture, "me", "attached");
		const char *log = end_log(before, memory);
		assert_non_null(strstr(log, "has not answered in time"));
		assert_true(!strstr(log, "has died") == !dies);
	}
}

static void test_keeper_cannot_be_started(void **state)
{
	NodeFixture *fixture = *state;
	fixture->keeps = true;
	node_fixture_start(fixture);
	assert_int_equal(node_fixture_attach(fixture, "me", "a:1"), 1);
	fake_keeper_refuse(-EACCES);
	fake_keeper_die();
	lose_keeper(fixture);
	unsigned before = fake_keeper_counts().opens;
	while (fake_keeper_counts().opens < before + 2)
		usleep(10000);
	node_fixture_await(fixture, "me", "away");
	fake_keeper_refuse(0);
	node_fixture_await(fixture, "me", "attached");
	/* And at the start it is an error with a sentence. */
	node_fixture_stop(fixture);
	fake_keeper_refuse(-EACCES);
	_cleanup_(node_free_p) Node *node = NULL;
	Error error = { 0 };
	NodeOptions options = { .runtime = fixture->runtime,
				.state = fixture->state,
				.cache = fixture->cache,
				.start_keeper = true,
				.ready_fd = -1 };
	assert_int_equal(node_new(&options, &node, NULL), 0);
	assert_int_equal(node_restore(node, &error), -EACCES);
	assert_string_equal(error.message, "the fake keeper refuses");
}

/* An eviction that was killed is ended, though there is no quota. */
static void test_unfinished_eviction(void **state)
{
	NodeFixture *fixture = *state;
	char path[256];
	fixture->keeps = true;
	node_fixture_start(fixture);
	(void)snprintf(path, sizeof(path), "%s/evict.lock", fixture->cache);
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0 && ftruncate(fd, 1) == 0);
	(void)close(fd);
	for (unsigned i = 0; i < 3000 && cache_evict_is_unfinished(fixture->node->cache); i++)
		(void)usleep(10000);
	assert_false(cache_evict_is_unfinished(fixture->node->cache));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_manager_again, node_fixture_set_up, node_fixture_tear_down),
		cmocka_unit_test_setup_teardown(test_reboot, node_fixture_set_up, node_fixture_tear_down),
		cmocka_unit_test_setup_teardown(test_strangers_go, node_fixture_set_up, node_fixture_tear_down),
		cmocka_unit_test_setup_teardown(test_slots_lost, node_fixture_set_up, node_fixture_tear_down),
		cmocka_unit_test_setup_teardown(test_state_lost, node_fixture_set_up, node_fixture_tear_down),
		cmocka_unit_test_setup_teardown(test_damaged_state, node_fixture_set_up, node_fixture_tear_down),
		cmocka_unit_test_setup_teardown(test_damaged_record_in_use, node_fixture_set_up,
						node_fixture_tear_down),
		cmocka_unit_test_setup_teardown(test_one_manager_at_a_time, node_fixture_set_up,
						node_fixture_tear_down),
		cmocka_unit_test_setup_teardown(test_back_after_all, node_fixture_set_up, node_fixture_tear_down),
		cmocka_unit_test_setup_teardown(test_keeper_dies, node_fixture_set_up, node_fixture_tear_down),
		cmocka_unit_test_setup_teardown(test_keeper_is_late, node_fixture_set_up, node_fixture_tear_down),
		cmocka_unit_test_setup_teardown(test_keeper_cannot_be_started, node_fixture_set_up,
						node_fixture_tear_down),
		cmocka_unit_test_setup_teardown(test_unfinished_eviction, node_fixture_set_up, node_fixture_tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
