/* The record of a start: what reads leave in it, through servers that die, and what is believed of its bytes. */
#include "tests/unit/mount/mount-fixture.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#include "fs/base/fd.h"
#include "fs/mount/start-reader.h"

#define CHUNK_COUNT 1000u

static uint32_t chunk_size(_unused_ void *arg, uint32_t layer, uint32_t chunk)
{
	return layer < 2 && chunk < CHUNK_COUNT ? 100000 : 0;
}

static void test_groups(_unused_ void **state)
{
	static const struct {
		const char *text, *group;
	} cases[] = {
		{ "0::/\n", "/" },
		{ "0::/system.slice/docker-0123.scope\n", "/system.slice/docker-0123.scope" },
		{ "9:name=systemd:/\n4:memory:/docker/0123\n1:cpu,cpuacct:/docker\n0::/\n", "/docker/0123" },
		{ "1:name=a:b:/x:y\n", "b:/x:y" },
		{ "0::/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" },
	};
	char group[40];
	for (size_t i = 0; i < ELEMENTS(cases); i++) {
		assert_int_equal(start_reader_group(cases[i].text, group, sizeof(group)), 0);
		assert_string_equal(group, cases[i].group);
	}
	assert_int_equal(start_reader_group("", group, sizeof(group)), -ESRCH);
	assert_int_equal(start_reader_group("nonsense\n", group, sizeof(group)), -ESRCH);

	uint32_t process = 0;
	char command[16];
	assert_int_equal(start_reader_status("Name:\tC2 CompilerThre\nState:\tS\nTgid:\t42\nPid:\t43\n", &process,
					     command, sizeof(command)),
			 0);
	assert_int_equal(process, 42);
	assert_string_equal(command, "C2 CompilerThre");
	assert_int_equal(start_reader_status("Name:\tx\n", &process, command, sizeof(command)), -ESRCH);
	assert_int_equal(start_reader_look(0, &process, command, sizeof(command), group, sizeof(group)), -ESRCH);
}

static int make_recorder(StartRecorder **ret_recorder)
{
	static const uint32_t counts[] = { CHUNK_COUNT, CHUNK_COUNT };
	int fd;
	assert_int_equal(start_record_create(&(StartRecordLabel){ .source = "test" }, NULL, 0, &fd), 0);
	assert_int_equal(start_recorder_new(fd, counts, ELEMENTS(counts), ret_recorder), 0);
	return fd;
}

static void record(StartRecorder *recorder, uint32_t layer, uint32_t first, uint32_t count, uint32_t absent)
{
	StartTrace trace = { 0 };
	FetchTally tally = { .chunks = { [FETCH_TIER_CACHE] = count }, .absent = absent, .absent_bytes = absent * 10 };
	StartAnswer answer = {
		.inode = first, .size = 4096, .began = shared_memory_clock(), .tally = &tally, .error = 0
	};
	start_recorder_touch(recorder, layer, first, count, (uint32_t)getpid(), absent > 0, &trace);
	start_recorder_end(recorder, &answer, &trace);
}

/* Only the first read of a chunk counts, and what is narrowed to the new ones; what waited is there in any case. */
static void test_recorder(_unused_ void **state)
{
	StartRecorder *recorder;
	StartRecord *copy;
	int fd = make_recorder(&recorder);
	record(recorder, 1, 10, 4, 4);
	record(recorder, 1, 10, 4, 0);
	record(recorder, 1, 12, 4, 0);
	record(recorder, 1, 10, 1, 1);
	record(recorder, 0, 999, 1, 0);
	record(recorder, 0, 999, 2, 0); /* no such chunk */
	record(recorder, 2, 0, 1, 0);   /* no such layer */
	assert_int_equal(start_record_load(fd, &copy), 0);
	assert_int_equal(copy->read_count, 4);
	assert_int_equal(copy->reads, 7);
	assert_int_equal(copy->servers, 1);
	assert_int_equal(copy->chunks[FETCH_TIER_NETWORK], 5);
	assert_int_equal(copy->chunks[FETCH_TIER_CACHE], 4 + 4 + 1 + 2 + 1);
	const StartRead *reads = copy->entries;
	assert_int_equal(reads[0].flags, START_READ_FIRST);
	assert_int_equal(reads[0].source, FETCH_TIER_NETWORK);
	assert_int_equal(reads[0].fetched, 40);
	assert_int_equal(reads[1].first, 14);
	assert_int_equal(reads[1].count, 2);
	assert_int_equal(reads[1].source, FETCH_TIER_CACHE);
	assert_int_equal(reads[1].waited, 0);
	assert_int_equal(reads[2].flags, 0);
	assert_int_equal(reads[2].source, FETCH_TIER_NETWORK);
	assert_int_equal(copy->reader_count, 1);
	assert_int_equal(reads[3].reader, 1);
	assert_int_equal(copy->readers[0].process, getpid());

	Profile profile;
	Digest manifest = { { 9 } };
	assert_int_equal(start_record_profile(copy, &manifest, chunk_size, NULL, &profile), 0);
	assert_int_equal(profile.count, 2);
	assert_int_equal(profile.ranges[0].first, 10);
	assert_int_equal(profile.ranges[0].count, 6);
	assert_int_equal(profile.ranges[1].first, 999);
	profile_done(&profile);
	free(copy);

	/* A successor knows what was read, and counts on. */
	static const uint32_t counts[] = { CHUNK_COUNT, CHUNK_COUNT };
	start_recorder_free(recorder);
	assert_int_equal(start_recorder_new(fd, counts, ELEMENTS(counts), &recorder), 0);
	record(recorder, 1, 10, 6, 0);
	record(recorder, 1, 20, 1, 0);
	assert_int_equal(start_record_load(fd, &copy), 0);
	assert_int_equal(copy->read_count, 5);
	assert_int_equal(copy->servers, 2);
	free(copy);
	start_recorder_free(recorder);
	close_p(&fd);
}

