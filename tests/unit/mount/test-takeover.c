/* Requests outlive their servers; reads that wait for the network; what a server is given that it must refuse. */
#include "tests/unit/mount/mount-fixture.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

#include "fs/base/fd.h"
#include "fs/mount/recent-failures.h"

static Reply reply;

static void put(MountFixture *fixture, unsigned slot, uint32_t opcode, uint64_t node, uint64_t unique)
{
	struct {
		struct fuse_in_header header;
		union {
			struct fuse_read_in read;
			char name[40];
		} body;
	} request = { .header = { .len = sizeof(request), .opcode = opcode, .nodeid = node, .unique = unique } };
	if (opcode == FUSE_LOOKUP)
		strcpy(request.body.name, "file");
	else
		request.body.read.size = 1000;
	Journal *journal;
	assert_int_equal(journal_open(fixture->journal_fd, &journal), 0);
	memcpy(journal_slot(journal, slot), &request, sizeof(request));
	journal_free(journal);
}

/* How many requests a successor would find. */
static size_t left_in_journal(MountFixture *fixture)
{
	static unsigned slots[JOURNAL_SLOTS];
	Journal *journal;
	assert_int_equal(journal_open(fixture->journal_fd, &journal), 0);
	size_t count = journal_recover(journal, slots);
	journal_free(journal);
	return count;
}

static void test_left_behind(_unused_ void **state)
{
	MountFixture fixture;
	RunningMount running;
	mount_fixture_make(&fixture, &(MountFixtureOptions){ 0 });
	put(&fixture, 0, FUSE_LOOKUP, NODE(ROOT), 10);
	put(&fixture, 2, FUSE_READ, NODE(FILE_INODE), 12);
	put(&fixture, JOURNAL_RECEIVE_SLOTS + 5, FUSE_READ, NODE(FILE_INODE), 14);
	put(&fixture, 1, FUSE_FORGET, NODE(FILE_INODE), 16);
	mount_fixture_start(&fixture, &running);
	static const uint64_t uniques[] = { 10, 12, 14 };
	for (size_t i = 0; i < ELEMENTS(uniques); i++) {
		reply_receive(&fixture, &reply);
		assert_int_equal(reply.header.unique, uniques[i]);
		assert_int_equal(reply.header.error, 0);
		if (i > 0)
			assert_memory_equal(reply.body, fixture.blob.tar + 1, 1000);
	}
	assert_false(reply_is_there(&fixture, 50));
	mount_fixture_stop(&fixture, &running);
	assert_int_equal(left_in_journal(&fixture), 0);
	mount_fixture_done(&fixture);
}

/* What was there at each of too many deaths is answered EIO instead of killing one more. */
static void test_poison(_unused_ void **state)
{
	MountFixture fixture;
	RunningMount running;
	mount_fixture_make(&fixture, &(MountFixtureOptions){ 0 });
	put(&fixture, 0, FUSE_LOOKUP, NODE(ROOT), 10);
	for (unsigned i = 0; i < JOURNAL_TRIES_MAX; i++)
		assert_int_equal(left_in_journal(&fixture), 1);
	mount_fixture_start(&fixture, &running);
	reply_receive(&fixture, &reply);
	assert_int_equal(reply.header.unique, 10);
	assert_int_equal(reply.header.error, -EIO);
	mount_fixture_stop(&fixture, &running);
	assert_int_equal(left_in_journal(&fixture), 0);
	mount_fixture_done(&fixture);
}

static void test_fetched(_unused_ void **state)
{
	MountFixture fixture;
	RunningMount running;
	mount_fixture_make(&fixture, &(MountFixtureOptions){ .absent = true, .source = true });
	mount_fixture_start(&fixture, &running);
	assert_int_equal(request_read(&fixture, NODE(FILE_INODE), 30000, 100000, &reply), 0);
	assert_int_equal(reply.size, 100000);
	assert_memory_equal(reply.body, fixture.blob.tar + 30001, 100000);
	assert_int_equal(request_read(&fixture, NODE(SPARSE), SPARSE_SECOND - 100, 200, &reply), 0);
	assert_memory_equal(reply.body + 100, fixture.blob.tar + 70000, 100);
	mount_fixture_stop(&fixture, &running);
	mount_fixture_done(&fixture);
}

