#include "fs/node/node-record.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "fs/base/fd.h"

#define VERSION   1
#define FILE_MAX  (4u << 20)
#define SUFFIX    ".json"
#define NAME_SIZE (DIGEST_HEX_SIZE + sizeof(SUFFIX) - 1)
#define SLOT_MAX  0x7fffffff

void node_record_done(NodeRecord *record)
{
	control_request_done(&record->request);
	*record = (NodeRecord){ 0 };
}

/* An owner may be any text; a file name may not. */
static int name_of(const char *owner, char ret_name[static NAME_SIZE])
{
	Digest digest;
	char hex[DIGEST_HEX_SIZE];
	int r = digest_of(owner, strlen(owner), &digest);
	if (r < 0)
		return r;
	(void)snprintf(ret_name, NAME_SIZE, "%s" SUFFIX, digest_hex(&digest, hex));
	return 0;
}

/* Of what a record says, however it is laid out. The sum itself is not in it yet, or no more. */
static int sum_of(const json_t *json, char ret_hex[static DIGEST_HEX_SIZE])
{
	Digest digest;
	_cleanup_free_ char *text = json_dumps(json, JSON_COMPACT | JSON_SORT_KEYS);
	int r = text ? digest_of(text, strlen(text), &digest) : -ENOMEM;
	if (r == 0)
		(void)digest_hex(&digest, ret_hex);
	return r;
}

static int add_sum(json_t *json)
{
	char sum[DIGEST_HEX_SIZE];
	int r = json ? sum_of(json, sum) : -ENOMEM;
	return r == 0 && json_object_set_new(json, "sum", json_string(sum)) < 0 ? -ENOMEM : r;
}

/* Takes the sum out, which records of the first builds have not. Rot in the middle of a record could name another image or another directory. */
static int check_sum(json_t *json, Error *error)
{
	char sum[DIGEST_HEX_SIZE];
	json_t *said = json_incref(json_object_get(json, "sum"));
	if (!said)
		return 0;
	(void)json_object_del(json, "sum");
	int r = sum_of(json, sum);
	if (r == 0 && (!json_is_string(said) || strcmp(json_string_value(said), sum) != 0))
		r = error_set(error, -EBADMSG, "it is not as it was written");
	json_decref(said);
	return r;
}

int node_record_write(int dirfd, const NodeRecord *record)
{
	char name[NAME_SIZE], manifest[DIGEST_TEXT_SIZE], config[DIGEST_TEXT_SIZE], chain_id[DIGEST_TEXT_SIZE];
	json_t *json =
		json_pack("{s:i, s:O, s:s, s:s, s:s, s:I, s:b, s:I, s:s*}", "imgfsRecord", VERSION, "request",
			  record->request.json, "manifest", digest_text(&record->manifest, manifest), "image",
			  digest_text(&record->config, config), "chainId", digest_text(&record->chain_id, chain_id),
			  "slot", (json_int_t)record->slot, "lingering", record->lingering, "time",
			  (json_int_t)record->time, "origin", record->origin[0] ? record->origin : NULL);
	int r = add_sum(json);
	_cleanup_free_ char *text = r == 0 ? json_dumps(json, JSON_INDENT(1)) : NULL;
	json_decref(json);
	if (r == 0)
		r = text ? name_of(record->request.owner, name) : -ENOMEM;
	return r < 0 ? r : fd_replace_file(dirfd, name, text, strlen(text), 0600);
}

int node_record_remove(int dirfd, const char *owner)
{
	char name[NAME_SIZE];
	int r = name_of(owner, name);
	if (r < 0)
		return r;
	if (unlinkat(dirfd, name, 0) < 0)
		return errno == ENOENT ? 0 : -errno;
	return fsync(dirfd) < 0 ? -errno : 0;
}

static int read_digest(const json_t *json, const char *key, Digest *ret_digest)
{
	const char *text = json_string_value(json_object_get(json, key));
	return text ? digest_from_text(text, ret_digest) : -EINVAL;
}

