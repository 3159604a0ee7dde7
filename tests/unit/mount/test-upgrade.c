/* What passes between `imgfs upgrade`, a keeper and its successor. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "fs/mount/handshake.h"
#include "fs/mount/keeper-find.h"
#include "fs/mount/keeper-state.h"
#include "fs/mount/upgrade-request.h"

static const Keeper sample = {
	.mount = {
		.directory = "/mnt/a b",
		.source = "imgfs:host/name:1",
		.read_ahead_kb = 512,
		.handshake = HANDSHAKE_POSIX_ACL,
		.flags = 3,
		.fuse_fd = 10,
		.init_fd = 17,
		.journal_fd = 4,
		.entry = { .major = 0, .minor = 53 },
	},
	.server = { .program = "/old/imgfs-server", .program_fd = 19, .pid = 4711 },
	.plan_fd = 18,
	.ready_fd = 3,
};

/* argv as a new program gets it: its own, and NULL at the end. */
static int count_arguments(const KeeperArguments *arguments, char **ret_argv)
{
	int count = 0;
	for (; arguments->argv[count]; count++)
		ret_argv[count] = (char *)(uintptr_t)arguments->argv[count];
	ret_argv[count] = NULL;
	return count;
}

static void test_state_travels(_unused_ void **state)
{
	KeeperArguments arguments;
	char *argv[KEEPER_ARGUMENTS_RESUME + 1];
	keeper_state_write(&sample, "/new/imgfs-server", &arguments);
	int argc = count_arguments(&arguments, argv);
	assert_int_equal(argc, KEEPER_ARGUMENTS_RESUME);
	assert_string_equal(argv[0], "imgfs-keeper");
	assert_string_equal(argv[1], sample.mount.directory);

	Keeper keeper;
	bool resumes = false;
	assert_int_equal(keeper_state_read(argc, argv, &keeper, &resumes), 0);
	assert_true(resumes);
	assert_string_equal(keeper.mount.directory, sample.mount.directory);
	assert_string_equal(keeper.mount.source, sample.mount.source);
	assert_string_equal(keeper.server.program, "/new/imgfs-server");
	assert_int_equal(keeper.mount.read_ahead_kb, sample.mount.read_ahead_kb);
	assert_true(keeper.mount.handshake);
	assert_int_equal(keeper.mount.flags, sample.mount.flags);
	const int found[] = { keeper.plan_fd,
			      keeper.ready_fd,
			      keeper.server.program_fd,
			      keeper.mount.fuse_fd,
			      keeper.mount.init_fd,
			      keeper.mount.journal_fd,
			      keeper.server.pid,
			      (int)keeper.mount.entry.major,
			      (int)keeper.mount.entry.minor };
	const int wanted[] = { 18, 3, 19, 10, 17, 4, 4711, 0, 53 };
	assert_memory_equal(found, wanted, sizeof(wanted));
}

static void test_first_form(_unused_ void **state)
{
	char *argv[] = { (char[]){ "imgfs-keeper" },
			 (char[]){ "/mnt" },
			 (char[]){ "imgfs:a" },
			 (char[]){ "/server" },
			 (char[]){ "18" },
			 (char[]){ "20" },
			 (char[]){ "64" },
			 (char[]){ "0" },
			 (char[]){ "5" },
			 NULL };
	Keeper keeper;
	bool resumes = true;
	assert_int_equal(keeper_state_read(KEEPER_ARGUMENTS_START, argv, &keeper, &resumes), 0);
	assert_false(resumes);
	assert_string_equal(keeper.mount.directory, "/mnt");
	assert_int_equal(keeper.plan_fd, 18);
	assert_int_equal(keeper.ready_fd, 20);
	assert_int_equal(keeper.mount.read_ahead_kb, 64);
	assert_false(keeper.mount.handshake);
	assert_int_equal(keeper.mount.flags, 5);
	assert_int_equal(keeper.mount.fuse_fd, -1);
	assert_int_equal(keeper.server.pid, 0);
	for (int argc = 0; argc < KEEPER_ARGUMENTS_START; argc++)
		assert_int_equal(keeper_state_read(argc, argv, &keeper, &resumes), -EINVAL);
	argv[7] = (char[]){ "2" };
	assert_int_equal(keeper_state_read(KEEPER_ARGUMENTS_START, argv, &keeper, &resumes), -EINVAL);
	argv[7] = (char[]){ "1" };
	argv[8] = (char[]){ "16" };
	assert_int_equal(keeper_state_read(KEEPER_ARGUMENTS_START, argv, &keeper, &resumes), -EINVAL);
}

/* Any number that is none, another word, another version: a keeper must not go on with what it has misread. */
static void test_bad_states(_unused_ void **state)
{
	KeeperArguments arguments;
	char *argv[KEEPER_ARGUMENTS_RESUME + 1];
	Keeper keeper;
	bool resumes;
	for (int i = 4; i < KEEPER_ARGUMENTS_RESUME; i++) {
		keeper_state_write(&sample, "/new/imgfs-server", &arguments);
		int argc = count_arguments(&arguments, argv);
		argv[i] = (char[]){ "-1" };
		assert_int_equal(keeper_state_read(argc, argv, &keeper, &resumes), -EINVAL);
	}
	keeper_state_write(&sample, "/new/imgfs-server", &arguments);
	int argc = count_arguments(&arguments, argv);
	assert_int_equal(keeper_state_read(argc - 1, argv, &keeper, &resumes), -EINVAL);
	argv[argc - 1] = (char[]){ "1" };
	assert_int_equal(keeper_state_read(argc, argv, &keeper, &resumes), -EINVAL);
}