static void test_profile_limit(_unused_ void **state)
{
	StartRecorder *recorder;
	StartRecord *copy;
	Profile profile;
	Digest manifest = { { 0 } };
	int fd = make_recorder(&recorder);
	assert_int_equal(start_record_load(fd, &copy), 0);
	assert_int_equal(start_record_profile(copy, &manifest, chunk_size, NULL, &profile), -ENODATA);
	free(copy);
	for (uint32_t i = 0; i < CHUNK_COUNT; i++)
		record(recorder, 0, i, 1, 0);
	assert_int_equal(start_record_load(fd, &copy), 0);
	assert_int_equal(start_record_profile(copy, &manifest, chunk_size, NULL, &profile), 0);
	assert_int_equal(profile.count, 1);
	assert_int_equal(profile.ranges[0].count, PROFILE_BYTES_MAX / 100000);
	profile_done(&profile);
	free(copy);
	start_recorder_free(recorder);
	close_p(&fd);
}

/* It ends when nothing new comes, after ten minutes at the latest, and never while somebody waits. */
static void test_end(_unused_ void **state)
{
	StartRecord *copy = calloc(1, sizeof(*copy));
	assert_non_null(copy);
	const int64_t second = 1000000;
	copy->head.began = 5 * second;
	assert_int_equal(start_record_state(copy, 10000 * second), START_RECORDING);
	copy->first_read = 1 + 10 * (uint64_t)second;
	copy->last_first = 1 + 20 * (uint64_t)second;
	assert_int_equal(start_record_state(copy, (5 + 50) * second), START_RECORDING);
	assert_int_equal(start_record_state(copy, (5 + 51) * second), START_END_QUIET);
	copy->waiting[7].since = 1;
	assert_int_equal(start_record_state(copy, (5 + 51) * second), START_RECORDING);
	assert_int_equal(start_record_state(copy, (5 + 611) * second), START_END_TIME);
	copy->ended = START_END_FULL;
	assert_int_equal(start_record_state(copy, 0), START_END_FULL);
	free(copy);
}

/* When the table is full, the recording is over; reads go on, and are counted. */
static void test_full(_unused_ void **state)
{
	StartRecorder *recorder;
	StartRecord *copy;
	int fd = make_recorder(&recorder);
	for (uint32_t i = 0; i < START_RECORD_READS + 5; i++)
		record(recorder, 0, 0, 1, 1);
	assert_false(start_recorder_is_on(recorder));
	assert_int_equal(start_record_load(fd, &copy), 0);
	assert_int_equal(copy->read_count, START_RECORD_READS);
	assert_int_equal(copy->lost, 5);
	assert_int_equal(copy->reads, START_RECORD_READS + 5);
	free(copy);
	start_recorder_free(recorder);
	close_p(&fd);
}