static int decode(json_t *json, NodeRecord *record, Error *error)
{
	if (json_integer_value(json_object_get(json, "imgfsRecord")) != VERSION)
		return error_set(error, -EBADMSG, "it is of another version of imgfs");
	int r = check_sum(json, error);
	if (r < 0)
		return r;
	json_int_t number = json_integer_value(json_object_get(json, "slot"));
	if (read_digest(json, "manifest", &record->manifest) < 0 || read_digest(json, "image", &record->config) < 0 ||
	    read_digest(json, "chainId", &record->chain_id) < 0 || number < 1 || number > SLOT_MAX)
		return error_set(error, -EBADMSG, "a digest or the slot is missing");
	record->slot = (uint32_t)number;
	record->lingering = json_is_true(json_object_get(json, "lingering"));
	record->time = json_integer_value(json_object_get(json, "time"));
	const char *origin = json_string_value(json_object_get(json, "origin"));
	if (origin && strlen(origin) >= sizeof(record->origin))
		return error_set(error, -EBADMSG, "its origin is too long");
	(void)snprintf(record->origin, sizeof(record->origin), "%s", origin ?: "");
	json_t *request = json_object_get(json, "request");
	if (!json_is_object(request))
		return error_set(error, -EBADMSG, "the request is missing");
	r = control_request_parse(json_incref(request), &record->request, error);
	if (r == 0 && record->request.verb != CONTROL_ATTACH)
		r = error_set(error, -EBADMSG, "the request is of another kind");
	return r == -ENOMEM || r == 0 ? r : -EBADMSG;
}

int node_record_parse(const char *text, size_t size, NodeRecord *ret_record, Error *error)
{
	json_error_t fault;
	_cleanup_(node_record_done) NodeRecord record = { 0 };
	json_t *json = json_loadb(text, size, JSON_REJECT_DUPLICATES, &fault);
	int r = json ? decode(json, &record, error) : error_set(error, -EBADMSG, "not JSON: %s", fault.text);
	json_decref(json);
	if (r < 0)
		return r;
	*ret_record = record;
	record = (NodeRecord){ 0 };
	return 0;
}

static int check_name(const NodeRecord *record, const char *name, Error *error)
{
	char own[NAME_SIZE];
	int r = name_of(record->request.owner, own);
	return r == 0 && strcmp(own, name) != 0 ? error_set(error, -EBADMSG, "its name is that of another owner") : r;
}

static int read_record(int dirfd, const char *name, NodeRecordEach *each, void *arg)
{
	_cleanup_free_ char *text = NULL;
	size_t size;
	NodeRecord record = { 0 };
	Error error = { 0 };
	int r = fd_read_file(dirfd, name, FILE_MAX, &text, &size);
	if (r == -ENOENT)
		return 0; /* removed meanwhile: who reads need not be the manager */
	if (r < 0)
		r = error_set(&error, r, "it cannot be read: %s", strerror(-r));
	else
		r = node_record_parse(text, size, &record, &error);
	if (r == 0)
		r = check_name(&record, name, &error);
	r = each(arg, r < 0 ? NULL : &record, name, &error);
	node_record_done(&record);
	return r;
}

static bool is_record(const char *name)
{
	size_t length = strlen(name);
	return length == NAME_SIZE - 1 && strcmp(name + length - strlen(SUFFIX), SUFFIX) == 0;
}

static bool is_temporary(const char *name)
{
	return strncmp(name, ".tmp-", 5) == 0;
}

int node_records_read(int dirfd, bool sweep, NodeRecordEach *each, void *arg)
{
	int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_closedir_ DIR *directory = fd < 0 ? NULL : fdopendir(fd);
	int r = 0;
	if (!directory) {
		r = -errno;
		close_p(&fd);
		return r;
	}
	for (struct dirent *entry; r >= 0 && (entry = readdir(directory));) {
		if (sweep && is_temporary(entry->d_name))
			(void)unlinkat(dirfd, entry->d_name, 0);
		else if (is_record(entry->d_name))
			r = read_record(dirfd, entry->d_name, each, arg);
	}
	return r < 0 ? r : 0;
}
