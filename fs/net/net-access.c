#include "fs/net/net-access.h"

#include <fcntl.h>
#include <jansson.h>
#include <openssl/crypto.h>
#include <string.h>

#include "fs/base/fd.h"
#include "fs/net/net-basic.h"
#include "fs/net/net-registry.h"

#define PEM_MAX   (1u << 20)
#define LOGIN_MAX (1u << 20)

static void json_decref_p(json_t **value)
{
	json_decref(*value);
}

static void wipe(char **text)
{
	if (*text)
		OPENSSL_cleanse(*text, strlen(*text));
	free(*text);
	*text = NULL;
}

void net_access_done(NetAccess *access)
{
	free(access->ca);
	free(access->certificate);
	wipe(&access->key);
	wipe(&access->user);
	*access = (NetAccess){ 0 };
}

/* Reads CERTS/HOST/name into `ret_pem`; nothing there is no error. */
static int read_pem(const char *directory, const char *name, char **ret_pem, Error *error)
{
	_cleanup_free_ char *path = NULL;
	_cleanup_free_ char *pem = NULL;
	size_t size;
	if (asprintf(&path, "%s/%s", directory, name) < 0)
		return error_set(error, -ENOMEM, "out of memory");
	int r = fd_read_file(AT_FDCWD, path, PEM_MAX, &pem, &size);
	if (r == -ENOENT || r == -ENOTDIR)
		return 0;
	if (r < 0)
		return error_set(error, r, "%s cannot be read: %s", path, error_text(NULL, r));
	if (strlen(pem) != size || !strstr(pem, "-----BEGIN "))
		return error_set(error, -EINVAL,
				 "%s is not PEM (\"-----BEGIN ...\"); put the right file there, or remove it", path);
	*ret_pem = TAKE_PTR(pem);
	return 0;
}

static int load_files(const char *directory, NetAccess *access, Error *error)
{
	int r = read_pem(directory, "ca.crt", &access->ca, error);
	if (r == 0)
		r = read_pem(directory, "client.cert", &access->certificate, error);
	if (r == 0)
		r = read_pem(directory, "client.key", &access->key, error);
	if (r == 0 && !access->certificate != !access->key)
		return error_set(error, -EINVAL, "%s has one of client.cert and client.key; it takes both", directory);
	return r;
}

static int load_certificates(const char *certs, const char *host, NetAccess *access, Error *error)
{
	if (host[0] == '\0' || host[0] == '.' || strchr(host, '/'))
		return error_set(error, -EINVAL, "\"%s\" is no host", host);
	_cleanup_free_ char *directory = NULL;
	if (asprintf(&directory, "%s/%s", certs, host) < 0)
		return error_set(error, -ENOMEM, "out of memory");
	return load_files(directory, access, error);
}

/* The file docker keeps logins in; NULL when there can be none, or memory is out. */
static char *default_login(void)
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

/* The login for `host` among those of `root`: keys are hosts, or URLs of hosts where an old docker wrote them. */
static const char *find_login(json_t *root, const char *host)
{
	const char *key;
	json_t *login, *logins = json_object_get(root, "auths");
	json_object_foreach(logins, key, login)
	{
		const char *name = strncmp(key, "https://", 8) == 0 ? key + 8 : key;
		size_t length = strcspn(name, "/");
		if (length == strlen(host) && memcmp(name, host, length) == 0)
			return json_string_value(json_object_get(login, "auth"));
	}
	return NULL;
}

static int parse_login(const char *path, const char *json, size_t size, const char *host, NetAccess *access,
		       Error *error)
{
	json_error_t fault;
	_cleanup_(json_decref_p) json_t *root = json_loadb(json, size, 0, &fault);
	if (!root)
		return error_set(error, -EINVAL, "%s is not JSON: %s (line %d)", path, fault.text, fault.line);
	const char *base64 = find_login(root, host);
	if (!base64 || !base64[0])
		return 0; /* or a credential helper has it: then the server's refusal says what is missing */
	char user[NET_BASIC_MAX + 1];
	if (net_basic_decode(base64, user, sizeof(user)) < 0)
		return error_set(error, -EINVAL, "%s: the login of %s is damaged; run `docker login %s` again", path,
				 host, host);
	/* The text a plan carries is JSON, and so is UTF-8. */
	_cleanup_(json_decref_p) json_t *text = json_string(user);
	access->user = text ? strdup(user) : NULL;
	OPENSSL_cleanse(user, sizeof(user));
	if (!text)
		return error_set(error, -EINVAL, "%s: the login of %s is not UTF-8", path, host);
	return access->user ? 0 : error_set(error, -ENOMEM, "out of memory");
}

static int load_login(const char *login, const char *host, NetAccess *access, Error *error)
{
	_cleanup_free_ char *usual = login ? NULL : default_login();
	const char *path = login ?: usual;
	if (!path)
		return 0;
	char *json;
	size_t size;
	int r = fd_read_file(AT_FDCWD, path, LOGIN_MAX, &json, &size);
	if (!login && (r == -ENOENT || r == -ENOTDIR || r == -EACCES))
		return 0;
	if (r < 0)
		return error_set(error, r, "logins cannot be read from %s: %s", path, error_text(NULL, r));
	r = parse_login(path, json, size, host, access, error);
	OPENSSL_cleanse(json, size);
	free(json);
	return r;
}

int net_access_load(const char *certs, const char *login, const char *host, NetAccess *ret_access, Error *error)
{
	_cleanup_(net_access_done) NetAccess access = { 0 };
	int r = load_certificates(certs ?: NET_CERTS_DIRECTORY, host, &access, error);
	if (r == 0)
		r = load_login(login, host, &access, error);
	if (r < 0)
		return r;
	*ret_access = access;
	access = (NetAccess){ 0 };
	return 0;
}

char *net_access_base(const NetAccess *access, const char *host, bool plain_http)
{
	char *base;
	if (plain_http || (!access->ca && !access->certificate))
		return net_registry_base(host, plain_http);
	return asprintf(&base, "https://%s", host) < 0 ? NULL : base;
}

int net_access_encode(const NetAccess *access, char **ret_text)
{
	_cleanup_(json_decref_p) json_t *root =
		json_pack("{s:s*, s:s*, s:s*, s:s*}", "ca", access->ca, "certificate", access->certificate, "key",
			  access->key, "user", access->user);
	char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;
	if (!text)
		return -ENOMEM;
	*ret_text = text;
	return 0;
}

/* Copies a field, if there is one. */
static int take(const char *value, char **ret_copy)
{
	if (!value)
		return 0;
	*ret_copy = strdup(value);
	return *ret_copy ? 0 : -ENOMEM;
}

int net_access_decode(const char *text, NetAccess *ret_access)
{
	_cleanup_(json_decref_p) json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	const char *ca = NULL, *certificate = NULL, *key = NULL, *user = NULL;
	if (!root || json_unpack(root, "{s?s, s?s, s?s, s?s}", "ca", &ca, "certificate", &certificate, "key", &key,
				 "user", &user) < 0)
		return -EBADMSG;
	_cleanup_(net_access_done) NetAccess access = { 0 };
	int r = take(ca, &access.ca);
	if (r == 0)
		r = take(certificate, &access.certificate);
	if (r == 0)
		r = take(key, &access.key);
	if (r == 0)
		r = take(user, &access.user);
	if (r < 0)
		return r;
	*ret_access = access;
	access = (NetAccess){ 0 };
	return 0;
}