/* What a broken or hostile server may have left. */
static void test_nonsense(_unused_ void **state)
{
	StartRecord *record = calloc(1, sizeof(*record));
	assert_non_null(record);
	memset(record, 0xff, sizeof(*record));
	assert_int_equal(start_record_check(record), -EBADMSG);
	record->head.magic = START_RECORD_MAGIC;
	record->head.version = START_RECORD_VERSION;
	assert_int_equal(start_record_check(record), 0);
	assert_int_equal(record->read_count, 0);
	assert_true(record->reader_count <= START_RECORD_READERS);
	assert_true(record->group_count <= START_RECORD_GROUPS);
	assert_true(record->ended < START_ENDS);
	for (size_t i = 0; i < START_RECORD_GROUPS; i++)
		assert_true(strnlen(record->groups[i], START_RECORD_GROUP) < START_RECORD_GROUP);
	free(record);

	StartRecord *copy;
	_cleanup_close_ int fd = memfd_create("short", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_true(fd >= 0);
	assert_int_equal(start_record_load(fd, &copy), -EBADMSG);
	assert_int_equal(ftruncate(fd, sizeof(StartRecord)), 0);
	assert_int_equal(start_record_load(fd, &copy), -EBADMSG); /* it could shrink again */
	StartRecorder *recorder;
	static const uint32_t counts[] = { 1 };
	assert_int_equal(start_recorder_new(fd, counts, 1, &recorder), 0);
	assert_false(start_recorder_is_on(recorder));
	start_recorder_free(recorder);
}

/* A copy of the record once it holds `count` reads: it is written after the reply. */
static StartRecord *await_reads(const MountFixture *fixture, uint64_t count)
{
	for (int i = 0; i < 12000; i++) {
		StartRecord *copy;
		assert_int_equal(start_record_load(fixture->plan.record_fd, &copy), 0);
		if (copy->reads >= count)
			return copy;
		free(copy);
		(void)nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
	}
	fail_msg("the record never had so many reads");
	return NULL;
}

static void test_served(_unused_ void **state)
{
	MountFixture fixture;
	RunningMount running;
	Reply *reply = malloc(sizeof(*reply));
	assert_non_null(reply);
	mount_fixture_make(&fixture, &(MountFixtureOptions){ .absent = true, .source = true });
	request_thread = (uint32_t)getpid();
	mount_fixture_start(&fixture, &running);
	assert_int_equal(request_read(&fixture, NODE(FILE_INODE), CHUNK_SIZE, 1000, reply), 0);
	free(await_reads(&fixture, 1));
	request_thread = 0;
	assert_int_equal(request_read(&fixture, NODE(FILE_INODE), CHUNK_SIZE, 1000, reply), 0);
	assert_int_equal(request_read(&fixture, NODE(SPARSE), SPARSE_SECOND, 100, reply), 0);
	assert_int_equal(request_read(&fixture, NODE(BEYOND), 0, 100, reply), -EIO);
	StartRecord *copy = await_reads(&fixture, 4);
	mount_fixture_stop(&fixture, &running);
	assert_int_equal(copy->failures, 1);
	assert_int_equal(copy->last_error, EIO);
	assert_int_equal(copy->chunks[FETCH_TIER_DECODED], 2); /* of the first chunk, and of the sparse file in it */
	assert_int_equal(copy->read_count, 1);
	const StartRead *read = &copy->entries[0];
	assert_int_equal(read->inode, FILE_INODE);
	assert_int_equal(read->offset, CHUNK_SIZE);
	assert_int_equal(read->first, 1);
	assert_int_equal(read->count, 1);
	assert_int_equal(read->source, FETCH_TIER_NETWORK);
	assert_true(read->waited > 0 && read->fetched > 0);
	assert_int_equal(copy->readers[read->reader - 1].process, getpid());
	free(copy);

	ServerMetrics *metrics;
	assert_int_equal(server_metrics_load(fixture.plan.metrics_fd, &metrics), 0);
	assert_int_equal(metrics->servers, 1);
	assert_true(metrics->fetch.requests[FETCH_DEMAND] >= 1 && metrics->fetch.bytes > 0);
	assert_true(metrics->waited.sum > 0);
	free(metrics);
	mount_fixture_done(&fixture);
	free(reply);
}

/* A read that waits is seen while it does, also after its server has been killed; in the end it is written down once. */
static void test_killed(_unused_ void **state)
{
	MountFixture fixture;
	Reply *reply = malloc(sizeof(*reply));
	assert_non_null(reply);
	mount_fixture_make(&fixture, &(MountFixtureOptions){ .absent = true, .source = true, .deadline = 60000 });
	fake_server_fault(fixture.source, FAKE_STALL_BODY, 1000000);
	request_thread = (uint32_t)getpid();
	(void)request_read_send(&fixture, NODE(FILE_INODE), 0, 1000);
	for (unsigned i = 0; i < 2; i++) {
		pid_t server = mount_fixture_fork(&fixture);
		bool waits = false;
		for (int tries = 0; !waits && tries < 12000; tries++) {
			StartRecord *copy;
			assert_int_equal(start_record_load(fixture.plan.record_fd, &copy), 0);
			waits = copy->servers == i + 1 && copy->waiting[0].since > 0 &&
				copy->waiting[0].inode == FILE_INODE;
			free(copy);
			(void)nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
		}
		assert_true(waits);
		assert_int_equal(kill(server, SIGKILL), 0);
		assert_int_equal(waitpid(server, NULL, 0), server);
	}
	fake_server_fault(fixture.source, FAKE_NONE, 0);
	RunningMount running;
	mount_fixture_start(&fixture, &running);
	reply_receive(&fixture, reply);
	assert_int_equal(reply->header.error, 0);
	StartRecord *copy = await_reads(&fixture, 1);
	mount_fixture_stop(&fixture, &running);
	assert_int_equal(copy->servers, 3);
	assert_int_equal(copy->read_count, 1);
	assert_int_equal(copy->waiting[0].since, 0);
	free(copy);
	mount_fixture_done(&fixture);
	free(reply);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_groups),        cmocka_unit_test(test_recorder), cmocka_unit_test(test_end),
		cmocka_unit_test(test_profile_limit), cmocka_unit_test(test_full),     cmocka_unit_test(test_nonsense),
		cmocka_unit_test(test_served),        cmocka_unit_test(test_killed),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
