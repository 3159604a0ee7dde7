/* What imgfsd holds, for who clears the cache up: no mount table shows it, since its mounts are those of one file system. */
#include <fcntl.h>
#include <limits.h>
#include <string.h>

#include "fs/base/fd.h"
#include "fs/node/node-record.h"
#include "tools/cmd/cmd-cache.h"
#include "tools/cmd/cmd-daemon.h"
#include "tools/cmd/daemon-client.h"

typedef struct Held {
	const char *state;
	DigestList *manifests, *objects;
	Error *error;
} Held;

static int add_layers(const NodeRecord *record, DigestList *objects)
{
	int r = 0;
	for (size_t i = 0; r == 0 && i < record->request.layer_count; i++) {
		const ControlLayer *layer = &record->request.layers[i];
		r = digest_list_add(objects, &layer->blob);
		if (r == 0)
			r = digest_list_add(objects, &layer->index);
		if (r == 0)
			r = digest_list_add(objects, &layer->diff_id);
	}
	return r;
}

static int add_record(void *arg, NodeRecord *record, const char *name, const Error *error)
{
	Held *held = arg;
	if (!record)
		return error_set(
			held->error, error->code ?: -EBADMSG,
			"nobody knows what %s/attached/%s holds: %s; nothing was removed. Remove that file if it "
			"is not wanted",
			held->state, name, error_text(error, -EBADMSG));
	int r = record->request.layers ? add_layers(record, held->objects)
				       : digest_list_add(held->manifests, &record->manifest);
	return r < 0 ? r : digest_list_add(held->objects, &record->chain_id);
}

/* A state that is not there holds nothing; nor does that of root for other users, whose caches are their own. */
static int add_state(const char *state, Held *held)
{
	char path[PATH_MAX];
	if (snprintf(path, sizeof(path), "%s/attached", state) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	_cleanup_close_ int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r = fd < 0 ? -errno : 0;
	if (r == -ENOENT || (r == -EACCES && geteuid() != 0))
		return 0;
	held->state = state;
	if (r == 0)
		r = node_records_read(fd, false, add_record, held);
	return r < 0 && held->error->code == 0 ? error_set(held->error, r, "%s: %s", path, strerror(-r)) : r;
}

/* The running one may have been told of another directory. NULL: none runs, or it is the same. */
static int running_state(const char *socket, const char *state, char **ret_state, Error *error)
{
	_cleanup_(control_client_free_p) ControlClient *client = NULL;
	json_t *answer = NULL;
	int r = daemon_client_try(socket, &client, NULL, error);
	if (r > 0)
		r = daemon_client_call(client, json_pack("{s:s}", "call", "ping"), &answer, error);
	if (r < 0)
		return r;
	const char *text = json_string_value(json_object_get(answer, "state"));
	*ret_state = text && strcmp(text, state) != 0 ? strdup(text) : NULL;
	bool lost = text && strcmp(text, state) != 0 && !*ret_state;
	json_decref(answer);
	return lost ? error_set(error, -ENOMEM, "out of memory") : 0;
}

int cache_held_add(const CacheArguments *arguments, DigestList *manifests, DigestList *objects, Error *error)
{
	const char *state = arguments->state ?: DAEMON_STATE;
	Held held = { .manifests = manifests, .objects = objects, .error = error };
	_cleanup_free_ char *running = NULL;
	int r = running_state(arguments->socket, state, &running, error);
	if (r == 0)
		r = add_state(state, &held);
	return r == 0 && running ? add_state(running, &held) : r;
}