/* While reads wait for the network, others are answered, however many wait. */
static void test_waiting_blocks_nobody(_unused_ void **state)
{
	MountFixture fixture;
	RunningMount running;
	mount_fixture_make(&fixture, &(MountFixtureOptions){ .absent = true, .source = true });
	fake_server_hold(fixture.source, true);
	mount_fixture_start(&fixture, &running);
	enum { WAITING = 40 };
	for (unsigned i = 0; i < WAITING; i++)
		(void)request_read_send(&fixture, NODE(FILE_INODE), i * 7000, 7000);
	assert_int_equal(request(&fixture, FUSE_LOOKUP, NODE(ROOT), "file", 5, &reply), 0);
	fake_server_hold(fixture.source, false);
	for (unsigned i = 0; i < WAITING; i++) {
		reply_receive(&fixture, &reply);
		assert_int_equal(reply.header.error, 0);
		assert_int_equal(reply.size, 7000);
	}
	mount_fixture_stop(&fixture, &running);
	assert_int_equal(left_in_journal(&fixture), 0);
	mount_fixture_done(&fixture);
}

static int64_t now_ms(void)
{
	struct timespec now;
	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* EIO after the deadline, never before; the kernel's second try for the page fails with the first. */
static void test_deadline(_unused_ void **state)
{
	MountFixture fixture;
	RunningMount running;
	mount_fixture_make(&fixture, &(MountFixtureOptions){ .absent = true, .source = true, .deadline = 600 });
	fake_server_hold(fixture.source, true);
	mount_fixture_start(&fixture, &running);
	int64_t start = now_ms();
	assert_int_equal(request_read(&fixture, NODE(FILE_INODE), 0, 40000, &reply), -EIO);
	assert_in_range(now_ms() - start, 600, 60000);
	/* Who is late for that, on a busy machine, waits for a deadline again, and may be in time then. */
	bool at_once = false;
	for (unsigned tries = 0; tries < 20 && !at_once; tries++) {
		start = now_ms();
		assert_int_equal(request_read(&fixture, NODE(FILE_INODE), 0, 4096, &reply), -EIO);
		at_once = now_ms() - start < 500;
	}
	assert_true(at_once);
	fake_server_hold(fixture.source, false);
	int r = -EIO;
	for (unsigned tries = 0; tries < 20 && r == -EIO; tries++) {
		(void)nanosleep(&(struct timespec){ .tv_nsec = RECENT_FAILURE_WINDOW * 1000000L }, NULL);
		r = request_read(&fixture, NODE(FILE_INODE), 0, 4096, &reply);
	}
	assert_int_equal(r, 0);
	mount_fixture_stop(&fixture, &running);
	mount_fixture_done(&fixture);
}

/* 404 of a blob must not become a file that does not exist. */
static void test_source_without_blob(_unused_ void **state)
{
	MountFixture fixture;
	RunningMount running;
	mount_fixture_make(&fixture, &(MountFixtureOptions){ .absent = true, .source = true, .deadline = 300 });
	fake_server_fault(fixture.source, FAKE_NOT_FOUND, 0);
	mount_fixture_start(&fixture, &running);
	assert_int_equal(request_read(&fixture, NODE(FILE_INODE), 0, 4096, &reply), -EIO);
	mount_fixture_stop(&fixture, &running);
	mount_fixture_done(&fixture);
}

/* As the kernel does it: a reply to what was answered before, by a server that died right after, is none. */
static void receive_new(MountFixture *fixture, uint64_t first, bool *answered)
{
	uint64_t number;
	do {
		reply_receive(fixture, &reply);
		number = (reply.header.unique - first) / 2;
	} while (answered[number]);
	answered[number] = true;
}

/* The server is killed again and again while reads wait; the last one gets the bytes and answers all. */
static void test_killed_while_waiting(_unused_ void **state)
{
	MountFixture fixture;
	mount_fixture_make(&fixture, &(MountFixtureOptions){ .absent = true, .source = true, .deadline = 20000 });
	fake_server_hold(fixture.source, true);
	enum { READS = 12, DEATHS = JOURNAL_TRIES_MAX + 3 };
	bool answered[READS + DEATHS] = { false };
	uint64_t first = 0;
	for (unsigned death = 0; death < DEATHS; death++) {
		pid_t server = mount_fixture_fork(&fixture);
		for (unsigned i = 0; death == 0 && i < READS; i++) {
			uint64_t unique = request_read_send(&fixture, NODE(FILE_INODE), i * 3000, 3000);
			first = i == 0 ? unique : first;
		}
		uint64_t lookup = request_send(&fixture, FUSE_LOOKUP, NODE(ROOT), "file", 5);
		receive_new(&fixture, first, answered);
		assert_int_equal(reply.header.unique, lookup);
		assert_int_equal(kill(server, SIGKILL), 0);
		assert_int_equal(waitpid(server, NULL, 0), server);
	}
	fake_server_hold(fixture.source, false);
	RunningMount running;
	mount_fixture_start(&fixture, &running);
	for (unsigned i = 0; i < READS; i++) {
		receive_new(&fixture, first, answered);
		assert_int_equal(reply.header.error, 0);
		assert_int_equal(reply.size, 3000);
		assert_memory_equal(reply.body, fixture.blob.tar + 1 + (reply.header.unique - first) / 2 * 3000, 3000);
	}
	assert_false(reply_is_there(&fixture, 50));
	mount_fixture_stop(&fixture, &running);
	mount_fixture_done(&fixture);
}

/* The deadline is the request's, not each server's. */
static void test_deadline_outlives_servers(_unused_ void **state)
{
	MountFixture fixture;
	mount_fixture_make(&fixture, &(MountFixtureOptions){ .absent = true, .source = true, .deadline = 1500 });
	fake_server_hold(fixture.source, true);
	int64_t start = now_ms();
	uint64_t unique = request_read_send(&fixture, NODE(FILE_INODE), 0, 3000);
	for (int patience = 300; !reply_is_there(&fixture, 0); patience += 100) {
		pid_t server = mount_fixture_fork(&fixture);
		(void)reply_is_there(&fixture, patience);
		assert_int_equal(kill(server, SIGKILL), 0);
		assert_int_equal(waitpid(server, NULL, 0), server);
		assert_true(now_ms() - start < 60000);
	}
	reply_receive(&fixture, &reply);
	assert_int_equal(reply.header.unique, unique);
	assert_int_equal(reply.header.error, -EIO);
	assert_true(now_ms() - start >= 1500);
	mount_fixture_done(&fixture);
}

/* The reader of this interrupt lives, so that its read goes on. */
static void test_interrupted_reader_lives(_unused_ void **state)
{
	MountFixture fixture;
	RunningMount running;
	mount_fixture_make(&fixture, &(MountFixtureOptions){ .absent = true, .source = true });
	fake_server_hold(fixture.source, true);
	mount_fixture_start(&fixture, &running);
	struct fuse_interrupt_in interrupt = { .unique = request_read_send(&fixture, NODE(FILE_INODE), 0, 3000) };
	(void)request_send(&fixture, FUSE_INTERRUPT, 0, &interrupt, sizeof(interrupt));
	assert_false(reply_is_there(&fixture, 700));
	fake_server_hold(fixture.source, false);
	reply_receive(&fixture, &reply);
	assert_int_equal(reply.header.unique, interrupt.unique);
	assert_int_equal(reply.header.error, 0);
	assert_false(reply_is_there(&fixture, 50));
	mount_fixture_stop(&fixture, &running);
	mount_fixture_done(&fixture);
}

/* ---- what a server refuses to start with ---- */

static int open_plan(const MountPlan *plan, Error *error)
{
	MountServer *server;
	MountImage *image;
	assert_int_equal(mount_server_new(-1, &server), 0);
	assert_int_equal(mount_fixture_add(server, plan, &(MountPlace){ .name = "" }, &image), 0);
	int r = mount_image_open(image, error);
	assert_int_equal(mount_image_open(image, NULL), r < 0 ? -EIO : 0);
	mount_image_unref(image);
	mount_server_free(server);
	return r;
}

static int copy_with(const void *data, size_t size, size_t at, uint8_t change)
{
	int fd = memfd_create("copy", MFD_CLOEXEC);
	assert_int_equal(fd_pwrite_all(fd, data, size, 0), 0);
	uint8_t byte = ((const uint8_t *)data)[at] ^ change;
	assert_int_equal(fd_pwrite_all(fd, &byte, 1, at), 0);
	return fd;
}

static void test_refused(_unused_ void **state)
{
	MountFixture fixture;
	mount_fixture_make(&fixture, &(MountFixtureOptions){ 0 });
	Error error = { 0 };
	assert_int_equal(open_plan(&fixture.plan, &error), 0);

	MountPlan plan = fixture.plan;
	plan.view_fd = copy_with(fixture.view, fixture.view_size, fixture.view_size / 2, 1);
	assert_int_equal(open_plan(&plan, &error), -EUCLEAN);
	assert_non_null(strstr(error.message, "view of test"));
	close(plan.view_fd);

	plan.view_fd = fixture.layer.index_fd;
	assert_int_equal(open_plan(&plan, &error), -EUCLEAN);
	assert_non_null(strstr(error.message, "not a view"));

	int index_fd = fixture.layer.index_fd;
	fixture.layer.index_fd = fixture.plan.view_fd;
	assert_int_equal(open_plan(&fixture.plan, &error), -EUCLEAN);
	assert_non_null(strstr(error.message, "layer 0 of test"));
	fixture.layer.index_fd = index_fd;

	plan = fixture.plan;
	plan.layer_count = 0;
	assert_int_equal(open_plan(&plan, &error), -EUCLEAN);
	mount_fixture_done(&fixture);
}

static void test_bad_init(_unused_ void **state)
{
	MountFixture fixture;
	mount_fixture_make(&fixture, &(MountFixtureOptions){ 0 });
	Journal *journal;
	assert_int_equal(journal_open(fixture.journal_fd, &journal), 0);
	struct {
		struct fuse_in_header header;
		struct fuse_init_in body;
	} init = { .header = { .len = sizeof(init), .opcode = FUSE_LOOKUP, .unique = 2 }, .body = { .major = 7 } };
	Ops ops = { 0 };
	Session *session;
	assert_int_equal(session_new(dup(fixture.device), &init, sizeof(init), &ops, journal, &session, NULL), -EPROTO);
	assert_int_equal(session_new(dup(fixture.device), &init, 10, &ops, journal, &session, NULL), -EPROTO);
	assert_false(reply_is_there(&fixture, 0));
	journal_free(journal);
	mount_fixture_done(&fixture);
}

static void test_recent_failures(_unused_ void **state)
{
	RecentFailures failures = { 0 };
	assert_false(recent_failures_take(&failures, 0, 0, 1));
	recent_failures_note(&failures, 7, 1000, 100, 50);
	assert_false(recent_failures_take(&failures, 7, 1099, 50 + RECENT_FAILURE_WINDOW));
	assert_false(recent_failures_take(&failures, 7, 1100, 50));
	assert_false(recent_failures_take(&failures, 7, 999, 50));
	assert_false(recent_failures_take(&failures, 8, 1000, 50));
	assert_true(recent_failures_take(&failures, 7, 1099, 50 + RECENT_FAILURE_WINDOW - 1));
	assert_false(recent_failures_take(&failures, 7, 1000, 50)); /* said once */
	recent_failures_note(&failures, 7, 1000, 100, 50);
	assert_true(recent_failures_take(&failures, 7, 1000, 50));
	recent_failures_note(&failures, 7, 1000, 100, 50);
	for (unsigned i = 0; i < RECENT_FAILURES; i++)
		recent_failures_note(&failures, 100 + i, 0, 1, 50);
	assert_false(recent_failures_take(&failures, 7, 1000, 50));
	assert_true(recent_failures_take(&failures, 100, 0, 50));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_left_behind),
		cmocka_unit_test(test_poison),
		cmocka_unit_test(test_fetched),
		cmocka_unit_test(test_waiting_blocks_nobody),
		cmocka_unit_test(test_deadline),
		cmocka_unit_test(test_source_without_blob),
		cmocka_unit_test(test_killed_while_waiting),
		cmocka_unit_test(test_deadline_outlives_servers),
		cmocka_unit_test(test_interrupted_reader_lives),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_bad_init),
		cmocka_unit_test(test_recent_failures),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
