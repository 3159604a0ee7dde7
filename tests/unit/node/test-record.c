/* Records of what is attached: written and read again, and what is none. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "fs/base/fd.h"
#include "fs/node/node-record.h"

#define HEX  "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define NAME "\"image\":\"sha256:" HEX "\",\"manifest\":\"sha256:" HEX "\",\"chainId\":\"sha256:" HEX "\""

static char directory[] = "/tmp/imgfs-records-XXXXXX";
static int dirfd_of = -1;

static int set_up(_unused_ void **state)
{
	(void)strcpy(directory + strlen(directory) - 6, "XXXXXX");
	assert_non_null(mkdtemp(directory));
	dirfd_of = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return dirfd_of < 0;
}

static int tear_down(_unused_ void **state)
{
	(void)close(dirfd_of);
	return rmdir(directory);
}

typedef struct Found {
	NodeRecord records[4];
	size_t count;
	unsigned faults;
	Error error;
} Found;

static int note(void *arg, NodeRecord *record, _unused_ const char *name, const Error *error)
{
	Found *found = arg;
	if (!record) {
		found->faults++;
		found->error = *error;
		return 0;
	}
	found->records[found->count++] = *record;
	*record = (NodeRecord){ 0 };
	return 0;
}

static void test_round_trip(_unused_ void **state)
{
	NodeRecord record = { .slot = 77, .lingering = true, .time = 1700000000 };
	json_t *json = json_pack("{s:s, s:s, s:s, s:{s:s}}", "call", "attach", "owner", "/mnt/\xc3\xa4 ../x",
				 "reference", "build:8500/a:v1", "access", "user", "me:secret");
	assert_int_equal(control_request_parse(json, &record.request, NULL), 0);
	assert_int_equal(digest_from_hex(HEX, &record.manifest), 0);
	record.chain_id = record.manifest;
	record.chain_id.bytes[0]++;
	assert_int_equal(node_record_write(dirfd_of, &record), 0);
	assert_int_equal(node_record_write(dirfd_of, &record), 0);

	Found found = { 0 };
	assert_int_equal(node_records_read(dirfd_of, true, note, &found), 0);
	assert_int_equal(found.count, 1);
	assert_int_equal(found.faults, 0);
	const NodeRecord *read = &found.records[0];
	assert_true(json_equal(read->request.json, record.request.json));
	assert_string_equal(read->request.access.user, "me:secret");
	assert_true(digest_equal(&read->manifest, &record.manifest));
	assert_true(digest_equal(&read->chain_id, &record.chain_id));
	assert_int_equal(read->slot, 77);
	assert_true(read->lingering);
	assert_int_equal(read->time, 1700000000);
	node_record_done(&found.records[0]);

	/* It holds a password. */
	struct stat status;
	DIR *entries = fdopendir(dup(dirfd_of));
	for (struct dirent *entry; (entry = readdir(entries));)
		if (entry->d_name[0] != '.') {
			assert_int_equal(fstatat(dirfd_of, entry->d_name, &status, 0), 0);
			assert_int_equal(status.st_mode & 0777, 0600);
		}
	(void)closedir(entries);
	assert_int_equal(node_record_remove(dirfd_of, record.request.owner), 0);
	assert_int_equal(node_record_remove(dirfd_of, record.request.owner), 0);
	node_record_done(&record);
}

static void test_what_is_none(_unused_ void **state)
{
	static const char request[] = "\"request\":{\"call\":\"attach\",\"owner\":\"o\",\"reference\":\"r\"}";
	static const struct {
		const char *text, *sentence;
	} cases[] = {
		{ "", "not JSON" },
		{ "{\"imgfsRecord\":1", "not JSON" },
		{ "[]", "another version" },
		{ "{\"imgfsRecord\":2," NAME ",\"slot\":1,%s}", "another version" },
		{ "{\"imgfsRecord\":1," NAME ",\"slot\":0,%s}", "the slot is missing" },
		{ "{\"imgfsRecord\":1," NAME ",\"slot\":2147483648,%s}", "the slot is missing" },
		{ "{\"imgfsRecord\":1,\"slot\":1,%s}", "a digest" },
		{ "{\"imgfsRecord\":1," NAME ",\"slot\":1}", "request is missing" },
		{ "{\"imgfsRecord\":1," NAME ",\"slot\":1,\"request\":{\"call\":\"ping\"}}", "another kind" },
		{ "{\"imgfsRecord\":1," NAME ",\"slot\":1,\"request\":{\"call\":\"attach\"}}", "\"owner\"" },
	};
	for (size_t i = 0; i < ELEMENTS(cases); i++) {
		NodeRecord record = { 0 };
		Error error = { 0 };
		_cleanup_free_ char *text = NULL;
		const char *mark = strstr(cases[i].text, "%s");
		assert_true(asprintf(&text, "%.*s%s%s", mark ? (int)(mark - cases[i].text) : (int)strlen(cases[i].text),
				     cases[i].text, mark ? request : "", mark ? mark + 2 : "") >= 0);
		assert_int_equal(node_record_parse(text, strlen(text), &record, &error), -EBADMSG);
		if (!strstr(error.message, cases[i].sentence))
			fail_msg("%s: %s", text, error.message);
		assert_null(record.request.json);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_round_trip, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_what_is_none, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
