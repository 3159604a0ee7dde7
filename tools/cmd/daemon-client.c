#include "tools/cmd/daemon-client.h"

#include <limits.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/mount/mount-table.h"
#include "tools/cmd/mount-login.h"

int daemon_client_call(ControlClient *client, json_t *request, json_t **ret_answer, Error *error)
{
	json_t *answer = NULL;
	int r = request ? control_call(client, request, NULL, NULL, &answer, error)
			: error_set(error, -ENOMEM, "out of memory, or a name is not UTF-8");
	json_decref(request);
	if (r < 0)
		return r;
	if (ret_answer)
		*ret_answer = answer;
	else
		json_decref(answer);
	return 0;
}

/* A mount that another mount namespace makes is not seen here. */
static bool is_in_namespace(json_int_t pid)
{
	char path[64], own[64], other[64];
	(void)snprintf(path, sizeof(path), "/proc/%lld/ns/mnt", (long long)pid);
	ssize_t own_size = readlink("/proc/self/ns/mnt", own, sizeof(own));
	ssize_t other_size = readlink(path, other, sizeof(other));
	return own_size > 0 && own_size == other_size && memcmp(own, other, (size_t)own_size) == 0;
}

int daemon_client_connect(const char *socket, ControlClient **ret_client, Error *error)
{
	return control_connect(socket ?: CONTROL_SOCKET, ret_client, error);
}

bool daemon_client_takes(const char *text)
{
	json_t *string = json_string(text);
	bool takes = string != NULL;
	json_decref(string);
	for (const char *byte = text; takes && *byte; byte++)
		takes = (unsigned char)*byte >= 0x20 && *byte != 0x7f;
	return takes;
}

int daemon_client_try(const char *socket, ControlClient **ret_client, char **ret_cache, Error *error)
{
	_cleanup_(control_client_free_p) ControlClient *client = NULL;
	*ret_client = NULL;
	if (geteuid() != 0)
		return 0;
	int r = daemon_client_connect(socket, &client, error);
	if (r == -ENOENT || r == -ECONNREFUSED) {
		*error = (Error){ 0 };
		return 0;
	}
	json_t *answer = NULL;
	if (r == 0)
		r = daemon_client_call(client, json_pack("{s:s}", "call", "ping"), &answer, error);
	if (r < 0)
		return r;
	const char *cache = json_string_value(json_object_get(answer, "cache"));
	bool here = is_in_namespace(json_integer_value(json_object_get(answer, "pid")));
	char *copy = here && cache && ret_cache ? strdup(cache) : NULL;
	json_decref(answer);
	if (!here)
		return 0;
	*ret_client = TAKE_PTR(client);
	if (ret_cache)
		*ret_cache = copy;
	return 1;
}

static int add(json_t *object, const char *key, const char *text, Error *error)
{
	if (!text || json_object_set_new(object, key, json_string(text)) == 0)
		return 0;
	return error_set(error, -EINVAL, "%s is not UTF-8, which imgfsd does not take", text);
}

static int add_file(json_t *object, const char *key, const char *path, Error *error)
{
	_cleanup_free_ char *full = path ? realpath(path, NULL) : NULL;
	if (path && !full)
		return error_set(error, -errno, "%s: %s", path, strerror(errno));
	return add(object, key, full, error);
}

/* What docker uses for this user; imgfsd has another home, or none. */
static int add_usual_login(json_t *object, Error *error)
{
	const char *docker = getenv("DOCKER_CONFIG"), *home = getenv("HOME");
	char path[PATH_MAX];
	int size = docker ? snprintf(path, sizeof(path), "%s/config.json", docker)
		   : home ? snprintf(path, sizeof(path), "%s/.docker/config.json", home)
			  : PATH_MAX;
	return size >= PATH_MAX || access(path, R_OK) < 0 ? 0 : add_file(object, "login", path, error);
}

static int fill_access(json_t *object, const RemoteOptions *options, Error *error)
{
	const NetAccessOptions *access = &options->access;
	char *login = NULL;
	int r = options->user ? mount_login_read(options->user, options->password_file, &login, error) : 0;
	if (r == 0)
		r = add(object, "user", login, error);
	mount_login_free(login);
	if (r == 0)
		r = add_file(object, "certs", access->certs, error);
	if (r == 0)
		r = access->login ? add_file(object, "login", access->login, error) : add_usual_login(object, error);
	if (r == 0)
		r = add_file(object, "ca", access->ca, error);
	if (r == 0)
		r = add_file(object, "certificate", access->certificate, error);
	return r == 0 ? add_file(object, "key", access->key, error) : r;
}

int daemon_client_add_remote(json_t *request, const RemoteOptions *options, Error *error)
{
	json_t *access = json_object();
	int r = access ? fill_access(access, options, error) : error_set(error, -ENOMEM, "out of memory");
	if (r == 0 && json_object_size(access) > 0 && json_object_set(request, "access", access) < 0)
		r = error_set(error, -ENOMEM, "out of memory");
	if (r == 0 && options->plain_http && json_object_set_new(request, "plain_http", json_true()) < 0)
		r = error_set(error, -ENOMEM, "out of memory");
	json_decref(access);
	return r;
}

int daemon_client_list(ControlClient *client, int (*each)(void *arg, const json_t *entry), void *arg, Error *error)
{
	_cleanup_free_ char *after = NULL;
	do {
		json_t *answer, *entry;
		size_t at;
		int r = daemon_client_call(client, json_pack("{s:s, s:s*}", "call", "list", "after", after), &answer,
					   error);
		if (r < 0)
			return r;
		json_array_foreach(json_object_get(answer, "attached"), at, entry) if (r == 0) r = each(arg, entry);
		const char *next = json_string_value(json_object_get(answer, "next"));
		free(after);
		after = next ? strdup(next) : NULL;
		json_decref(answer);
		if (r < 0)
			return r;
	} while (after);
	return 0;
}

/* 0 is left out. */
static int add_number(json_t *object, const char *key, int64_t number)
{
	return number == 0 ? 0 : json_object_set_new(object, key, json_integer((json_int_t)number));
}

int daemon_client_mount(ControlClient *client, const MountRequest *request, json_t **ret_answer, Error *error)
{
	char directory[PATH_MAX];
	_cleanup_free_ char *store = request->store ? realpath(request->store, NULL) : NULL;
	if (request->store && !store)
		return error_set(error, -errno, "cannot open the store %s: %s", request->store, strerror(errno));
	int r = mount_table_path(request->directory, directory);
	if (r < 0)
		return error_set(error, r, "cannot mount on %s: %s", request->directory, strerror(-r));
	json_t *json = json_pack("{s:s, s:s, s:s, s:s, s:s*, s:b}", "call", "attach", "reference", request->reference,
				 "owner", directory, "directory", directory, "store", store, "noexec", request->noexec);
	/* Said only where it is wanted: imgfsd has settings of its own, and one of before does not know the last ones. */
	if (json && (add_number(json, "deadline", request->deadline) < 0 ||
		     add_number(json, "timeout", request->deadline) < 0 ||
		     add_number(json, "fill_rate", (int64_t)request->fill_rate) < 0 ||
		     (request->no_fill && json_object_set_new(json, "no_fill", json_true()) < 0) ||
		     (request->decoded && json_object_set_new(json, "decoded", json_true()) < 0))) {
		json_decref(json);
		return error_set(error, -ENOMEM, "out of memory");
	}
	r = json && !store ? daemon_client_add_remote(json, request->remote, error) : 0;
	if (r < 0) {
		json_decref(json);
		return r;
	}
	return daemon_client_call(client, json, ret_answer, error);
}
