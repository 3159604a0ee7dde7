#include "fs/net/net-login.h"

#include <fcntl.h>
#include <jansson.h>
#include <openssl/crypto.h>
#include <string.h>

#include "fs/base/fd.h"
#include "fs/net/net-basic.h"
#include "fs/net/net-helper.h"

#define LOGIN_MAX  (1u << 20)
#define TOKEN_USER "<token>" /* as a helper's user: the secret is an identity token */

static void json_decref_p(json_t **value)
{
	json_decref(*value);
}

/* The file docker keeps logins in; NULL when there can be none, or memory is out. */
static char *default_path(void)
{
	char *path = NULL;
	const char *directory = getenv("DOCKER_CONFIG"), *home = getenv("HOME");
	int length = -1;
	if (directory && directory[0])
		length = asprintf(&path, "%s/config.json", directory);
	else if (home && home[0])
		length = asprintf(&path, "%s/.docker/config.json", home);
	return length < 0 ? NULL : path;
}

/* What `logins` has for `host`: keys are hosts, or URLs of hosts where an old docker wrote them. */
static json_t *find_host(json_t *logins, const char *host)
{
	const char *key;
	json_t *login = json_object_get(logins, host);
	if (login)
		return login;
	json_object_foreach(logins, key, login)
	{
		const char *name = strncmp(key, "https://", 8) == 0 ? key + 8 : key;
		size_t length = strcspn(name, "/");
		if (length == strlen(host) && memcmp(name, host, length) == 0)
			return login;
	}
	return NULL;
}

/* Copies what a JSON string has, if it is one that has something. */
static int take(const json_t *value, char **ret_copy)
{
	const char *text = json_string_value(value);
	if (!text || !text[0])
		return 0;
	*ret_copy = strdup(text);
	return *ret_copy ? 0 : -ENOMEM;
}

static int decode_user(const char *path, const char *host, const char *base64, NetAccess *access, Error *error)
{
	char user[NET_BASIC_MAX + 1];
	if (net_basic_decode(base64, user, sizeof(user)) < 0)
		return error_set(error, -EINVAL, "%s: the login of %s is damaged; run `docker login %s` again", path,
				 host, host);
	bool right = net_basic_is_login(user);
	access->user = right ? strdup(user) : NULL;
	OPENSSL_cleanse(user, sizeof(user));
	if (!right)
		return error_set(error, -EINVAL, "%s: the login of %s is not UTF-8", path, host);
	return access->user ? 0 : error_set(error, -ENOMEM, "out of memory");
}

/* A login that stands in the file itself. */
static int use_entry(const char *path, json_t *root, const char *host, NetAccess *access, Error *error)
{
	json_t *login = find_host(json_object_get(root, "auths"), host);
	const char *base64 = json_string_value(json_object_get(login, "auth"));
	int r = take(json_object_get(login, "identitytoken"), &access->identity);
	if (r == 0)
		r = take(json_object_get(login, "registrytoken"), &access->bearer);
	if (r < 0)
		return error_set(error, r, "out of memory");
	/* Beside an identity token the user has no password. */
	return access->identity || !base64 || !base64[0] ? 0 : decode_user(path, host, base64, access, error);
}

static int use_helper(const char *name, const char *host, NetAccess *access, Error *error)
{
	NetHelperLogin login = { 0 };
	int r = net_helper_get(name, host, &login, error);
	if (r < 0)
		return r;
	if (strcmp(login.user, TOKEN_USER) == 0)
		access->identity = TAKE_PTR(login.secret);
	else if (asprintf(&access->user, "%s:%s", login.user, login.secret) < 0)
		access->user = NULL;
	net_helper_login_done(&login);
	return access->identity || access->user ? 0 : error_set(error, -ENOMEM, "out of memory");
}

/*
 * A helper for this host has to work. That for all hosts need not even be there: who has none of its logins, perhaps a node with a config.json
 * from elsewhere, is not to be kept from a registry that wants none.
 */
static int parse_login(const char *path, const char *json, size_t size, const char *host, NetAccess *access,
		       Error *error)
{
	json_error_t fault;
	_cleanup_(json_decref_p) json_t *root = json_loadb(json, size, 0, &fault);
	if (!root)
		return error_set(error, -EINVAL, "%s is not JSON: %s (line %d)", path, fault.text, fault.line);
	const char *own = json_string_value(find_host(json_object_get(root, "credHelpers"), host));
	const char *common = json_string_value(json_object_get(root, "credsStore"));
	bool named = own && own[0];
	if (!named && (!common || !common[0]))
		return use_entry(path, root, host, access, error);
	int r = use_helper(named ? own : common, host, access, error);
	if (r == -ENOENT || (r == -ENOEXEC && !named))
		return use_entry(path, root, host, access, error);
	return r < 0 ? error_prefix(error, r, "login of %s, of the helper that %s names", host, path) : 0;
}

int net_login_load(const char *path, const char *host, NetAccess *access, Error *error)
{
	_cleanup_free_ char *usual = path ? NULL : default_path();
	const char *used = path ?: usual;
	if (!used)
		return 0;
	char *json;
	size_t size;
	int r = fd_read_file(AT_FDCWD, used, LOGIN_MAX, &json, &size);
	if (!path && (r == -ENOENT || r == -ENOTDIR || r == -EACCES))
		return 0;
	if (r < 0)
		return error_set(error, r, "logins cannot be read from %s: %s", used, error_text(NULL, r));
	r = parse_login(used, json, size, host, access, error);
	OPENSSL_cleanse(json, size);
	free(json);
	return r;
}
