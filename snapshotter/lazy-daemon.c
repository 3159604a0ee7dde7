/* The node daemon as backend. A connection a call: it may end and start again at any time. */
#include <errno.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <poll.h>
#include <string.h>
#include <sys/vfs.h>

#include "fs/base/digest.h"
#include "fs/control/control-client.h"
#include "snapshotter/lazy.h"

#define TIMEOUT_MILLIS 30000  /* of each request to a registry, for what has to come before a tree is there */
#define ATTACH_MILLIS  300000 /* for all of it: several hosts may be asked, and an index may be large */
#define CALL_MILLIS    30000  /* for what needs no network */
#define CONNECT_MILLIS 10000

#define DIGITS     12 /* of the root's digest */
#define OWNER_SIZE (LAZY_PREFIX_SIZE + 24)

static const char *owner_of(const LazyDaemon *daemon, uint64_t id, char owner[static OWNER_SIZE])
{
	(void)snprintf(owner, OWNER_SIZE, "%s%" PRIu64, daemon->prefix, id);
	return owner;
}

/* Who waits for an answer. */
typedef struct Waiting {
	const atomic_bool *cancelled; /* NULL: nobody but this process */
	int stop_fd;
} Waiting;

static bool is_given_up(void *arg)
{
	const Waiting *waiting = arg;
	struct pollfd stop = { .fd = waiting->stop_fd, .events = POLLIN };
	return waiting->cancelled ? atomic_load(waiting->cancelled) : poll(&stop, 1, 0) > 0;
}

static int call(const LazyDaemon *daemon, json_t *request, unsigned limit, const atomic_bool *cancelled,
		json_t **ret_answer, Error *error)
{
	_cleanup_(control_client_free_p) ControlClient *client = NULL;
	if (!request)
		return error_set(error, -ENOMEM, "out of memory");
	Waiting waiting = { .cancelled = cancelled, .stop_fd = daemon->stop_fd };
	int r = control_connect_within(daemon->socket, CONNECT_MILLIS, is_given_up, &waiting, &client, error);
	if (r < 0)
		return r;
	control_client_limit(client, limit, is_given_up, &waiting);
	return control_call(client, request, NULL, NULL, ret_answer, error);
}

static int attach(void *arg, uint64_t id, const char *reference, const json_t *layers, const atomic_bool *cancelled,
		  char **ret_path, Error *error)
{
	char owner[OWNER_SIZE];
	json_auto_t *answer = NULL;
	json_auto_t *request =
		json_pack("{s:s, s:s, s:O, s:I, s:s*}", "call", "attach", "owner", owner_of(arg, id, owner), "layers",
			  layers, "timeout", (json_int_t)TIMEOUT_MILLIS, "reference", reference);
	int r = call(arg, request, ATTACH_MILLIS, cancelled, &answer, error);
	if (r < 0)
		return r;
	const char *path = json_string_value(json_object_get(answer, "path"));
	if (!path)
		return error_set(error, -EBADMSG, "the daemon's answer has no path");
	*ret_path = strdup(path);
	return *ret_path ? 0 : error_set(error, -ENOMEM, "out of memory");
}

static int detach(void *arg, uint64_t id, const atomic_bool *cancelled, Error *error)
{
	char owner[OWNER_SIZE];
	json_auto_t *answer = NULL;
	json_auto_t *request = json_pack("{s:s, s:s}", "call", "detach", "owner", owner_of(arg, id, owner));
	return call(arg, request, CALL_MILLIS, cancelled, &answer, error);
}

/* Ids are SQLite's: positive, 63 bits. Other owners may have any name. */
static bool read_owner(const LazyDaemon *daemon, const char *owner, uint64_t *ret_id)
{
	const size_t prefix = strlen(daemon->prefix);
	char *end;
	if (!owner || strncmp(owner, daemon->prefix, prefix) != 0 || owner[prefix] < '1' || owner[prefix] > '9')
		return false;
	errno = 0;
	*ret_id = strtoull(owner + prefix, &end, 10);
	return errno == 0 && *end == '\0' && *ret_id < INT64_MAX;
}

/* Puts the ids of a page of the list into `ids`. */
static int add_owners(const LazyDaemon *daemon, const json_t *answer, uint64_t **ids, size_t *count)
{
	size_t i;
	const json_t *one, *list = json_object_get(answer, "attached");
	json_array_foreach(list, i, one)
	{
		uint64_t id;
		if (!read_owner(daemon, json_string_value(json_object_get(one, "owner")), &id))
			continue;
		uint64_t *larger = reallocarray(*ids, *count + 1, sizeof(*larger));
		if (!larger)
			return -ENOMEM;
		*ids = larger;
		larger[(*count)++] = id;
	}
	return 0;
}

static int owners(void *arg, const atomic_bool *cancelled, uint64_t **ret_ids, size_t *ret_count, Error *error)
{
	_cleanup_free_ uint64_t *ids = NULL;
	_cleanup_free_ char *after = NULL;
	size_t count = 0;
	int r = 0;
	do {
		json_auto_t *answer = NULL;
		json_auto_t *request = json_pack("{s:s, s:s*}", "call", "list", "after", after);
		r = call(arg, request, CALL_MILLIS, cancelled, &answer, error);
		if (r < 0)
			return r;
		const char *next = json_string_value(json_object_get(answer, "next"));
		free(after);
		after = next ? strdup(next) : NULL;
		if (add_owners(arg, answer, &ids, &count) < 0 || (next && !after))
			return error_set(error, -ENOMEM, "out of memory");
	} while (after);
	*ret_ids = TAKE_PTR(ids);
	*ret_count = count;
	return 0;
}

/* What is below the daemon's mounts has a server that answers, or none: then the name is not there at all. */
static bool shown(void *arg _unused_, const char *path)
{
	struct statfs status;
	return statfs(path, &status) == 0 && status.f_type == FUSE_SUPER_MAGIC;
}

int lazy_daemon(LazyDaemon *daemon, const char *socket, int stop_fd, const char *root, LazyBackend *ret_backend,
		Error *error)
{
	char hex[DIGEST_HEX_SIZE];
	Digest digest;
	if (digest_of(root, strlen(root), &digest) < 0)
		return error_set(error, -ENOMEM, "out of memory");
	daemon->socket = socket;
	daemon->stop_fd = stop_fd;
	(void)snprintf(daemon->prefix, sizeof(daemon->prefix), "snapshotter:%.*s:", DIGITS, digest_hex(&digest, hex));
	*ret_backend =
		(LazyBackend){ .attach = attach, .detach = detach, .owners = owners, .shown = shown, .arg = daemon };
	return 0;
}