static void test_request_travels(_unused_ void **state)
{
	char bytes[UPGRADE_REQUEST_MAX];
	UpgradeRequest request = { .reply_fd = 7, .keeper = "/a b/imgfs-keeper", .server = "/c/imgfs-server" }, found;
	ssize_t size = upgrade_request_write(&request, bytes);
	assert_true(size > 0);
	assert_int_equal(upgrade_request_read(bytes, (size_t)size, &found), 0);
	assert_int_equal(found.reply_fd, 7);
	assert_string_equal(found.keeper, request.keeper);
	assert_string_equal(found.server, request.server);
	for (size_t i = 0; i < (size_t)size; i++)
		assert_int_equal(upgrade_request_read(bytes, i, &found), -EBADMSG);
	bytes[size] = '\0';
	assert_int_equal(upgrade_request_read(bytes, (size_t)size + 1, &found), -EBADMSG);
	bytes[0] = 'I';
	assert_int_equal(upgrade_request_read(bytes, (size_t)size, &found), -EBADMSG);
}

static void test_request_of_long_or_relative_paths(_unused_ void **state)
{
	char bytes[UPGRADE_REQUEST_MAX], path[UPGRADE_REQUEST_MAX];
	UpgradeRequest request = { .keeper = "imgfs-keeper", .server = "/c/imgfs-server" }, found;
	ssize_t size = upgrade_request_write(&request, bytes);
	assert_true(size > 0);
	assert_int_equal(upgrade_request_read(bytes, (size_t)size, &found), -EBADMSG);
	memset(path, 'a', sizeof(path) - 1);
	path[0] = '/';
	path[sizeof(path) - 1] = '\0';
	request.keeper = path;
	assert_int_equal(upgrade_request_write(&request, bytes), -ENAMETOOLONG);
}

#define UIDS    "Name:\timgfs-keeper\nPPid:\t77\nUid:\t1000\t1000\t0\t0\nGid:\t50\t50\t0\t0\n"
#define SIGNALS "SigBlk:\t%016llx\nSigIgn:\t0000000000001000\nSigCgt:\t%016llx\n"

static void test_status(_unused_ void **state)
{
	static const struct {
		unsigned long long blocked, caught;
		bool upgradable;
	} cases[] = { { 0, 0, false }, { ~0ull, 0, true }, { 0, ~0ull, true } };
	KeeperProcess keeper;
	char text[512];
	for (size_t i = 0; i < ELEMENTS(cases); i++) {
		/* All signals but that one, or that one alone. */
		unsigned long long bit = 1ull << (UPGRADE_SIGNAL - 1);
		for (int inverted = 0; inverted < 2; inverted++) {
			(void)snprintf(text, sizeof(text), UIDS SIGNALS,
				       (cases[i].blocked & bit) ^ (inverted ? ~bit : 0),
				       (cases[i].caught & bit) ^ (inverted ? ~bit : 0));
			assert_int_equal(keeper_status_parse(text, &keeper), 0);
			assert_int_equal(keeper.owner, 1000);
			assert_int_equal(keeper.group, 50);
			assert_int_equal(keeper.parent, 77);
			assert_int_equal(keeper.upgradable, cases[i].upgradable);
		}
	}
	static const char *const bad[] = {
		"",
		UIDS,
		"\nPPid:\tx\nUid:\t0\t0\nGid:\t0\t0\nSigBlk:\t0\nSigCgt:\t0\n",
		"\nPPid:\t1\nUid:\t0\nGid:\t0\t0\nSigBlk:\t0\nSigCgt:\t0\n",
		"\nPPid:\t1\nUid:\t0\t0\nGid:\t0\t0\nSigBlk:\t\nSigCgt:\tx\n",
		"\nPPid:\t1\nUid:\t0\t0\nGid:\t0\t0\nSigBlk:\t0\nSigCgt:\tx\n",
		"\nPPid:\t1\nUid:\t0\t0\nGid:\t0\nSigBlk:\t0\nSigCgt:\t0\n",
		"\nPPid:\t1\nUid:\t1000\t0\nGid:\t0\t0\nSigBlk:\t0\nSigCgt:\t0\n", /* a program that is set-user-ID root */
		"\nPPid:\t1\nUid:\t1000\t1000\nGid:\t1000\t42\nSigBlk:\t0\nSigCgt:\t0\n", /* one that is set-group-ID */
	};
	for (size_t i = 0; i < ELEMENTS(bad); i++)
		assert_int_equal(keeper_status_parse(bad[i], &keeper), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_state_travels),
		cmocka_unit_test(test_first_form),
		cmocka_unit_test(test_bad_states),
		cmocka_unit_test(test_request_travels),
		cmocka_unit_test(test_request_of_long_or_relative_paths),
		cmocka_unit_test(test_status),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
