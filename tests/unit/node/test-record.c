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
		{ "{\"imgfsRecord\":1,\"sum\":3," NAME ",\"slot\":1,%s}", "not as it was written" },
		{ "{\"imgfsRecord\":1,\"sum\":\"" HEX "\"," NAME ",\"slot\":1,%s}", "not as it was written" },
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

/* Any bit: the record is refused, or says what it said. */
static void test_flips(_unused_ void **state)
{
	NodeRecord record = { .slot = 77, .time = 1700000000 };
	json_t *json = json_pack("{s:s, s:s, s:s, s:s}", "call", "attach", "owner", "/mnt/x", "reference",
				 "build:8500/a:v1", "directory", "/mnt/x");
	assert_int_equal(control_request_parse(json, &record.request, NULL), 0);
	assert_int_equal(node_record_write(dirfd_of, &record), 0);
	char *text = NULL, name[256] = "";
	size_t size;
	DIR *entries = fdopendir(dup(dirfd_of));
	for (struct dirent *entry; (entry = readdir(entries));)
		if (entry->d_name[0] != '.')
			(void)snprintf(name, sizeof(name), "%s", entry->d_name);
	(void)closedir(entries);
	assert_int_equal(fd_read_file(dirfd_of, name, 1 << 20, &text, &size), 0);
	for (size_t bit = 0; bit < 8 * size; bit++) {
		NodeRecord read = { 0 };
		text[bit / 8] ^= (char)(1 << bit % 8);
		int r = node_record_parse(text, size, &read, NULL);
		text[bit / 8] ^= (char)(1 << bit % 8);
		assert_true(r == 0 || r == -EBADMSG);
		if (r == 0)
			assert_true(read.slot == 77 && json_equal(read.request.json, record.request.json));
		node_record_done(&read);
	}
	free(text);
	/* Under another owner's name it is none either. */
	Found found = { 0 };
	assert_int_equal(renameat(dirfd_of, name, dirfd_of, HEX ".json"), 0);
	assert_int_equal(node_records_read(dirfd_of, true, note, &found), 0);
	assert_int_equal(found.count, 0);
	assert_int_equal(found.faults, 1);
	assert_non_null(strstr(found.error.message, "another owner"));
	assert_int_equal(unlinkat(dirfd_of, HEX ".json", 0), 0);
	node_record_done(&record);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_round_trip, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_what_is_none, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_flips, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
